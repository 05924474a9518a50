"""Partitions of mirrors that are refused, and a place of its own for each instance's archive.

Revision ID: 0012
Revises: 0010
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | Sequence[str] | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("mirror_partitions", sa.Column("ask_again_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_mirror_partitions_refused",
        "mirror_partitions",
        ["instance_id"],
        postgresql_where=sa.text("status = 'refused'"),
    )
    op.create_table(
        "archive_places",
        sa.Column("community_id", sa.String(), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("community_platform_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["community_id"], ["communities.id"], name=op.f("fk_archive_places_community_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("community_id", "provider", "community_platform_id", name=op.f("pk_archive_places")),
        sa.UniqueConstraint("community_id", "name", name=op.f("uq_archive_places_community_id_name")),
    )


def downgrade() -> None:
    op.drop_table("archive_places")
    op.drop_index("ix_mirror_partitions_refused", table_name="mirror_partitions")
    op.drop_column("mirror_partitions", "ask_again_at")
