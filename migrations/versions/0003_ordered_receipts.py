"""Receipts that keep their order have an index of their own, and are out of the way of those that do not.

Revision ID: 0003
Revises: 0002
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0003"
down_revision: str | Sequence[str] | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.drop_index("ix_receipts_due", table_name="receipts")
    op.create_index(
        "ix_receipts_due", "receipts", ["next_at"], unique=False, postgresql_where="next_at IS NOT NULL AND NOT ordered"
    )
    op.create_index(
        "ix_receipts_turn",
        "receipts",
        ["instance_id", "position"],
        unique=False,
        postgresql_where="next_at IS NOT NULL AND ordered",
    )


def downgrade() -> None:
    op.drop_index("ix_receipts_turn", table_name="receipts")
    op.drop_index("ix_receipts_due", table_name="receipts")
    op.create_index("ix_receipts_due", "receipts", ["next_at"], unique=False, postgresql_where="next_at IS NOT NULL")
