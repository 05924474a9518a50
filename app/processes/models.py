"""Governance processes and the external effects their steps ask for."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import Base
from app.core.work import WorkRow, due_index


class ProcessRow(Base, WorkRow):
    """One governance process. Its next duty (start, fold, timer, observe, render) is due at `next_at`."""

    __tablename__ = "processes"
    __table_args__ = (
        UniqueConstraint("idempotency_key"),
        Index("ix_processes_list", "community_id", "id"),
        Index("ix_processes_key", "instance_id", "name", "key", postgresql_where="status = 'pending'"),
        due_index("processes"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    community_id: Mapped[str] = mapped_column(ForeignKey("communities.id", ondelete="CASCADE"))
    instance_id: Mapped[str] = mapped_column(ForeignKey("instances.id", ondelete="CASCADE"))
    plugin: Mapped[str]
    name: Mapped[str]
    """The process's name within its plugin."""
    status: Mapped[str] = mapped_column(server_default="created")
    """created, pending or completed."""
    params: Mapped[dict[str, Any]] = mapped_column(JSON)
    state: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    state_version: Mapped[int] = mapped_column(server_default="0")
    outcome: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    errors: Mapped[dict[str, Any]] = mapped_column(JSON, server_default=text("'{}'"))
    url: Mapped[str | None]
    key: Mapped[str | None]
    """The platform's id that signals are addressed by."""
    idempotency_key: Mapped[str]
    correlation_id: Mapped[str | None]
    callback_id: Mapped[str | None]
    """The implicit endpoint of its callback_url."""
    starting: Mapped[bool] = mapped_column(server_default=text("false"))
    """Set before `start` is called: a row found in this state may have opened something on the platform."""
    version: Mapped[int] = mapped_column(server_default="0")
    """Counts committed steps; `rendered` is the one last shown on the platform."""
    rendered: Mapped[int] = mapped_column(server_default="0")
    render_at: Mapped[datetime | None]
    closing_at: Mapped[datetime | None]
    wake_at: Mapped[datetime | None]
    observe_at: Mapped[datetime | None]
    observed_final: Mapped[bool] = mapped_column(server_default=text("false"))
    parked: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class EffectRow(Base, WorkRow):
    """An external effect of a committed step, performed at least once."""

    __tablename__ = "effects"
    __table_args__ = (due_index("effects"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    process_id: Mapped[str] = mapped_column(ForeignKey("processes.id", ondelete="CASCADE"), index=True)
    method: Mapped[str]
    args: Mapped[dict[str, Any]] = mapped_column(JSON)
    expires: Mapped[datetime | None]
    error: Mapped[str | None]
