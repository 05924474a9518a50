"""Receipts, events and attempts are partitioned by id, which is by time; queues are vacuumed more often.

Revision ID: 0002
Revises: 0001
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from alembic import op

from app.core.db import Xid8
from app.core.ids import lowest_id
from app.core.settings import load_settings

revision: str = "0002"
down_revision: str | Sequence[str] | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_PREFIXES = {"receipts": "rcp", "events": "evt", "attempts": "att"}
_QUEUE = (
    "autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_limit = 1000"
)
_PARTITION_STORAGE = {"receipts": f"fillfactor = 85, {_QUEUE}", "events": "", "attempts": ""}

_INDEXES = {
    "receipts": {"ix_receipts_instance_id": ["instance_id"], "ix_receipts_list": ["community_id", "id"]},
    "events": {"ix_events_community_id": ["community_id"], "ix_events_order": ["driver_id", "era", "xid", "seq"]},
    "attempts": {"ix_attempts_delivery_id": ["delivery_id"]},
}

_HOT = "fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500"
_SWEPT = "autovacuum_vacuum_scale_factor = 0.05"
_STORAGE = {
    "deliveries": f"fillfactor = 85, {_QUEUE}",
    "processes": f"fillfactor = 85, {_QUEUE}",
    "effects": f"fillfactor = 85, {_QUEUE}",
    "polls": _HOT,
    "endpoints": _HOT,
    "instance_states": _HOT,
    "seen": _SWEPT,
    "idempotency_keys": _SWEPT,
    "signals": _SWEPT,
}


def upgrade() -> None:
    # Copying takes as long as there are rows.
    op.execute("SET LOCAL statement_timeout = 0")
    _drop_foreign_keys()
    op.execute('ALTER TABLE deliveries ALTER id TYPE varchar COLLATE "C", ALTER event_id TYPE varchar COLLATE "C"')
    # Before Postgres 17 no partition can have an identity column.
    op.execute("CREATE SEQUENCE event_order")
    op.execute("SELECT setval('event_order', coalesce(max(seq), 0) + 1, false) FROM events")
    _set_aside()
    _create_receipts(partitioned=True)
    _create_events(partitioned=True)
    _create_attempts(partitioned=True)
    for table in _PREFIXES:
        _create_partitions(table)
        columns = ", ".join(_columns(f"{table}_old"))
        op.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {table}_old")  # noqa: S608
        op.execute(f"DROP TABLE {table}_old")
    _create_indexes()
    # Only webhooks' keys are forgotten: an index that has the others too would be walked in vain.
    op.drop_index("ix_seen_seen_at", "seen")
    op.create_index("ix_seen_hooks", "seen", ["seen_at"], unique=False, postgresql_where="key LIKE 'hook:%'")
    for table, storage in _STORAGE.items():
        op.execute(f"ALTER TABLE {table} SET ({storage})")


def downgrade() -> None:
    op.execute("SET LOCAL statement_timeout = 0")
    for table, storage in _STORAGE.items():
        names = ", ".join(setting.partition("=")[0].strip() for setting in storage.split(","))
        op.execute(f"ALTER TABLE {table} RESET ({names})")
    op.drop_index("ix_seen_hooks", "seen")
    op.create_index("ix_seen_seen_at", "seen", ["seen_at"], unique=False)
    _set_aside()
    _create_receipts(partitioned=False)
    _create_events(partitioned=False)
    _create_attempts(partitioned=False)
    # The foreign keys that come back allow no row whose partner was dropped before it.
    op.execute("DELETE FROM deliveries WHERE event_id NOT IN (SELECT id FROM events_old)")
    kept = {
        "receipts": "instance_id IN (SELECT id FROM instances) AND community_id IN (SELECT id FROM communities)",
        "events": "true",
        "attempts": "delivery_id IN (SELECT id FROM deliveries)",
    }
    for table, condition in kept.items():
        columns = ", ".join(column for column in _columns(f"{table}_old") if (table, column) != ("receipts", "ordered"))
        op.execute(
            f"INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE "  # noqa: S608
            f"SELECT {columns} FROM {table}_old WHERE {condition}"
        )
        op.execute(f"DROP TABLE {table}_old")
    op.execute("SELECT setval(pg_get_serial_sequence('events', 'seq'), coalesce(max(seq), 0) + 1, false) FROM events")
    op.execute("DROP SEQUENCE event_order")
    op.execute("ALTER TABLE deliveries ALTER id TYPE varchar, ALTER event_id TYPE varchar")
    _create_indexes()
    _create_foreign_keys()


def _set_aside() -> None:
    """Rename the tables, and free the names of their indexes for those that take their place."""
    for table, indexes in _INDEXES.items():
        op.execute(f"ALTER TABLE {table} RENAME TO {table}_old")
        op.execute(f"ALTER TABLE {table}_old DROP CONSTRAINT pk_{table}")
        for index in indexes:
            op.execute(f"DROP INDEX {index}")
    op.execute("DROP INDEX ix_receipts_due")


def _columns(table: str) -> list[str]:
    return [column["name"] for column in sa.inspect(op.get_bind()).get_columns(table)]


def _create_partitions(table: str) -> None:
    """A partition for each week (each day, where few are kept) from the oldest row to keep to three weeks ahead.

    What is older goes to the DEFAULT partition, where housekeeping finds it.
    """
    prefix, storage = _PREFIXES[table], _PARTITION_STORAGE[table]
    with_storage = f" WITH ({storage})" if storage else ""
    days = load_settings().retention_days
    now = datetime.now(UTC)
    bounds = {"since": lowest_id(prefix, now - timedelta(days=days)), "until": lowest_id(prefix, now)}
    oldest = op.get_bind().scalar(
        sa.text(
            f"SELECT min(stored) FROM (SELECT {_TIMES[table]} AS stored FROM {table}_old "  # noqa: S608
            'WHERE id COLLATE "C" >= :since AND id COLLATE "C" < :until) AS kept'
        ),
        bounds,
    )
    op.execute(f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT{with_storage}")
    for lo, hi in _edges(min(oldest or now, now), now + timedelta(weeks=3), timedelta(days=7 if days > 14 else 1)):
        op.execute(
            f"CREATE TABLE {table}_{lo:%Y%m%d} PARTITION OF {table} "
            f"FOR VALUES FROM ('{lowest_id(prefix, lo)}') TO ('{lowest_id(prefix, hi)}'){with_storage}"
        )


_TIMES = {"receipts": "received_at", "events": "stored_at", "attempts": "at"}


def _edges(since: datetime, until: datetime, width: timedelta) -> Iterator[tuple[datetime, datetime]]:
    monday = datetime(1970, 1, 5, tzinfo=UTC)
    lo = since - (since - monday) % width
    while lo < until:
        yield lo, lo + width
        lo += width


def _create_receipts(*, partitioned: bool) -> None:
    op.create_table(
        "receipts",
        sa.Column("id", _id_type(partitioned), nullable=False),
        sa.Column("community_id", sa.String(), nullable=False),
        sa.Column("instance_id", sa.String(), nullable=False),
        sa.Column("plugin", sa.String(), nullable=False),
        sa.Column("hook", sa.String(), nullable=False),
        sa.Column("status", sa.String(), server_default="stored", nullable=False),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column(
            "received_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("position", sa.BigInteger(), server_default=sa.text("nextval('positions')"), nullable=False),
        *([sa.Column("ordered", sa.Boolean(), server_default=sa.text("false"), nullable=False)] if partitioned else []),
        sa.Column("headers", sa.JSON(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("epoch", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_receipts")),
        postgresql_partition_by="RANGE (id)" if partitioned else None,
    )


def _create_events(*, partitioned: bool) -> None:
    seq = (
        sa.Column("seq", sa.BigInteger(), server_default=sa.text("nextval('event_order')"), nullable=False)
        if partitioned
        else sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False)
    )
    op.create_table(
        "events",
        sa.Column("id", _id_type(partitioned), nullable=False),
        sa.Column("driver_id", sa.String(), nullable=False),
        sa.Column("community_id", sa.String(), nullable=True),
        sa.Column("community", sa.String(), nullable=True),
        sa.Column("instance_id", sa.String(), nullable=True),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("event_type", sa.String(), nullable=False),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("initiator", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("era", sa.Integer(), server_default=sa.text("current_era()"), nullable=False),
        sa.Column("xid", Xid8(), server_default=sa.text("pg_current_xact_id()"), nullable=False),
        seq,
        sa.Column("stored_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        postgresql_partition_by="RANGE (id)" if partitioned else None,
    )


def _create_attempts(*, partitioned: bool) -> None:
    op.create_table(
        "attempts",
        sa.Column("id", _id_type(partitioned), nullable=False),
        sa.Column("delivery_id", _id_type(partitioned), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("latency_ms", sa.Integer(), nullable=False),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("response_text", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempts")),
        postgresql_partition_by="RANGE (id)" if partitioned else None,
    )


def _id_type(partitioned: bool) -> sa.String:
    return sa.String(collation="C") if partitioned else sa.String()


def _create_indexes() -> None:
    for table, indexes in _INDEXES.items():
        for name, columns in indexes.items():
            op.create_index(name, table, columns, unique=False)
    op.create_index("ix_receipts_due", "receipts", ["next_at"], unique=False, postgresql_where="next_at IS NOT NULL")


def _drop_foreign_keys() -> None:
    """Those that would hold partitions back, or ask the instance again for every webhook."""
    op.drop_constraint("fk_receipts_community_id", "receipts", type_="foreignkey")
    op.drop_constraint("fk_receipts_instance_id", "receipts", type_="foreignkey")
    op.drop_constraint("fk_deliveries_event_id", "deliveries", type_="foreignkey")
    op.drop_constraint("fk_attempts_delivery_id", "attempts", type_="foreignkey")


def _create_foreign_keys() -> None:
    for table, column, other in (
        ("receipts", "community_id", "communities"),
        ("receipts", "instance_id", "instances"),
        ("deliveries", "event_id", "events"),
        ("attempts", "delivery_id", "deliveries"),
    ):
        op.create_foreign_key(op.f(f"fk_{table}_{column}"), table, other, [column], ["id"], ondelete="CASCADE")
