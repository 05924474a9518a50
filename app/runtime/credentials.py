"""Credentials of instances: sealed at rest, renewed ahead of time by one worker at a time, shared by all.

Nothing is held while a platform is asked: no transaction, no connection. What is held is a lease on the token's row,
longer than the platform may take, so that a refresh token that is good for one use is never used by two.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import asyncpg
import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.crypto import Vault
from app.core.db import Database, is_away
from app.host.binding import InstanceData
from app.runtime.calls import PluginCrashed, ask
from metagov_sdk import Mint, OAuth, PluginError, Rejected, Retry, Token, Unauthorized
from metagov_sdk.credentials import UsedCredential, check_token

_AHEAD = 300.0
_AHEAD_SHARE = 0.2
"""A token is renewed this many seconds before its end, or in the last fifth of a life that is a short one."""
_LONGEST_LIFE = 10 * 365 * 86400.0
_TIMEOUT = 20.0
"""Seconds that a platform may take to renew one."""
_LEASE = 60.0
_WRITING = 30.0
"""Seconds during which a new token is tried to be written: what was rotated would be lost."""
_PAUSE = 2.0
"""Seconds before a renewal that failed is tried again."""
_PATIENCE = 20.0
"""Seconds to wait for another worker that is renewing what is void."""
_REMEMBERED = 30.0
_FIRST_WAIT = 0.02
_LONGEST_WAIT = 0.5

_log = structlog.get_logger(__name__)

_READ = """
SELECT sealed, source, refreshable, version, renew_at <= clock_timestamp() AS due,
    extract(epoch FROM expires_at - clock_timestamp())::float8 AS remaining,
    coalesce(lease_until > clock_timestamp(), false) AS held
FROM credentials WHERE instance_id = $1 AND name = $2
"""
_TAKE = """
UPDATE credentials SET lease_until = clock_timestamp() + make_interval(secs => $4), epoch = epoch + 1
WHERE instance_id = $1 AND name = $2 AND version = $3 AND (lease_until IS NULL OR lease_until < clock_timestamp())
RETURNING epoch
"""
# Void from the beginning: if its minting fails, retention finds it.
_TAKE_NEW = """
INSERT INTO credentials (instance_id, name, source, sealed, refreshable, expires_at, lease_until, epoch)
VALUES ($1, $2, 'minted', '', false, clock_timestamp(), clock_timestamp() + make_interval(secs => $3), 1)
ON CONFLICT DO NOTHING RETURNING epoch
"""
_WRITE = """
UPDATE credentials
SET sealed = $4, refreshable = $5, version = version + 1, lease_until = NULL, updated_at = clock_timestamp(),
    expires_at = clock_timestamp() + make_interval(secs => $6), renew_at = clock_timestamp() + make_interval(secs => $7)
WHERE instance_id = $1 AND name = $2 AND epoch = $3 RETURNING version
"""
_RELEASE = """
UPDATE credentials SET lease_until = clock_timestamp() + make_interval(secs => $4)
WHERE instance_id = $1 AND name = $2 AND epoch = $3
"""
_INVALIDATE = """
UPDATE credentials SET expires_at = clock_timestamp(), renew_at = clock_timestamp()
WHERE instance_id = $1 AND name = $2 AND version = $3
"""
# A worker that is renewing the one before finds another epoch, and writes nothing over it.
_KEEP = text("""
INSERT INTO credentials AS c (instance_id, name, source, sealed, refreshable, expires_at, renew_at)
VALUES (
    :instance, :name, :source, :sealed, :refreshable,
    clock_timestamp() + make_interval(secs => CAST(:lasts AS float8)),
    clock_timestamp() + make_interval(secs => CAST(:renew AS float8))
)
ON CONFLICT (instance_id, name) DO UPDATE
SET source = excluded.source, sealed = excluded.sealed, refreshable = excluded.refreshable,
    expires_at = excluded.expires_at, renew_at = excluded.renew_at, version = c.version + 1, epoch = c.epoch + 1,
    lease_until = NULL, updated_at = clock_timestamp()
