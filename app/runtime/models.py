"""Plugin instances, their state, what they have seen, and the mailbox of signals for processes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Identity, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import Base


class Instance(Base):
    """A plugin enabled for a community; `community_platform_id` ("" for none) tells several of one plugin apart."""

    __tablename__ = "instances"
    __table_args__ = (
        Index(
            "uq_instances_identity",
            "community_id",
            "plugin",
            "community_platform_id",
            unique=True,
            postgresql_where="deleted_at IS NULL",
        ),
        Index("ix_instances_platform", "plugin", "community_platform_id", postgresql_where="deleted_at IS NULL"),
        Index("ix_instances_changed", "updated_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    community_id: Mapped[str] = mapped_column(ForeignKey("communities.id", ondelete="CASCADE"))
    plugin: Mapped[str]
    community_platform_id: Mapped[str]
    config: Mapped[dict[str, Any]] = mapped_column(JSON)
    """The plain fields, as the driver set them."""
    secrets: Mapped[str]
    """The secret fields: a sealed JSON object."""
    config_version: Mapped[int]
    generation: Mapped[int]
    """Raised by every change of config or status, so that what was cached of an older one is noticed."""
    status: Mapped[str]
    """enabled, disabled, needs_auth or error."""
    deleted_at: Mapped[datetime | None]
    """Deleted instances stay until their processes have closed."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class InstanceState(Base):
    """What an instance remembers: its own row, so that changing it locks nothing else.

    `lease_until` and `epoch` are the turn of an exclusive action.
    """

    __tablename__ = "instance_states"

    instance_id: Mapped[str] = mapped_column(ForeignKey("instances.id", ondelete="CASCADE"), primary_key=True)
    state: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    state_version: Mapped[int]
    lease_until: Mapped[datetime | None]
    epoch: Mapped[int] = mapped_column(server_default="0")


class PlatformBinding(Base):
    """Leave for a community to use a platform id under credentials that are the whole deployment's.

    Given by an OAuth install that the community's driver completed, or by the operator.
    """

    __tablename__ = "platform_bindings"

    community_id: Mapped[str] = mapped_column(ForeignKey("communities.id", ondelete="CASCADE"), primary_key=True)
    plugin: Mapped[str] = mapped_column(primary_key=True)
    community_platform_id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Credential(Base):
    """A platform's token of an instance, sealed. `lease_until` and `epoch` are the turn of the worker that renews it.

    No foreign key: `setup` may ask for a token before the instance it sets up is written.
    """

    __tablename__ = "credentials"
    __table_args__ = (Index("ix_credentials_expiring", "expires_at", postgresql_where="expires_at IS NOT NULL"),)

    instance_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    source: Mapped[str]
    """oauth (an app install gave it), minted or kept (by the plugin)."""
    sealed: Mapped[str]
    """The token as JSON; "" while the first one is being minted."""
    refreshable: Mapped[bool]
    expires_at: Mapped[datetime | None]
    renew_at: Mapped[datetime | None]
    """From when on it is worth renewing, though still good."""
    version: Mapped[int] = mapped_column(server_default="0")
    """Raised by every new token, so that only the one that was refused is taken for void."""
    lease_until: Mapped[datetime | None]
    epoch: Mapped[int] = mapped_column(server_default="0")
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Seen(Base):
    """Keys of webhooks and events that an instance has had, so that a repeat is recognised."""

    __tablename__ = "seen"
    __table_args__ = (Index("ix_seen_hooks", "seen_at", postgresql_where="key LIKE 'hook:%'"),)

    instance_id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    """`hook:<hook>:<key>` or `event:<key>`."""
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())


class SignalRow(Base):
    """A signal in the mailbox of the processes it is addressed to; kept unmatched for a while."""

    __tablename__ = "signals"
    __table_args__ = (
        Index("ix_signals_waiting", "instance_id", "process", "key", "position", postgresql_where="applied_at IS NULL"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger, server_default=text("nextval('positions')"))
    """The receipt's, where a webhook brought it: handlers finish in any order, webhooks came in one."""
    instance_id: Mapped[str] = mapped_column(ForeignKey("instances.id", ondelete="CASCADE"))
    process: Mapped[str]
    key: Mapped[str]
    kind: Mapped[str]
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    at: Mapped[datetime]
    applied_at: Mapped[datetime | None]


class DirtyMark(Base):
    """A row of an instance's mirror that changed on the platform; taken up by `app.mirrors`, and gone then."""

    __tablename__ = "dirty_marks"

    instance_id: Mapped[str] = mapped_column(ForeignKey("instances.id", ondelete="CASCADE"), primary_key=True)
    table_name: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    marked_at: Mapped[datetime] = mapped_column(server_default=func.now())
