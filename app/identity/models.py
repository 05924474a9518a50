"""MetagovIDs and linked accounts."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, LargeBinary, String, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import Base


class MetagovID(Base):
    """A person in a community. Several that were found to be one person share a `primary_id`.

    It always names the end of the chain, so that resolving an id is one lookup however often its person was merged.
    """

    __tablename__ = "metagov_ids"
    __table_args__ = (Index("ix_metagov_ids_community", "community_id", "id"),)

    id: Mapped[str] = mapped_column(String(collation="C"), primary_key=True)
    community_id: Mapped[str] = mapped_column(ForeignKey("communities.id", ondelete="CASCADE"))
    primary_id: Mapped[str] = mapped_column(String(collation="C"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class LinkedAccount(Base):
    """A platform account, and the MetagovID it was linked to: of all its person's, any."""

    __tablename__ = "linked_accounts"
    __table_args__ = (UniqueConstraint("community_id", "key", "community_platform_id"),)

    id: Mapped[str] = mapped_column(String(collation="C"), primary_key=True)
    community_id: Mapped[str]
    """The MetagovID's; here for the unique constraint."""
    metagov_id: Mapped[str] = mapped_column(
        String(collation="C"), ForeignKey("metagov_ids.id", ondelete="CASCADE"), index=True
    )
    key: Mapped[bytes] = mapped_column(LargeBinary)
    """A hash of platform_type and platform_identifier, which together are too long for an index."""
    platform_type: Mapped[str]
    community_platform_id: Mapped[str]
    """"" where the link holds for the platform as a whole."""
    platform_identifier: Mapped[str]
    custom_data: Mapped[dict[str, Any]] = mapped_column(JSON)
    link_type: Mapped[str]
    link_quality: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())
