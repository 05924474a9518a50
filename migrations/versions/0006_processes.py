"""Processes have a history, close behind a barrier, and are found when their instance changes.

Revision ID: 0006
Revises: 0005
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from app.core.db import Xid8

revision: str = "0006"
down_revision: str | Sequence[str] | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.execute("SET LOCAL statement_timeout = 0")
    op.add_column("processes", sa.Column("close_reason", sa.String(), nullable=True))
    op.add_column("processes", sa.Column("closing_xid", Xid8(), nullable=True))
    op.add_column("processes", sa.Column("closing_since", sa.DateTime(timezone=True), nullable=True))
    op.add_column("processes", sa.Column("paced_until", sa.DateTime(timezone=True), nullable=True))
    op.add_column("processes", sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("processes", sa.Column("untold", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.create_index(
        "ix_processes_open", "processes", ["instance_id", "paused_at"], postgresql_where="status <> 'completed'"
    )
    op.create_index("ix_processes_parked", "processes", ["id"], postgresql_where="parked IS NOT NULL")
    op.create_index("ix_instances_changed", "instances", ["updated_at"])
    op.create_index(
        "ix_receipts_unhandled", "receipts", ["instance_id", "received_at"], postgresql_where="next_at IS NOT NULL"
    )
    op.create_index("ix_receipts_dead", "receipts", ["instance_id", "received_at"], postgresql_where="status = 'dead'")
    op.create_table(
        "process_transitions",
        sa.Column("process_id", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("signals", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("signal_count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("first_position", sa.BigInteger(), nullable=True),
        sa.Column("last_position", sa.BigInteger(), nullable=True),
        sa.Column("late", sa.Integer(), server_default="0", nullable=False),
        sa.Column("woken", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("unread", sa.Integer(), server_default="0", nullable=False),
        sa.Column("state_version", sa.Integer(), nullable=False),
        sa.Column("state_digest", sa.String(), nullable=True),
        sa.Column("state", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("outcome", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("errors", sa.JSON(), server_default=sa.text("'{}'"), nullable=False),
        sa.ForeignKeyConstraint(
            ["process_id"], ["processes.id"], name=op.f("fk_process_transitions_process_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("process_id", "version", name=op.f("pk_process_transitions")),
    )
    # The history of what runs already begins with how it stands.
    op.execute(
        "INSERT INTO process_transitions "
        "(process_id, version, at, kind, status, state_version, state, outcome, errors) "
        "SELECT id, version, now(), 'start', status, state_version, state, outcome, errors FROM processes "
        "WHERE status <> 'created'"
    )
    # What is told of one process is told in order; callbacks have no setting of their own for that.
    op.execute("UPDATE endpoints SET ordered = true WHERE kind = 'callback'")


def downgrade() -> None:
    op.execute("UPDATE endpoints SET ordered = false WHERE kind = 'callback'")
    op.drop_table("process_transitions")
    op.drop_index("ix_receipts_dead", table_name="receipts")
    op.drop_index("ix_receipts_unhandled", table_name="receipts")
    op.drop_index("ix_instances_changed", table_name="instances")
    op.drop_index("ix_processes_parked", table_name="processes")
    op.drop_index("ix_processes_open", table_name="processes")
    op.drop_column("processes", "untold")
    op.drop_column("processes", "paused_at")
    op.drop_column("processes", "paced_until")
    op.drop_column("processes", "closing_since")
    op.drop_column("processes", "closing_xid")
    op.drop_column("processes", "close_reason")
