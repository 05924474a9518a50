"""The platforms' rate limits: buckets in Postgres that the requests of all processes take from.

A bucket is one row, a GCRA (generic cell rate algorithm, ITU-T I.371): `tat` is when the next request would arrive if
all came evenly spaced, and `not_before` is what the platform itself asked for. Nothing is held while a request waits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg
from sqlalchemy import String, func
from sqlalchemy.orm import Mapped, mapped_column

from app.core.batches import delete_in_batches
from app.core.db import Base, Database, is_away
from metagov_sdk import Limit, Retry

MOST_LIMITS = 16
"""Buckets that one request may name."""
_LONGEST_NAME = 200
_MOST_BUCKETS = 5000
"""Of one owner. Names beyond share one bucket: a platform that makes up bucket names fills no disk."""
_DAY = 86_400.0
_MOST_UNITS = 1_000_000
_IDLE = timedelta(minutes=1)
_ALIASES_KEPT = timedelta(days=7)
"""Then an alias is learnt anew, from the next answer."""

_TAKE = """
SELECT wait, reserved, resolved FROM take_limits(
    $1::text, $2::text, $3::text[], $4::float8[], $5::integer[], $6::integer[], $7::boolean[], $8::float8, $9::integer)
"""
_FULL = """
(SELECT count(*) >= $6::integer FROM (
    SELECT FROM {table} WHERE plugin = $1::text AND owner = $2::text LIMIT $6::integer) AS live)
"""
# In the order of names, which is the order that `take_limits` locks in.
_NOTE = f"""
INSERT INTO rate_limits AS l (plugin, owner, bucket, tat, not_before)
SELECT $1::text, $2::text, bucket, now() + make_interval(secs => least(sum(charge), 86400)),
       CASE WHEN max(wait) > 0 THEN now() + make_interval(secs => max(wait)) END
FROM (
    SELECT CASE WHEN l.bucket IS NULL AND {_FULL.format(table="rate_limits")} THEN '' ELSE known.bucket END
           COLLATE "C" AS bucket, charge, wait
    FROM (
        SELECT coalesce(a.bucket, n.name) COLLATE "C" AS bucket, charge, wait
        FROM unnest($3::text[], $4::float8[], $5::float8[]) AS n(name, charge, wait)
        LEFT JOIN rate_limit_aliases a ON a.plugin = $1::text AND a.owner = $2::text AND a.name = n.name
    ) AS known
    LEFT JOIN rate_limits l ON l.plugin = $1::text AND l.owner = $2::text AND l.bucket = known.bucket
) AS noted GROUP BY bucket ORDER BY bucket
ON CONFLICT (plugin, owner, bucket) DO UPDATE SET
    tat = least(greatest(l.tat, now()) + (excluded.tat - now()), now() + interval '1 day'),
    not_before = greatest(l.not_before, excluded.not_before)
"""  # noqa: S608 -- constants only
_ALIAS = f"""
INSERT INTO rate_limit_aliases AS a (plugin, owner, name, bucket)
SELECT $1::text, $2::text, n.name, n.bucket FROM unnest($3::text[], $4::text[]) AS n(name, bucket)
WHERE NOT {_FULL.format(table="rate_limit_aliases").replace("$6", "$5")}
   OR EXISTS (SELECT FROM rate_limit_aliases k WHERE k.plugin = $1::text AND k.owner = $2::text AND k.name = n.name)
