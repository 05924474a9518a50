"""What readers and writers remember of archives, so that a HEAD that goes back is noticed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import Base


class ArchiveHead(Base):
    """The newest HEAD of an archive that was seen, and what the last snapshot's source said of its parts."""

    __tablename__ = "archive_heads"

    community_id: Mapped[str] = mapped_column(ForeignKey("communities.id", ondelete="CASCADE"), primary_key=True)
    provider: Mapped[str] = mapped_column(primary_key=True)
    """The archive's name: the provider's own, or with the platform id behind a dot."""
    url: Mapped[str] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger)
    snapshot: Mapped[str]
    marked: Mapped[str | None]
    """The snapshot that `marks` belong to."""
    marks: Mapped[Any] = mapped_column(JSON(none_as_null=True), nullable=True)
    """`{table: [[partition, month, mark], …]}`"""
    archived_run: Mapped[str | None]
    """The mirror's run whose rows were archived last."""
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ArchivePlace(Base):
    """The name under which what a platform's id stands for is archived, whichever instance mirrors it."""

    __tablename__ = "archive_places"
    __table_args__ = (UniqueConstraint("community_id", "name"),)

    community_id: Mapped[str] = mapped_column(ForeignKey("communities.id", ondelete="CASCADE"), primary_key=True)
    provider: Mapped[str] = mapped_column(primary_key=True)
    community_platform_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
