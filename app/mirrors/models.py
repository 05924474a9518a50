"""Mirrors, their runs and the partitions that are read. The tables of records are made by `app.mirrors.schema`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Identity, Index, LargeBinary, String, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import Base
from app.core.work import WorkRow, due_index


class Mirror(Base):
    """An instance that is mirrored: from its first run on, it has a schedule."""

    __tablename__ = "mirrors"

    instance_id: Mapped[str] = mapped_column(ForeignKey("instances.id", ondelete="CASCADE"), primary_key=True)
    provider: Mapped[str]
    next_sync_at: Mapped[datetime | None]
    next_sweep_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class MirrorRun(Base):
    """One reading of an instance's platform. It has the partitions with its id; it is over when none is due."""

    __tablename__ = "mirror_runs"
    __table_args__ = (
        Index("uq_mirror_runs_current", "instance_id", "state", unique=True, postgresql_where="finished_at IS NULL"),
        Index("ix_mirror_runs_instance", "instance_id", "id"),
    )

    id: Mapped[str] = mapped_column(String(collation="C"), primary_key=True)
    instance_id: Mapped[str] = mapped_column(ForeignKey("instances.id", ondelete="CASCADE"))
    sweep: Mapped[bool]
    state: Mapped[str]
    """waiting (for the one that is running), running, completed, incomplete (but for what is refused) or failed."""
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    error: Mapped[str | None]
    """Of one that is not clean: how many partitions failed or are refused, and why the first is."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class MirrorPartition(Base, WorkRow):
    """A partition of a walk: what is due of it, where reading it has got to, and up to when it is known whole."""

    __tablename__ = "mirror_partitions"
    __table_args__ = (
        UniqueConstraint("instance_id", "walk", "key"),
        due_index("mirror_partitions"),
        Index("ix_mirror_partitions_run", "run_id"),
        Index("ix_mirror_partitions_waiting", "run_id", postgresql_where="next_at IS NOT NULL"),
        # The instance last: while there are few rows, a plan would take any index that begins with it for the other.
        Index("ix_mirror_partitions_owner", "owner_key", "owner_table", "instance_id"),
        Index("ix_mirror_partitions_parent", "parent"),
        Index("ix_mirror_partitions_refused", "instance_id", postgresql_where="status = 'refused'"),
    )

    id: Mapped[str] = mapped_column(String(collation="C"), primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, Identity(always=True), unique=True)
    """What rows name it by."""
    instance_id: Mapped[str] = mapped_column(ForeignKey("instances.id", ondelete="CASCADE"))
    walk: Mapped[str]
    key: Mapped[str]
    data: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
    parent: Mapped[int | None] = mapped_column(BigInteger)
    """The number of the partition whose page it was found on."""
    owner_table: Mapped[str | None]
    owner_key: Mapped[str | None]
    """The row that it hangs on; with that, it is gone."""
    run_id: Mapped[str | None]
    sweep: Mapped[bool] = mapped_column(server_default=text("false"))
    again: Mapped[bool] = mapped_column(server_default=text("false"))
    """Something new was heard of it while it was being read."""
    status: Mapped[str] = mapped_column(server_default="ok")
    """ok, failed, refused (the platform does not show it to us) or gone."""
    error: Mapped[str | None]
    wanted: Mapped[str | None]
    """The fingerprint that its parent's page gave last."""
    seen: Mapped[str | None]
    """The fingerprint that it had when it was last read to the end."""
    cursor: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
    pass_number: Mapped[int] = mapped_column(server_default="0")
    """Raised when everything is read again: rows with an older one were not found."""
    reading_since: Mapped[datetime | None]
    """When the reading that is under way began."""
    progress_at: Mapped[datetime | None]
    """When its last page was committed, or its reading began."""
    through: Mapped[datetime | None]
    """All that was there at this time is mirrored."""
    swept: Mapped[datetime | None]
    """The same, and as it was at this time: changes and deletions included."""
    high_water: Mapped[datetime | None]
    rows: Mapped[dict[str, int]] = mapped_column(JSONB, server_default=text("'{}'"))
    """By how many each table has grown through it."""
    requests: Mapped[int] = mapped_column(server_default="0")
    waits: Mapped[int] = mapped_column(server_default="0")
    """Both of the run."""
    ask_again_at: Mapped[datetime | None]
    """Of a refused one: until then no run that is not a sweep asks for it."""
    last_attempt_at: Mapped[datetime | None]
    last_success_at: Mapped[datetime | None]


class MirrorTable(Base):
    """The registry of the tables that `metagov migrate` has made for providers."""

    __tablename__ = "mirror_tables"

    provider: Mapped[str] = mapped_column(primary_key=True)
    table_name: Mapped[str] = mapped_column(primary_key=True)
    shape: Mapped[Any] = mapped_column(JSON)
    """Its columns, as `app.mirrors.columns` describes them."""
    sha256: Mapped[str]
    filling: Mapped[list[str]] = mapped_column(JSONB, server_default=text("'[]'"))
    """New columns that are still being filled from what was kept."""
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class MirrorOddity(Base):
    """What a platform sent that is no row: its key is missing or unreadable. Kept as it came."""

    __tablename__ = "mirror_oddities"

    instance_id: Mapped[str] = mapped_column(ForeignKey("instances.id", ondelete="CASCADE"), primary_key=True)
    table_name: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    body: Mapped[Any] = mapped_column(JSON)
    first_seen: Mapped[datetime] = mapped_column(server_default=func.now())


class MirrorAnswer(Base):
    """A page's requests and their answers, when METAGOV_MIRROR_KEEP_ANSWERS is set. Of equal places the last counts."""

    __tablename__ = "mirror_answers"

    partition: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("mirror_partitions.number", ondelete="CASCADE"), primary_key=True
    )
    place_sha256: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    place: Mapped[Any] = mapped_column(JSON)
    answers: Mapped[Any] = mapped_column(JSON)
    """[[method, url, status, headers, SHA-256 of the body in hex], …] in their order."""
    at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


class MirrorBody(Base):
    """A body, compressed, under the SHA-256 of what it is uncompressed."""

    __tablename__ = "mirror_bodies"

    instance_id: Mapped[str] = mapped_column(ForeignKey("instances.id", ondelete="CASCADE"), primary_key=True)
    sha256: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    body: Mapped[bytes] = mapped_column(LargeBinary)


class MirrorForgotten(Base, WorkRow):
    """An account that is not to be mirrored again, and how far taking out what there is of it has got."""

    __tablename__ = "mirror_forgotten"
    __table_args__ = (UniqueConstraint("id"), due_index("mirror_forgotten"))

    id: Mapped[str] = mapped_column(String(collation="C"))
    community_id: Mapped[str] = mapped_column(ForeignKey("communities.id", ondelete="CASCADE"), primary_key=True)
    provider: Mapped[str] = mapped_column(primary_key=True)
    hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    """Of the account, so that it is here once."""
    sealed: Mapped[str]
    """The account and what names it, sealed: it has to be recognised in what the platform sends."""
    forgotten_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """When that was asked for last: what came before goes."""
    finished_at: Mapped[datetime | None]
    waits: Mapped[str | None]
    """What is still to be done, in words, where a try could not do it."""
    report: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
    """What was taken out, counted, and which snapshots still hold it. Names nobody."""
