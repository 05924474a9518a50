"""Storing a webhook checks no foreign key and writes no index that nothing reads; a community's events have one.

Revision ID: 0004
Revises: 0003
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0004"
down_revision: str | Sequence[str] | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.drop_index("ix_receipts_instance_id", table_name="receipts")
    op.drop_index("ix_events_community_id", table_name="events")
    op.create_index("ix_events_community", "events", ["community", "era", "xid", "seq"])
    # The statement that claims a key reads the instance's row anyway; keys of an instance that is gone age out.
    op.drop_constraint("fk_seen_instance_id", "seen", type_="foreignkey")


def downgrade() -> None:
    op.drop_index("ix_events_community", table_name="events")
    op.create_index("ix_events_community_id", "events", ["community_id"])
    op.execute("DELETE FROM seen WHERE instance_id NOT IN (SELECT id FROM instances)")
    op.create_foreign_key("fk_seen_instance_id", "seen", "instances", ["instance_id"], ["id"], ondelete="CASCADE")
    op.create_index("ix_receipts_instance_id", "receipts", ["instance_id"])
