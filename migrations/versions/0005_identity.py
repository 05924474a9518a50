"""MetagovIDs and linked accounts.

Revision ID: 0005
Revises: 0004
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | Sequence[str] | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "metagov_ids",
        sa.Column("id", sa.String(collation="C"), nullable=False),
        sa.Column("community_id", sa.String(), nullable=False),
        sa.Column("primary_id", sa.String(collation="C"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["community_id"], ["communities.id"], name=op.f("fk_metagov_ids_community_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_metagov_ids")),
    )
    op.create_index("ix_metagov_ids_community", "metagov_ids", ["community_id", "id"])
    op.create_index(op.f("ix_metagov_ids_primary_id"), "metagov_ids", ["primary_id"])
    op.create_table(
        "linked_accounts",
        sa.Column("id", sa.String(collation="C"), nullable=False),
        sa.Column("community_id", sa.String(), nullable=False),
        sa.Column("metagov_id", sa.String(collation="C"), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("platform_type", sa.String(), nullable=False),
        sa.Column("community_platform_id", sa.String(), nullable=False),
        sa.Column("platform_identifier", sa.String(), nullable=False),
        sa.Column("custom_data", sa.JSON(), nullable=False),
        sa.Column("link_type", sa.String(), nullable=False),
        sa.Column("link_quality", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["metagov_id"], ["metagov_ids.id"], name=op.f("fk_linked_accounts_metagov_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_linked_accounts")),
        sa.UniqueConstraint(
            "community_id",
            "key",
            "community_platform_id",
            name=op.f("uq_linked_accounts_community_id_key_community_platform_id"),
        ),
    )
    op.create_index(op.f("ix_linked_accounts_metagov_id"), "linked_accounts", ["metagov_id"])


def downgrade() -> None:
    op.drop_table("linked_accounts")
    op.drop_table("metagov_ids")
