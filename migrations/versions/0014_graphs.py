"""Graphs that are built from archives, and the shares by which they are read.

Revision ID: 0014
Revises: 0013
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0014"
down_revision: str | Sequence[str] | None = "0013"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "graphs",
        sa.Column("id", sa.String(collation="C"), nullable=False),
        sa.Column("instance_id", sa.String(), nullable=False),
        sa.Column("community_id", sa.String(), nullable=False),
        sa.Column("forced", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("state", sa.String(), server_default="waiting", nullable=False),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("progress", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("generation", sa.Integer(), nullable=True),
        sa.Column("source", sa.String(), nullable=True),
        sa.Column("head", sa.String(), nullable=True),
        sa.Column("reads", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("check_at", moment, nullable=True),
        sa.Column("fingerprint", sa.String(), nullable=True),
        sa.Column("snapshot", sa.String(), nullable=True),
        sa.Column("built_at", moment, nullable=True),
        sa.Column("nodes", sa.Integer(), nullable=True),
        sa.Column("edges", sa.Integer(), nullable=True),
        sa.Column("files", postgresql.JSONB(none_as_null=True), nullable=True),
        sa.Column("created_at", moment, server_default=sa.text("now()"), nullable=False),
        sa.Column("next_at", moment, server_default=sa.text("now()"), nullable=True),
        sa.Column("lease_until", moment, nullable=True),
        sa.Column("epoch", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name=op.f("fk_graphs_instance_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["community_id"], ["communities.id"], name=op.f("fk_graphs_community_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_graphs")),
        sa.UniqueConstraint("instance_id", name=op.f("uq_graphs_instance_id")),
    )
    op.create_index("ix_graphs_due", "graphs", ["next_at"], postgresql_where=sa.text("next_at IS NOT NULL"))
    op.create_index("ix_graphs_community", "graphs", ["community_id"])
    op.create_table(
        "graph_shares",
        sa.Column("id", sa.String(collation="C"), nullable=False),
        sa.Column("graph_id", sa.String(collation="C"), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", moment, nullable=True),
        sa.Column("created_at", moment, server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["graph_id"], ["graphs.id"], name=op.f("fk_graph_shares_graph_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_graph_shares")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_graph_shares_token_hash")),
    )
    op.create_index("ix_graph_shares_graph", "graph_shares", ["graph_id"])
    op.create_table(
        "graph_fetches",
        sa.Column("graph_id", sa.String(collation="C"), nullable=False),
        sa.Column("url_hash", sa.LargeBinary(), nullable=False),
        sa.Column("etag", sa.String(), nullable=True),
        sa.Column("modified", sa.String(), nullable=True),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("fetched_at", moment, server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["graph_id"], ["graphs.id"], name=op.f("fk_graph_fetches_graph_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("graph_id", "url_hash", name=op.f("pk_graph_fetches")),
    )


def downgrade() -> None:
    op.drop_table("graph_fetches")
    op.drop_table("graph_shares")
    op.drop_table("graphs")
