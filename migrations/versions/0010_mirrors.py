"""Mirrors of platforms: their runs, partitions and what else they keep; the tables of records are made per provider.

Revision ID: 0010
Revises: 0011
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0010"
down_revision: str | Sequence[str] | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "mirror_tables",
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("table_name", sa.String(), nullable=False),
        sa.Column("shape", sa.JSON(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("filling", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("provider", "table_name", name=op.f("pk_mirror_tables")),
    )
    op.create_table(
        "mirror_forgotten",
        sa.Column("community_id", sa.String(), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("sealed", sa.String(), nullable=False),
        sa.Column("forgotten_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["community_id"], ["communities.id"], name=op.f("fk_mirror_forgotten_community_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("community_id", "provider", "hash", name=op.f("pk_mirror_forgotten")),
    )
    op.create_table(
        "dirty_marks",
        sa.Column("instance_id", sa.String(), nullable=False),
        sa.Column("table_name", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("marked_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name=op.f("fk_dirty_marks_instance_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("instance_id", "table_name", "key", name=op.f("pk_dirty_marks")),
    )
    op.create_table(
        "mirror_bodies",
        sa.Column("instance_id", sa.String(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name=op.f("fk_mirror_bodies_instance_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("instance_id", "sha256", name=op.f("pk_mirror_bodies")),
    )
    op.create_table(
        "mirror_oddities",
        sa.Column("instance_id", sa.String(), nullable=False),
        sa.Column("table_name", sa.String(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("first_seen", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name=op.f("fk_mirror_oddities_instance_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("instance_id", "table_name", "sha256", name=op.f("pk_mirror_oddities")),
    )
    op.create_table(
        "mirror_partitions",
        sa.Column("id", sa.String(collation="C"), nullable=False),
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("instance_id", sa.String(), nullable=False),
        sa.Column("walk", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("data", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("parent", sa.BigInteger(), nullable=True),
        sa.Column("owner_table", sa.String(), nullable=True),
        sa.Column("owner_key", sa.String(), nullable=True),
        sa.Column("run_id", sa.String(), nullable=True),
        sa.Column("sweep", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("again", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("status", sa.String(), server_default="ok", nullable=False),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("wanted", sa.String(), nullable=True),
        sa.Column("seen", sa.String(), nullable=True),
        sa.Column("cursor", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("pass_number", sa.Integer(), server_default="0", nullable=False),
        sa.Column("reading_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("progress_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("through", sa.DateTime(timezone=True), nullable=True),
        sa.Column("swept", sa.DateTime(timezone=True), nullable=True),
        sa.Column("high_water", sa.DateTime(timezone=True), nullable=True),
        sa.Column("rows", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("requests", sa.Integer(), server_default="0", nullable=False),
        sa.Column("waits", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_success_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("epoch", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name=op.f("fk_mirror_partitions_instance_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mirror_partitions")),
        sa.UniqueConstraint("instance_id", "walk", "key", name=op.f("uq_mirror_partitions_instance_id_walk_key")),
        sa.UniqueConstraint("number", name=op.f("uq_mirror_partitions_number")),
    )
    op.create_index(
        "ix_mirror_partitions_due", "mirror_partitions", ["next_at"], postgresql_where="next_at IS NOT NULL"
    )
    op.create_index("ix_mirror_partitions_owner", "mirror_partitions", ["owner_key", "owner_table", "instance_id"])
    op.create_index("ix_mirror_partitions_parent", "mirror_partitions", ["parent"])
    op.create_index("ix_mirror_partitions_run", "mirror_partitions", ["run_id"])
    op.create_index(
        "ix_mirror_partitions_waiting", "mirror_partitions", ["run_id"], postgresql_where="next_at IS NOT NULL"
    )
    op.create_table(
        "mirror_runs",
        sa.Column("id", sa.String(collation="C"), nullable=False),
        sa.Column("instance_id", sa.String(), nullable=False),
        sa.Column("sweep", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name=op.f("fk_mirror_runs_instance_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mirror_runs")),
    )
    op.create_index("ix_mirror_runs_instance", "mirror_runs", ["instance_id", "id"])
    op.create_index(
        "uq_mirror_runs_current",
        "mirror_runs",
        ["instance_id", "state"],
        unique=True,
        postgresql_where="finished_at IS NULL",
    )
    op.create_table(
        "mirrors",
        sa.Column("instance_id", sa.String(), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("next_sync_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_sweep_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name=op.f("fk_mirrors_instance_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("instance_id", name=op.f("pk_mirrors")),
    )
    op.create_table(
        "mirror_answers",
        sa.Column("partition", sa.BigInteger(), nullable=False),
        sa.Column("place_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("place", sa.JSON(), nullable=False),
        sa.Column("answers", sa.JSON(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["partition"], ["mirror_partitions.number"], name=op.f("fk_mirror_answers_partition"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("partition", "place_sha256", name=op.f("pk_mirror_answers")),
    )
    op.create_index(op.f("ix_mirror_answers_at"), "mirror_answers", ["at"])


def downgrade() -> None:
    op.execute("""
        DO $$ DECLARE provider text; BEGIN
            FOR provider IN SELECT DISTINCT t.provider FROM mirror_tables t LOOP
                EXECUTE format('DROP SCHEMA IF EXISTS %I CASCADE', 'mirror_' || replace(provider, '-', '_'));
            END LOOP;
        END $$
    """)
    op.drop_table("mirror_answers")
    op.drop_table("mirrors")
    op.drop_table("mirror_runs")
    op.drop_table("mirror_partitions")
    op.drop_table("mirror_oddities")
    op.drop_table("mirror_bodies")
    op.drop_table("dirty_marks")
    op.drop_table("mirror_forgotten")
    op.drop_table("mirror_tables")