""")


@dataclass(frozen=True, slots=True)
class NewCredential:
    """A token to be stored for an instance. `source`: oauth or kept."""

    instance_id: str
    name: str
    source: str
    token: Token = field(repr=False)


async def keep(session: AsyncSession, vault: Vault, new: Sequence[NewCredential]) -> None:
    """Store tokens, in place of those of the same names; of several with one name the last."""
    last = {(item.instance_id, item.name): item for item in new}
    if not last:
        return
    await session.execute(
        _KEEP,
        [
            {
                "instance": item.instance_id,
                "name": item.name,
                "source": item.source,
                "sealed": vault.seal(token_json(item.token)),
                "refreshable": item.token.refresh_token is not None,
                "lasts": _lifetime(item.token),
                "renew": _renew_in(_lifetime(item.token)),
            }
            # One order for all who lock several.
            for _, item in sorted(last.items())
        ],
    )


def token_json(token: Token) -> dict[str, Any]:
    """A token as it is sealed. Raises TypeError when it is none; sealing does when its `data` is not JSON."""
    check_token(token)
    return {
        "access_token": token.access_token,
        "refresh_token": token.refresh_token,
        "expires_in": token.expires_in,
        "scopes": list(token.scopes),
        "data": dict(token.data),
    }


def read_token(stored: Mapping[str, Any]) -> Token:
    """The token that `token_json` wrote down; `expires_in` counts from then."""
    return Token(**{**stored, "scopes": tuple(stored["scopes"])})


@dataclass(frozen=True, slots=True)
class _Known:
    """A token that this call has read, good until `until` on the monotonic clock."""

    secret: str = field(repr=False)
    version: int
    renewable: bool
    until: float


class _Renewed(NamedTuple):
    secret: str
    version: int


class CredentialStore:
    """The stored credentials, and the renewals that this process has under way."""

    def __init__(self, db: Database, vault: Vault) -> None:
        self._db = db
        self._vault = vault
        self._running: dict[tuple[str, str], asyncio.Task[_Renewed | None]] = {}

    def of(self, instance: InstanceData, oauth: Callable[[], OAuth[Any]] | None) -> InstanceCredentials:
        """An instance's, for one call; `oauth` makes the plugin's OAuth object (None: it declares none)."""
        return InstanceCredentials(self, instance, oauth)

    async def aclose(self, patience: float) -> None:
        """Let renewals that are under way finish: a refresh token may be used up by now."""
        if self._running:
            await asyncio.wait(list(self._running.values()), timeout=patience)

    async def fetch(self, instance_id: str, name: str) -> asyncpg.Record | None:
        """A credential's row as it stands, seen by the database's clock."""
        return await self._db.pool.fetchrow(_READ, instance_id, name)

    def open(self, row: asyncpg.Record) -> Token:
        """The token in a row. Raises UnreadableSecret."""
        return read_token(self._vault.open(row["sealed"]))

    async def invalidate(self, instance_id: str, name: str, version: int) -> None:
        """Take the token of this version for void; a newer one stays."""
        await self._db.pool.execute(_INVALIDATE, instance_id, name, version)

    async def renew(
        self, instance: InstanceData, name: str, row: asyncpg.Record | None, mint: Mint | None, oauth: OAuth[Any] | None
    ) -> _Renewed | None:
        """The new access token; None when another worker has the turn, or has had it. Raises PluginError.

        It goes on when the call that asked for it is cut off: a token that was rotated is to be written.
        """
        key = (instance.id, name)
        task = self._running.get(key)
        if task is None:
            task = asyncio.create_task(self._renew(instance, name, row, mint, oauth))
            self._running[key] = task
            task.add_done_callback(lambda done: self._finished(key, done))
        return await asyncio.shield(task)

    def _finished(self, key: tuple[str, str], task: asyncio.Task[_Renewed | None]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # whoever waits has it; a call that was cut off does not

    async def _renew(
        self, instance: InstanceData, name: str, row: asyncpg.Record | None, mint: Mint | None, oauth: OAuth[Any] | None
    ) -> _Renewed | None:
        pool = self._db.pool
        if row is None:
            epoch = await pool.fetchval(_TAKE_NEW, instance.id, name, _LEASE)
        else:
            epoch = await pool.fetchval(_TAKE, instance.id, name, row["version"], _LEASE)
        if epoch is None:
            return None
        before = self.open(row) if row is not None and row["sealed"] else None
        try:
            token = await self._ask(instance, before, mint, oauth)
        except BaseException as error:
            patience = 0.0 if isinstance(error, Unauthorized) else _PAUSE
            with contextlib.suppress(asyncpg.PostgresError, OSError):
                await pool.execute(_RELEASE, instance.id, name, epoch, patience)
            raise
        version = await self._write(instance.id, name, epoch, token)
        return None if version is None else _Renewed(token.access_token, version)

    async def _ask(
        self, instance: InstanceData, before: Token | None, mint: Mint | None, oauth: OAuth[Any] | None
    ) -> Token:
        try:
            if before is not None and before.refresh_token is not None and oauth is not None:
                call = _checked(oauth.refresh(before))
                token = await ask(call, seconds=_TIMEOUT, what="refreshing a token", plugin=instance.plugin)
                # RFC 6749, section 6: a platform that sends no new refresh token leaves the old one in force.
                return token if token.refresh_token else replace(token, refresh_token=before.refresh_token)
            if mint is None:
                raise _none_left()
            return await ask(_checked(mint()), seconds=_TIMEOUT, what="minting a token", plugin=instance.plugin)
        except PluginCrashed as error:
            raise Retry(f"the token could not be renewed ({error})") from error
        except Retry:
            raise
        except Rejected as error:
            raise Unauthorized(f"the token could not be renewed: {error.reason}") from error

    async def _write(self, instance_id: str, name: str, epoch: int, token: Token) -> int | None:
        sealed = self._vault.seal(token_json(token))
        lasts = _lifetime(token)
        refreshable = token.refresh_token is not None
        give_up = time.monotonic() + _WRITING
        while True:
            try:
                version: int | None = await self._db.pool.fetchval(
                    _WRITE, instance_id, name, epoch, sealed, refreshable, lasts, _renew_in(lasts)
                )
                return version
            except Exception as error:
                if not is_away(error) or time.monotonic() > give_up:
                    raise
                await asyncio.sleep(_LONGEST_WAIT)


class InstanceCredentials:
    """The credentials of one instance, for one call into its plugin."""

    def __init__(self, store: CredentialStore, instance: InstanceData, oauth: Callable[[], OAuth[Any]] | None) -> None:
        self._store = store
        self._instance = instance
        self._oauth = oauth
        self._known: dict[str, _Known] = {}

    async def read(self, name: str, mint: Mint | None) -> str:
        """The token of this name, a good one. Raises Unauthorized for none, Retry when it cannot be renewed now."""
        known = self._known.get(name)
        if known is not None and known.until > time.monotonic():
            return known.secret
        give_up = time.monotonic() + _PATIENCE
        wait = _FIRST_WAIT
        while True:
            row = await self._store.fetch(self._instance.id, name)
            secret = self._usable(name, row, mint)
            if secret is not None and not (row and row["due"] and self._renewable(row, mint) and not row["held"]):
                return secret
            if not self._renewable(row, mint):
                raise _none_left() if row is not None else Unauthorized(f"there is no credential named {name!r}")
            if row is None or not row["held"]:
                renewed = await self._renewed(name, row, mint, secret)
                if renewed is not None:
                    return renewed
            if time.monotonic() > give_up:
                raise Retry("the credentials are being renewed; try again", after=5)
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)

    async def invalidate(self, used: UsedCredential) -> bool:
        """Take note of a 401. Of many who were refused with one token, the first has it renewed."""
        known = self._known.get(used.name)
        if known is not None and known.secret == used.secret:
            del self._known[used.name]
            if known.renewable:
                await self._store.invalidate(self._instance.id, used.name, known.version)
            return known.renewable
        # Another request of this call has been refused too, and was faster.
        return True

    async def _renewed(self, name: str, row: asyncpg.Record | None, mint: Mint | None, old: str | None) -> str | None:
        oauth = self._oauth() if self._oauth else None
        try:
            renewed = await self._store.renew(self._instance, name, row, mint, oauth)
        except PluginError as error:
            if old is None:
                raise
            _log.warning(
                "a token could not be renewed ahead of its end",
                plugin=self._instance.plugin, instance=self._instance.id, credential=name, reason=error.reason,
            )  # fmt: skip
            return old
        if renewed is None:
            return None
        # It may be due again at once, where tokens live for moments: the next read looks.
        self._known[name] = _Known(renewed.secret, renewed.version, renewable=True, until=0.0)
        return renewed.secret

    def _usable(self, name: str, row: asyncpg.Record | None, mint: Mint | None) -> str | None:
        if row is None or not row["sealed"] or (row["remaining"] is not None and row["remaining"] <= 0):
            return None
        secret = self._store.open(row).access_token
        lasts = _REMEMBERED if row["remaining"] is None else min(_REMEMBERED, row["remaining"])
        self._known[name] = _Known(
            secret, row["version"], self._renewable(row, mint), 0.0 if row["due"] else time.monotonic() + lasts
        )
        return secret

    def _renewable(self, row: asyncpg.Record | None, mint: Mint | None) -> bool:
        return mint is not None or (row is not None and row["refreshable"] and self._oauth is not None)


async def _checked(call: Awaitable[Token]) -> Token:
    token = await call
    check_token(token)
    return token


def _lifetime(token: Token) -> float | None:
    """Seconds that a token lasts, as a number that Postgres can add to a time; None for ever."""
    if token.expires_in is None or not math.isfinite(token.expires_in):
        return None
    return min(max(float(token.expires_in), 0.0), _LONGEST_LIFE)


def _renew_in(lasts: float | None) -> float | None:
    return None if lasts is None else lasts - min(_AHEAD, lasts * _AHEAD_SHARE)


def _none_left() -> Unauthorized:
    return Unauthorized("the token has expired and cannot be renewed; install the app again")
