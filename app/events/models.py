"""The event log, the endpoints it is delivered to, and the deliveries with their attempts."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Identity, Index, String, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import ARRAY, TEXT
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import Base, Xid8
from app.core.work import WorkRow


class EventRow(Base):
    """One event. Bodies are `json`, not `jsonb`: platforms send NUL escapes, and key order is theirs.

    Partitioned by id, which is by time.
    """

    __tablename__ = "events"
    __table_args__ = (
        Index("ix_events_order", "driver_id", "era", "xid", "seq"),
        Index("ix_events_community", "community", "era", "xid", "seq"),
        {"postgresql_partition_by": "RANGE (id)"},
    )

    id: Mapped[str] = mapped_column(String(collation="C"), primary_key=True)
    driver_id: Mapped[str]
    community_id: Mapped[str | None]
    community: Mapped[str | None]
    instance_id: Mapped[str | None]
    source: Mapped[str]
    event_type: Mapped[str]
    timestamp: Mapped[datetime]
    data: Mapped[Any] = mapped_column(JSON)
    initiator: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
    era: Mapped[int] = mapped_column(server_default=text("current_era()"))
    xid: Mapped[int] = mapped_column(Xid8, server_default=text("pg_current_xact_id()"))
    seq: Mapped[int] = mapped_column(BigInteger, server_default=text("nextval('event_order')"))
    """From a sequence of its own: before Postgres 17 no partition can have an identity column."""
    stored_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Era(Base):
    """One row: raised by the operator after a restore, when transaction ids start over. Read by `current_era()`."""

    __tablename__ = "era"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    era: Mapped[int]


class Endpoint(Base):
    """Where a driver has events posted. A process's callback_url is one too, of kind `callback`."""

    __tablename__ = "endpoints"
    __table_args__ = (
        Index("uq_endpoints_callback", "driver_id", "url", unique=True, postgresql_where="kind = 'callback'"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    driver_id: Mapped[str] = mapped_column(ForeignKey("drivers.id", ondelete="CASCADE"), index=True)
    kind: Mapped[str]
    """endpoint or callback."""
    url: Mapped[str]
    secret: Mapped[str | None]
    """Sealed; a callback has none: it is signed with the driver's own."""
    previous_secret: Mapped[str | None]
    """Sealed; signs beside `secret` until `previous_until`."""
    previous_until: Mapped[datetime | None]
    events: Mapped[list[str] | None] = mapped_column(ARRAY(TEXT))
    communities: Mapped[list[str] | None] = mapped_column(ARRAY(TEXT))
    format: Mapped[str] = mapped_column(server_default="metagov")
    ordered: Mapped[bool] = mapped_column(server_default=text("false"))
    status: Mapped[str] = mapped_column(server_default="enabled")
    disabled_reason: Mapped[str | None]
    failures: Mapped[int] = mapped_column(default=0, server_default="0")
    """Failed attempts since the last that succeeded; from a number on the circuit is open."""
    not_before: Mapped[datetime | None]
    """Nothing is posted before: the circuit is open, or the endpoint asked for a pause."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Delivery(Base, WorkRow):
    """One event on its way to one endpoint.

    `next_at` is set exactly while `status` is pending. Within a lane, (era, xid, seq) orders deliveries as their
    events are ordered: both are written in the same transaction and in the same order. The event may be gone before:
    it is dropped with its partition, and a foreign key would hold that partition.
    """

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("endpoint_id", "event_id"),
        Index("ix_deliveries_due", "endpoint_id", "next_at", postgresql_where="next_at IS NOT NULL"),
        Index("ix_deliveries_lane", "endpoint_id", "lane", "era", "xid", "seq", postgresql_where="next_at IS NOT NULL"),
    )

    id: Mapped[str] = mapped_column(String(collation="C"), primary_key=True)
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("endpoints.id", ondelete="CASCADE"))
    event_id: Mapped[str] = mapped_column(String(collation="C"), index=True)
    status: Mapped[str] = mapped_column(server_default="pending")
    """pending, delivered or dead."""
    lane: Mapped[str] = mapped_column(server_default="")
    """The community's id: what ordered endpoints keep in order."""
    era: Mapped[int] = mapped_column(server_default=text("current_era()"))
    xid: Mapped[int] = mapped_column(Xid8, server_default=text("pg_current_xact_id()"))
    seq: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Attempt(Base):
    """One try of a delivery, with what the endpoint answered. Partitioned by id, which is by time."""

    __tablename__ = "attempts"
    __table_args__ = {"postgresql_partition_by": "RANGE (id)"}  # noqa: RUF012 -- SQLAlchemy's own attribute

    id: Mapped[str] = mapped_column(String(collation="C"), primary_key=True)
    delivery_id: Mapped[str] = mapped_column(String(collation="C"), index=True)
    at: Mapped[datetime]
    status: Mapped[int | None]
    latency_ms: Mapped[int]
    error: Mapped[str | None]
    response_text: Mapped[str | None]
