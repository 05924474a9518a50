"""Requests to forget somebody are worked on until they are done.

Revision ID: 0013
Revises: 0012
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0013"
down_revision: str | Sequence[str] | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("mirror_forgotten", sa.Column("id", sa.String(collation="C"), nullable=True))
    op.execute("UPDATE mirror_forgotten SET id = 'fgt_' || md5(community_id || provider || encode(hash, 'hex'))")
    op.alter_column("mirror_forgotten", "id", nullable=False)
    op.create_unique_constraint(op.f("uq_mirror_forgotten_id"), "mirror_forgotten", ["id"])
    # Due at once: those whom an older version took out are gone through again, with what it did not look at.
    op.add_column(
        "mirror_forgotten",
        sa.Column("next_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
    )
    op.add_column("mirror_forgotten", sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True))
    op.add_column("mirror_forgotten", sa.Column("epoch", sa.Integer(), server_default="0", nullable=False))
    op.add_column("mirror_forgotten", sa.Column("attempt", sa.Integer(), server_default="0", nullable=False))
    op.add_column("mirror_forgotten", sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("mirror_forgotten", sa.Column("waits", sa.String(), nullable=True))
    op.add_column("mirror_forgotten", sa.Column("report", sa.JSON(none_as_null=True), nullable=True))
    op.create_index(
        "ix_mirror_forgotten_due",
        "mirror_forgotten",
        ["next_at"],
        unique=False,
        postgresql_where=sa.text("next_at IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_mirror_forgotten_due", table_name="mirror_forgotten", postgresql_where="next_at IS NOT NULL")
    op.drop_constraint(op.f("uq_mirror_forgotten_id"), "mirror_forgotten", type_="unique")
    for column in ("report", "waits", "finished_at", "attempt", "epoch", "lease_until", "next_at", "id"):
        op.drop_column("mirror_forgotten", column)
