"""The platforms' rate limits: buckets that all processes take from, and what routes' buckets are called.

Revision ID: 0008
Revises: 0007
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | Sequence[str] | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# Rows are few, small and written again and again: room in the page keeps them there, and the index as it is.
_STORAGE = "fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500"

# Takes from buckets, from all or from none. They are locked one after the other in the order of their names, which is
# the order everybody locks them in, so that nobody waits in a circle; the clock is read when all are held.
#   wait      seconds until the request may go; 0: it may go now, and has been charged.
#   reserved  where it has to wait (at most `patience`): the bucket that makes it wait longest, counted from 1. Its slot
#             there is taken, so that those who come after wait for later ones. The other buckets are not touched: they
#             are asked again when the slot comes, with `held` true for this one.
#   resolved  what each name stands for.
# A slot is no longer held once the platform has said to wait beyond it. Of what a crash of Postgres takes with it, the
# last takes matter little: their commits wait for no disk.
_TAKE = """
CREATE FUNCTION take_limits(
    of_plugin text, of_owner text, names text[], spacings float8[], bursts integer[], costs integer[],
    held boolean[], patience float8, most integer,
    OUT wait float8, OUT reserved integer, OUT resolved text[]
) LANGUAGE plpgsql AS $$
DECLARE
    buckets text[];
    places integer[];
    tats timestamptz[] := '{}';
    bars timestamptz[] := '{}';
    one_tat timestamptz;
    one_bar timestamptz;
    at timestamptz;
    ready timestamptz;
    start timestamptz;
    i integer;
    latest integer;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    SELECT array_agg(known.bucket ORDER BY known.place),
           array_agg(CASE
               WHEN l.bucket IS NULL AND (SELECT count(*) >= most FROM (
                   SELECT FROM rate_limits WHERE plugin = of_plugin AND owner = of_owner LIMIT most) AS live)
               THEN '' ELSE known.bucket END ORDER BY known.place)
    INTO resolved, buckets
    FROM (
        SELECT n.place, coalesce(a.bucket, n.name) COLLATE "C" AS bucket
        FROM unnest(names) WITH ORDINALITY AS n(name, place)
        LEFT JOIN rate_limit_aliases a ON a.plugin = of_plugin AND a.owner = of_owner AND a.name = n.name
    ) AS known
    LEFT JOIN rate_limits l ON l.plugin = of_plugin AND l.owner = of_owner AND l.bucket = known.bucket;

    SELECT array_agg(d.place ORDER BY d.bucket) INTO places FROM (
        SELECT DISTINCT ON (n.bucket COLLATE "C") n.bucket COLLATE "C" AS bucket, n.place
        FROM unnest(buckets) WITH ORDINALITY AS n(bucket, place) ORDER BY n.bucket COLLATE "C", n.place
    ) AS d;
    FOREACH i IN ARRAY places LOOP
        LOOP
            SELECT l.tat, l.not_before INTO one_tat, one_bar FROM rate_limits l
            WHERE l.plugin = of_plugin AND l.owner = of_owner AND l.bucket = buckets[i] FOR NO KEY UPDATE;
            EXIT WHEN FOUND OR costs[i] = 0;
            INSERT INTO rate_limits (plugin, owner, bucket, tat)
            VALUES (of_plugin, of_owner, buckets[i], clock_timestamp()) ON CONFLICT DO NOTHING;
        END LOOP;
        tats[i] := one_tat;
        bars[i] := one_bar;
    END LOOP;

    at := clock_timestamp();
    start := at;
    FOREACH i IN ARRAY places LOOP
        held[i] := held[i] AND coalesce(bars[i] <= at, true);
        ready := greatest(bars[i], CASE WHEN NOT held[i]
            THEN tats[i] + make_interval(secs => (greatest(costs[i], 1) - bursts[i]) * spacings[i]) END);
        IF ready > start THEN
            start := ready;
            latest := i;
        END IF;
    END LOOP;
    wait := extract(epoch FROM start - at);
    FOREACH i IN ARRAY places LOOP
        IF costs[i] > 0 AND NOT held[i] AND (latest IS NULL OR (i = latest AND wait <= patience)) THEN
            UPDATE rate_limits l
            SET tat = least(greatest(tats[i], start) + make_interval(secs => costs[i] * spacings[i]),
                            at + interval '1 day')
            WHERE l.plugin = of_plugin AND l.owner = of_owner AND l.bucket = buckets[i];
            reserved := CASE WHEN i = latest THEN i END;
        END IF;
    END LOOP;
END $$
"""


def upgrade() -> None:
    op.create_table(
        "rate_limits",
        sa.Column("plugin", sa.String(collation="C"), nullable=False),
        sa.Column("owner", sa.String(collation="C"), nullable=False),
        sa.Column("bucket", sa.String(collation="C"), nullable=False),
        sa.Column("tat", sa.DateTime(timezone=True), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("plugin", "owner", "bucket", name=op.f("pk_rate_limits")),
    )
    op.execute(f"ALTER TABLE rate_limits SET ({_STORAGE})")
    op.create_table(
        "rate_limit_aliases",
        sa.Column("plugin", sa.String(collation="C"), nullable=False),
        sa.Column("owner", sa.String(collation="C"), nullable=False),
        sa.Column("name", sa.String(collation="C"), nullable=False),
        sa.Column("bucket", sa.String(collation="C"), nullable=False),
        sa.Column("learned_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("plugin", "owner", "name", name=op.f("pk_rate_limit_aliases")),
    )
    op.execute(_TAKE)


def downgrade() -> None:
    op.execute(
        "DROP FUNCTION take_limits(text, text, text[], float8[], integer[], integer[], boolean[], float8, integer)"
    )
    op.drop_table("rate_limit_aliases")
    op.drop_table("rate_limits")