ORDER BY n.name COLLATE "C"
ON CONFLICT (plugin, owner, name) DO UPDATE SET bucket = excluded.bucket, learned_at = now()
"""  # noqa: S608 -- constants only


class RateLimit(Base):
    """A bucket. `owner` is whose credential it is (`Plugin.limit_owner`); "" is the bucket that names beyond share."""

    __tablename__ = "rate_limits"

    plugin: Mapped[str] = mapped_column(String(collation="C"), primary_key=True)
    owner: Mapped[str] = mapped_column(String(collation="C"), primary_key=True)
    bucket: Mapped[str] = mapped_column(String(collation="C"), primary_key=True)
    tat: Mapped[datetime]
    """The theoretical arrival time: past when the bucket is full."""
    not_before: Mapped[datetime | None]


class RateLimitAlias(Base):
    """Which bucket the platform says a route takes from."""

    __tablename__ = "rate_limit_aliases"

    plugin: Mapped[str] = mapped_column(String(collation="C"), primary_key=True)
    owner: Mapped[str] = mapped_column(String(collation="C"), primary_key=True)
    name: Mapped[str] = mapped_column(String(collation="C"), primary_key=True)
    bucket: Mapped[str] = mapped_column(String(collation="C"))
    learned_at: Mapped[datetime] = mapped_column(server_default=func.now())


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of asking. `wait` 0: the request may go, and is charged.

    wait      seconds until it may go.
    reserved  the place, among the limits, of the one whose slot after `wait` is now this request's; None for none.
    buckets   what each bucket that was named is known by.
    """

    wait: float
    reserved: int | None
    buckets: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Buckets:
    """One owner's buckets at one platform."""

    db: Database
    plugin: str
    owner: str

    async def take(self, limits: Sequence[Limit], held: Sequence[bool], patience: float) -> Taken:
        """Take from all of the buckets, or reserve a slot where the wait is at most `patience` seconds, or do nothing.

        `held` says whose slot has been reserved before. Raises Retry while the database is away.
        """
        names = [bounded_name(limit.bucket) for limit in limits]
        row = await self._ask(
            _TAKE,
            names,
            [_spacing(limit) for limit in limits],
            [min(limit.burst, _MOST_UNITS) for limit in limits],
            [min(limit.cost, _MOST_UNITS) for limit in limits],
            list(held),
            patience,
            _MOST_BUCKETS,
        )
        reserved = row["reserved"]
        return Taken(row["wait"], reserved and reserved - 1, dict(zip(names, row["resolved"], strict=True)))

    async def rename(self, aliases: Mapping[str, str]) -> None:
        """From now on, a name means this bucket. Raises Retry while the database is away."""
        await self._ask(_ALIAS, list(aliases), list(aliases.values()), _MOST_BUCKETS)

    async def note(self, charges: Sequence[Limit], waits: Mapping[str, float]) -> None:
        """Take from buckets whether they have room or not, and let nothing through for some seconds.

        Raises Retry while the database is away.
        """
        noted = [(bounded_name(limit.bucket), min(limit.cost, _MOST_UNITS) * _spacing(limit), 0.0) for limit in charges]
        noted += [(bounded_name(name), 0.0, seconds) for name, seconds in waits.items()]
        names, costs, seconds = zip(*noted, strict=True)
        await self._ask(_NOTE, list(names), list(costs), list(seconds), _MOST_BUCKETS)

    async def _ask(self, statement: str, *arguments: object) -> asyncpg.Record:
        try:
            return await self.db.pool.fetchrow(statement, self.plugin, bounded_name(self.owner), *arguments)
        except Exception as error:
            if is_away(error):
                raise Retry("the gateway's database, which counts requests, cannot be reached", after=1) from error
            raise


def bounded_name(name: str) -> str:
    """A name fit for the table, however long or odd: it may come from a platform's header."""
    if 0 < len(name) <= _LONGEST_NAME and name.isascii() and name.isprintable():
        return name
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def _spacing(limit: Limit) -> float:
    return min(limit.per / limit.rate, _DAY)


async def forget_limits(db: Database) -> None:
    """Drop buckets that are full again, which is what one that is not there counts as, and aliases after a week."""
    await delete_in_batches(
        db,
        "rate_limits",
        "tat < now() - CAST(:idle AS interval) AND coalesce(not_before < now() - CAST(:idle AS interval), true)",
        idle=_IDLE,
    )
    await delete_in_batches(db, "rate_limit_aliases", "learned_at < now() - CAST(:age AS interval)", age=_ALIASES_KEPT)
