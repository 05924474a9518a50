"""Governance processes, their history, and the external effects their steps ask for."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import Base, Xid8
from app.core.work import WorkRow, due_index


class ProcessRow(Base, WorkRow):
    """One governance process. Its next duty (start, fold, timer, observe, render) is due at `next_at`."""

    __tablename__ = "processes"
    __table_args__ = (
        UniqueConstraint("idempotency_key"),
        Index("ix_processes_list", "community_id", "id"),
        Index("ix_processes_key", "instance_id", "name", "key", postgresql_where="status = 'pending'"),
        Index("ix_processes_open", "instance_id", "paused_at", postgresql_where="status <> 'completed'"),
        Index("ix_processes_parked", "id", postgresql_where="parked IS NOT NULL"),
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
    close_reason: Mapped[str | None]
    """Set when a driver closes it: `closing_at` is then the time of that call."""
    closing_xid: Mapped[int | None] = mapped_column(Xid8)
    """Transactions before this one can still bring a signal that is to be counted; set while that is waited for."""
    closing_since: Mapped[datetime | None]
    """Since when that is waited for."""
    wake_at: Mapped[datetime | None]
    observe_at: Mapped[datetime | None]
    observed_final: Mapped[bool] = mapped_column(server_default=text("false"))
    paced_until: Mapped[datetime | None]
    """Before, a signal that is written does not make it due: it is soon, and takes many at once."""
    parked: Mapped[str | None]
    paused_at: Mapped[datetime | None]
    """Since when its instance is disabled."""
    untold: Mapped[bool] = mapped_column(server_default=text("false"))
    """It ended with its start, whose answer was not yet out: the driver is told by the next step."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class TransitionRow(Base):
    """One committed step of a process, with all that repeating it takes."""

    __tablename__ = "process_transitions"

    process_id: Mapped[str] = mapped_column(ForeignKey("processes.id", ondelete="CASCADE"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """The process's, after the step."""
    at: Mapped[datetime]
    """The database's time that the step was taken with."""
    kind: Mapped[str]
    """start, step or close."""
    status: Mapped[str]
    """The process's, after the step."""
    signals: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    """[[position, kind, data, at], …] as they were folded: the mailbox forgets them."""
    signal_count: Mapped[int] = mapped_column(server_default="0")
    first_position: Mapped[int | None] = mapped_column(BigInteger)
    last_position: Mapped[int | None] = mapped_column(BigInteger)
    late: Mapped[int] = mapped_column(server_default="0")
    """Signals that came after `closing_at`, and were not folded."""
    woken: Mapped[bool] = mapped_column(server_default=text("false"))
    """After the signals, a timer's "wake"."""
    reason: Mapped[str | None]
    """After that, `close` with this reason."""
    unread: Mapped[int] = mapped_column(server_default="0")
    state_version: Mapped[int]
    state_digest: Mapped[str | None]
    """SHA-256 of the state's JSON as it is stored, after the step."""
    state: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """The state itself where it does not follow from what came before: after the start, and after an upgrade."""
    outcome: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """As drivers are told of it: while the process is pending, `update_of` what the step gave, if it gave one."""
    errors: Mapped[dict[str, Any]] = mapped_column(JSON, server_default=text("'{}'"))


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
