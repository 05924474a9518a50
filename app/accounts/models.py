"""Drivers, their keys and redirect URIs, and the communities they govern."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, LargeBinary, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import Base


class Driver(Base):
    """A governance engine's account."""

    __tablename__ = "drivers"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    signing_secret: Mapped[str]
    """Sealed; signs what is posted to the driver's callback URLs."""
    previous_secret: Mapped[str | None]
    """Sealed; signs beside `signing_secret` until `previous_until`."""
    previous_until: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ApiKey(Base):
    """One of a driver's keys: only its hash is kept."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    driver_id: Mapped[str] = mapped_column(ForeignKey("drivers.id", ondelete="CASCADE"), index=True)
    hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    hint: Mapped[str]
    """The key's first characters, for people to tell keys apart."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    revoked_at: Mapped[datetime | None]


class RedirectUri(Base):
    """Where a driver may have people sent back to after an OAuth install."""

    __tablename__ = "redirect_uris"

    driver_id: Mapped[str] = mapped_column(ForeignKey("drivers.id", ondelete="CASCADE"), primary_key=True)
    uri: Mapped[str] = mapped_column(primary_key=True)


class Community(Base):
    """A community. Its slug stays reserved for its driver after it is deleted."""

    __tablename__ = "communities"
    __table_args__ = (Index("ix_communities_live", "driver_id", "slug", postgresql_where="deleted_at IS NULL"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    driver_id: Mapped[str] = mapped_column(ForeignKey("drivers.id", ondelete="RESTRICT"))
    slug: Mapped[str] = mapped_column(unique=True)
    readable_name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_at: Mapped[datetime | None]


class Idempotency(Base):
    """The first answer to a POST that carried an Idempotency-Key; `answer` is sealed, it may show a secret once."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (UniqueConstraint("driver_id", "key"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    driver_id: Mapped[str] = mapped_column(ForeignKey("drivers.id", ondelete="CASCADE"))
    key: Mapped[str]
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary)
    answer: Mapped[str | None]
    locked_until: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
