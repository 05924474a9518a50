"""Receipts of webhooks, and the schedules of polls."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, LargeBinary, String, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import Base
from app.core.work import WorkRow, due_index


class Receipt(Base, WorkRow):
    """A verified webhook for one instance, byte for byte, and how far its handling is.

    Partitioned by id, which is by time. No foreign keys: storing one joins the live instance anyway.
    """

    __tablename__ = "receipts"
    __table_args__ = (
        Index("ix_receipts_list", "community_id", "id"),
        Index("ix_receipts_due", "next_at", postgresql_where="next_at IS NOT NULL AND NOT ordered"),
        Index("ix_receipts_turn", "instance_id", "position", postgresql_where="next_at IS NOT NULL AND ordered"),
        Index("ix_receipts_unhandled", "instance_id", "received_at", postgresql_where="next_at IS NOT NULL"),
        Index("ix_receipts_dead", "instance_id", "received_at", postgresql_where="status = 'dead'"),
        {"postgresql_partition_by": "RANGE (id)"},
    )

    id: Mapped[str] = mapped_column(String(collation="C"), primary_key=True)
    community_id: Mapped[str]
    instance_id: Mapped[str]
    plugin: Mapped[str]
    hook: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="stored")
    """stored, retrying, done or dead; "running" is a live lease on one of the first two."""
    error: Mapped[str | None]
    received_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    position: Mapped[int] = mapped_column(BigInteger, server_default=text("nextval('positions')"))
    """Its place in the order of arrival, shared with signals."""
    ordered: Mapped[bool] = mapped_column(server_default=text("false"))
    """Handled in the order of arrival among the instance's ordered receipts."""
    headers: Mapped[list[Any]] = mapped_column(JSON)
    """[[name, value], …] as they came, without Authorization and Cookie."""
    body: Mapped[bytes] = mapped_column(LargeBinary)


class Poll(Base, WorkRow):
    """The schedule of one poll of one instance, and where it goes on from."""

    __tablename__ = "polls"
    __table_args__ = (UniqueConstraint("instance_id", "name"), due_index("polls"))

    id: Mapped[str] = mapped_column(primary_key=True)
    instance_id: Mapped[str] = mapped_column(ForeignKey("instances.id", ondelete="CASCADE"))
    plugin: Mapped[str]
    name: Mapped[str]
    cursor: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
    last_run_at: Mapped[datetime | None]
    last_success_at: Mapped[datetime | None]
    error: Mapped[str | None]
