"""The tables of the first version.

Revision ID: 0001
Revises:
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from app.core.db import Xid8

revision: str = "0001"
down_revision: str | Sequence[str] | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "era",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("era", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_era")),
    )
    # One order for all that reaches processes, whether a webhook brought it or a poll.
    op.execute("CREATE SEQUENCE positions")
    op.execute("INSERT INTO era (id, era) VALUES (1, 1)")
    # A function, because a column default cannot hold a query.
    op.execute(
        "CREATE FUNCTION current_era() RETURNS integer LANGUAGE sql STABLE AS 'SELECT era FROM era WHERE id = 1'"
    )
    op.create_table(
        "drivers",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("signing_secret", sa.String(), nullable=False),
        sa.Column("previous_secret", sa.String(), nullable=True),
        sa.Column("previous_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_drivers")),
        sa.UniqueConstraint("name", name=op.f("uq_drivers_name")),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.String(), nullable=False),
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
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("stored_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index(op.f("ix_events_community_id"), "events", ["community_id"], unique=False)
    op.create_index("ix_events_order", "events", ["driver_id", "era", "xid", "seq"], unique=False)
    op.create_table(
        "heartbeats",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_heartbeats")),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("driver_id", sa.String(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("hint", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["driver_id"], ["drivers.id"], name=op.f("fk_api_keys_driver_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("hash", name=op.f("uq_api_keys_hash")),
    )
    op.create_index(op.f("ix_api_keys_driver_id"), "api_keys", ["driver_id"], unique=False)
    op.create_table(
        "communities",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("driver_id", sa.String(), nullable=False),
        sa.Column("slug", sa.String(), nullable=False),
        sa.Column("readable_name", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["driver_id"], ["drivers.id"], name=op.f("fk_communities_driver_id"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_communities")),
        sa.UniqueConstraint("slug", name=op.f("uq_communities_slug")),
    )
    op.create_index(
        "ix_communities_live", "communities", ["driver_id", "slug"], unique=False, postgresql_where="deleted_at IS NULL"
    )
    op.create_table(
        "endpoints",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("driver_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("secret", sa.String(), nullable=True),
        sa.Column("previous_secret", sa.String(), nullable=True),
        sa.Column("previous_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("events", postgresql.ARRAY(sa.TEXT()), nullable=True),
        sa.Column("communities", postgresql.ARRAY(sa.TEXT()), nullable=True),
        sa.Column("format", sa.String(), server_default="metagov", nullable=False),
        sa.Column("ordered", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("status", sa.String(), server_default="enabled", nullable=False),
        sa.Column("disabled_reason", sa.String(), nullable=True),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["driver_id"], ["drivers.id"], name=op.f("fk_endpoints_driver_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_endpoints")),
    )
    op.create_index(op.f("ix_endpoints_driver_id"), "endpoints", ["driver_id"], unique=False)
    op.create_index(
        "uq_endpoints_callback", "endpoints", ["driver_id", "url"], unique=True, postgresql_where="kind = 'callback'"
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("driver_id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("answer", sa.String(), nullable=True),
        sa.Column("locked_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["driver_id"], ["drivers.id"], name=op.f("fk_idempotency_keys_driver_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_idempotency_keys")),
        sa.UniqueConstraint("driver_id", "key", name=op.f("uq_idempotency_keys_driver_id_key")),
    )
    op.create_index(op.f("ix_idempotency_keys_created_at"), "idempotency_keys", ["created_at"], unique=False)
    op.create_table(
        "redirect_uris",
        sa.Column("driver_id", sa.String(), nullable=False),
        sa.Column("uri", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["driver_id"], ["drivers.id"], name=op.f("fk_redirect_uris_driver_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("driver_id", "uri", name=op.f("pk_redirect_uris")),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("endpoint_id", sa.String(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("status", sa.String(), server_default="pending", nullable=False),
        sa.Column("lane", sa.String(), server_default="", nullable=False),
        sa.Column("era", sa.Integer(), server_default=sa.text("current_era()"), nullable=False),
        sa.Column("xid", Xid8(), server_default=sa.text("pg_current_xact_id()"), nullable=False),
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("epoch", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["endpoint_id"], ["endpoints.id"], name=op.f("fk_deliveries_endpoint_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["event_id"], ["events.id"], name=op.f("fk_deliveries_event_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint("endpoint_id", "event_id", name=op.f("uq_deliveries_endpoint_id_event_id")),
    )
    op.create_index(
        "ix_deliveries_due",
        "deliveries",
        ["endpoint_id", "next_at"],
        unique=False,
        postgresql_where="next_at IS NOT NULL",
    )
    op.create_index(op.f("ix_deliveries_event_id"), "deliveries", ["event_id"], unique=False)
    op.create_index(
        "ix_deliveries_lane",
        "deliveries",
        ["endpoint_id", "lane", "era", "xid", "seq"],
        unique=False,
        postgresql_where="next_at IS NOT NULL",
    )
    op.create_table(
        "instances",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("community_id", sa.String(), nullable=False),
        sa.Column("plugin", sa.String(), nullable=False),
        sa.Column("community_platform_id", sa.String(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("secrets", sa.String(), nullable=False),
        sa.Column("config_version", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["community_id"], ["communities.id"], name=op.f("fk_instances_community_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instances")),
    )
    op.create_index(
        "ix_instances_platform",
        "instances",
        ["plugin", "community_platform_id"],
        unique=False,
        postgresql_where="deleted_at IS NULL",
    )
    op.create_index(
        "uq_instances_identity",
        "instances",
        ["community_id", "plugin", "community_platform_id"],
        unique=True,
        postgresql_where="deleted_at IS NULL",
    )
    op.create_table(
        "platform_bindings",
        sa.Column("community_id", sa.String(), nullable=False),
        sa.Column("plugin", sa.String(), nullable=False),
        sa.Column("community_platform_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["community_id"], ["communities.id"], name=op.f("fk_platform_bindings_community_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("community_id", "plugin", "community_platform_id", name=op.f("pk_platform_bindings")),
    )
    op.create_table(
        "attempts",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("delivery_id", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("latency_ms", sa.Integer(), nullable=False),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("response_text", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["deliveries.id"], name=op.f("fk_attempts_delivery_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempts")),
    )
    op.create_index(op.f("ix_attempts_delivery_id"), "attempts", ["delivery_id"], unique=False)
    op.create_table(
        "instance_states",
        sa.Column("instance_id", sa.String(), nullable=False),
        sa.Column("state", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("state_version", sa.Integer(), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("epoch", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name=op.f("fk_instance_states_instance_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("instance_id", name=op.f("pk_instance_states")),
    )
    op.create_table(
        "polls",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("instance_id", sa.String(), nullable=False),
        sa.Column("plugin", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("cursor", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("last_run_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_success_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("next_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("epoch", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name=op.f("fk_polls_instance_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_polls")),
        sa.UniqueConstraint("instance_id", "name", name=op.f("uq_polls_instance_id_name")),
    )
    op.create_index("ix_polls_due", "polls", ["next_at"], unique=False, postgresql_where="next_at IS NOT NULL")
    op.create_table(
        "processes",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("community_id", sa.String(), nullable=False),
        sa.Column("instance_id", sa.String(), nullable=False),
        sa.Column("plugin", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("status", sa.String(), server_default="created", nullable=False),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("state", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("state_version", sa.Integer(), server_default="0", nullable=False),
        sa.Column("outcome", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("errors", sa.JSON(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("url", sa.String(), nullable=True),
        sa.Column("key", sa.String(), nullable=True),
        sa.Column("idempotency_key", sa.String(), nullable=False),
        sa.Column("correlation_id", sa.String(), nullable=True),
        sa.Column("callback_id", sa.String(), nullable=True),
        sa.Column("starting", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("version", sa.Integer(), server_default="0", nullable=False),
        sa.Column("rendered", sa.Integer(), server_default="0", nullable=False),
        sa.Column("render_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("closing_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("wake_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("observe_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("observed_final", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("parked", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("epoch", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["community_id"], ["communities.id"], name=op.f("fk_processes_community_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name=op.f("fk_processes_instance_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_processes")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_processes_idempotency_key")),
    )
    op.create_index("ix_processes_due", "processes", ["next_at"], unique=False, postgresql_where="next_at IS NOT NULL")
    op.create_index(
        "ix_processes_key",
        "processes",
        ["instance_id", "name", "key"],
        unique=False,
        postgresql_where="status = 'pending'",
    )
    op.create_index("ix_processes_list", "processes", ["community_id", "id"], unique=False)
    op.create_table(
        "receipts",
        sa.Column("id", sa.String(), nullable=False),
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
        sa.Column("headers", sa.JSON(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("epoch", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["community_id"], ["communities.id"], name=op.f("fk_receipts_community_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name=op.f("fk_receipts_instance_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_receipts")),
    )
    op.create_index("ix_receipts_due", "receipts", ["next_at"], unique=False, postgresql_where="next_at IS NOT NULL")
    op.create_index(op.f("ix_receipts_instance_id"), "receipts", ["instance_id"], unique=False)
    op.create_index("ix_receipts_list", "receipts", ["community_id", "id"], unique=False)
    op.create_table(
        "seen",
        sa.Column("instance_id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name=op.f("fk_seen_instance_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("instance_id", "key", name=op.f("pk_seen")),
    )
    op.create_index(op.f("ix_seen_seen_at"), "seen", ["seen_at"], unique=False)
    op.create_table(
        "signals",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("position", sa.BigInteger(), server_default=sa.text("nextval('positions')"), nullable=False),
        sa.Column("instance_id", sa.String(), nullable=False),
        sa.Column("process", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("applied_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name=op.f("fk_signals_instance_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signals")),
    )
    op.create_index(
        "ix_signals_waiting",
        "signals",
        ["instance_id", "process", "key", "position"],
        unique=False,
        postgresql_where="applied_at IS NULL",
    )
    op.create_table(
        "effects",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("process_id", sa.String(), nullable=False),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("args", sa.JSON(), nullable=False),
        sa.Column("expires", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("next_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("epoch", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["process_id"], ["processes.id"], name=op.f("fk_effects_process_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_effects")),
    )
    op.create_index("ix_effects_due", "effects", ["next_at"], unique=False, postgresql_where="next_at IS NOT NULL")
    op.create_index(op.f("ix_effects_process_id"), "effects", ["process_id"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_effects_process_id"), table_name="effects")
    op.drop_index("ix_effects_due", table_name="effects", postgresql_where="next_at IS NOT NULL")
    op.drop_table("effects")
    op.drop_index("ix_signals_waiting", table_name="signals", postgresql_where="applied_at IS NULL")
    op.drop_table("signals")
    op.drop_index(op.f("ix_seen_seen_at"), table_name="seen")
    op.drop_table("seen")
    op.drop_index("ix_receipts_list", table_name="receipts")
    op.drop_index(op.f("ix_receipts_instance_id"), table_name="receipts")
    op.drop_index("ix_receipts_due", table_name="receipts", postgresql_where="next_at IS NOT NULL")
    op.drop_table("receipts")
    op.drop_index("ix_processes_list", table_name="processes")
    op.drop_index("ix_processes_key", table_name="processes", postgresql_where="status = 'pending'")
    op.drop_index("ix_processes_due", table_name="processes", postgresql_where="next_at IS NOT NULL")
    op.drop_table("processes")
    op.drop_index("ix_polls_due", table_name="polls", postgresql_where="next_at IS NOT NULL")
    op.drop_table("polls")
    op.drop_table("instance_states")
    op.drop_index(op.f("ix_attempts_delivery_id"), table_name="attempts")
    op.drop_table("attempts")
    op.drop_table("platform_bindings")
    op.drop_index("uq_instances_identity", table_name="instances", postgresql_where="deleted_at IS NULL")
    op.drop_index("ix_instances_platform", table_name="instances", postgresql_where="deleted_at IS NULL")
    op.drop_table("instances")
    op.drop_index(op.f("ix_deliveries_event_id"), table_name="deliveries")
    op.drop_index("ix_deliveries_lane", table_name="deliveries", postgresql_where="next_at IS NOT NULL")
    op.drop_index("ix_deliveries_due", table_name="deliveries", postgresql_where="next_at IS NOT NULL")
    op.drop_table("deliveries")
    op.drop_table("redirect_uris")
    op.drop_index(op.f("ix_idempotency_keys_created_at"), table_name="idempotency_keys")
    op.drop_table("idempotency_keys")
    op.drop_index("uq_endpoints_callback", table_name="endpoints", postgresql_where="kind = 'callback'")
    op.drop_index(op.f("ix_endpoints_driver_id"), table_name="endpoints")
    op.drop_table("endpoints")
    op.drop_index("ix_communities_live", table_name="communities", postgresql_where="deleted_at IS NULL")
    op.drop_table("communities")
    op.drop_index(op.f("ix_api_keys_driver_id"), table_name="api_keys")
    op.drop_table("api_keys")
    op.drop_table("heartbeats")
    op.drop_index("ix_events_order", table_name="events")
    op.drop_index(op.f("ix_events_community_id"), table_name="events")
    op.drop_table("events")
    op.drop_table("era")
    op.drop_table("drivers")
    op.execute("DROP SEQUENCE positions")
    op.execute("DROP FUNCTION current_era()")
