"""What came of returns: a row each, sealed, until the driver exchanges its code or its time is over."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.crypto import Vault
from app.core.db import Database
from app.core.errors import Conflict, NotFound
from app.installs.oauth.state import LIFETIME, Visit
from app.runtime.credentials import read_token, token_json
from metagov_sdk import Installed, OAuthType, OAuthUser, SignedIn, Token
from metagov_sdk.accounts import check_custom_data
from metagov_sdk.credentials import check_credential_name

_LONGEST_ID = 500
_EXCHANGE_SECONDS = 120
"""How long an exchange may be at work before another may take its place."""

_OPEN = """
INSERT INTO oauth_grants (state_hash, driver_id, community_id, plugin, type, expires_at)
SELECT $1, d.id, $3, $4, $5, clock_timestamp() + make_interval(secs => $6) FROM drivers d WHERE d.id = $2
ON CONFLICT DO NOTHING RETURNING state_hash
"""
_FILL = """
UPDATE oauth_grants
SET code_hash = $2, sealed = $3, community_platform_id = $4, expires_at = clock_timestamp() + make_interval(secs => $5)
WHERE state_hash = $1
"""
_TAKE = """
UPDATE oauth_grants SET lease_until = clock_timestamp() + make_interval(secs => $3)
WHERE code_hash = $1 AND driver_id = $2 AND sealed IS NOT NULL AND expires_at > clock_timestamp()
  AND (lease_until IS NULL OR lease_until < clock_timestamp())
RETURNING state_hash, plugin, type, community_id, sealed,
    extract(epoch FROM clock_timestamp() - created_at)::float8 AS age
"""
_AT_WORK = """
SELECT EXISTS (
    SELECT FROM oauth_grants
    WHERE code_hash = $1 AND driver_id = $2 AND sealed IS NOT NULL AND expires_at > clock_timestamp()
)
"""
_GIVE_BACK = "UPDATE oauth_grants SET lease_until = NULL WHERE state_hash = $1"
_USE_UP = text("UPDATE oauth_grants SET sealed = NULL WHERE state_hash = :state AND sealed IS NOT NULL RETURNING 1")


@dataclass(frozen=True, slots=True)
class Grant:
    """A return whose code is being exchanged."""

    state_hash: bytes
    plugin: str
    type: OAuthType
    community_id: str | None
    given: Installed | SignedIn = field(repr=False)


async def open_grant(db: Database, visit: Visit) -> bytes | None:
    """Take note that a person has come back with this state. None when one has before."""
    found: bytes | None = await db.pool.fetchval(
        _OPEN, _hash(visit.nonce), visit.driver_id, visit.community_id, visit.plugin, visit.type, LIFETIME
    )
    return found


async def fill(db: Database, vault: Vault, state_hash: bytes, given: Installed | SignedIn) -> str:
    """Keep what the platform gave; returns the one-time code that the driver exchanges it by."""
    code = secrets.token_urlsafe(32)
    user = given if isinstance(given, SignedIn) else None
    platform_id = user.user.community_platform_id if user else cast(Installed, given).community_platform_id
    sealed = vault.seal(given_json(given))
    await db.pool.execute(_FILL, state_hash, _hash(code), sealed, platform_id, LIFETIME)
    return code


async def take(db: Database, vault: Vault, driver_id: str, code: str) -> Grant:
    """Take a driver's grant for an exchange.

    Raises NotFound when the code is unknown, another driver's, used or too old; Conflict while another exchange of it
    is at work.
    """
    row = await db.pool.fetchrow(_TAKE, _hash(code), driver_id, _EXCHANGE_SECONDS)
    if row is None:
        if await db.pool.fetchval(_AT_WORK, _hash(code), driver_id):
            raise Conflict(
                "this code is being exchanged already", slug="exchange-at-work", headers={"retry-after": "1"}
            )
        raise unknown_code()
    given = read_given(vault.open(row["sealed"]), row["age"])
    return Grant(row["state_hash"], row["plugin"], row["type"], row["community_id"], given)


async def give_back(db: Database, grant: Grant) -> None:
    """The exchange failed: the code may be tried again."""
    await db.pool.execute(_GIVE_BACK, grant.state_hash)


async def use_up(session: AsyncSession, grant: Grant) -> None:
    """The code is worth nothing any more. Raises NotFound when it was so already."""
    if (await session.execute(_USE_UP, {"state": grant.state_hash})).scalar() is None:
        raise unknown_code()


def unknown_code() -> NotFound:
    """What is said of a code that is unknown, another driver's, used or too old."""
    return NotFound("there is no such code; it is good for ten minutes and for one exchange, by the driver it is for")


def given_json(given: Installed | SignedIn) -> dict[str, Any]:
    """What a platform gave, as it is sealed. Raises ValueError or TypeError for what is not usable."""
    if isinstance(given, SignedIn):
        return _usable({"user": _user_json(given.user), "scopes": list(given.scopes)})
    platform_id = _checked_id(given.community_platform_id)
    for name in given.credentials:
        check_credential_name(name)
    return _usable(
        {
            "community_platform_id": platform_id,
            "config": dict(given.config),
            "credentials": {name: token_json(token) for name, token in given.credentials.items()},
            "scopes": list(given.scopes),
            "user": None if given.user is None else _user_json(given.user),
        }
    )


def read_given(stored: Mapping[str, Any], age: float) -> Installed | SignedIn:
    """What `given_json` wrote down `age` seconds ago."""
    user = stored["user"]
    person = None if user is None else OAuthUser(**user)
    if "credentials" not in stored:
        return SignedIn(cast(OAuthUser, person), tuple(stored["scopes"]))
    tokens = {name: _aged(read_token(token), age) for name, token in stored["credentials"].items()}
    return Installed(
        stored["community_platform_id"], stored["config"], tokens, scopes=tuple(stored["scopes"]), user=person
    )


def _aged(token: Token, age: float) -> Token:
    return token if token.expires_in is None else replace(token, expires_in=max(0.0, token.expires_in - age))


def _user_json(user: OAuthUser) -> dict[str, Any]:
    platform_id = user.community_platform_id
    check_custom_data(account_data(user))
    return {
        "user_id": _checked_id(user.user_id),
        "name": user.name,
        "community_platform_id": None if platform_id is None else _checked_id(platform_id),
        "data": dict(user.data),
    }


def account_data(user: OAuthUser) -> dict[str, Any]:
    """What is kept of the person beside the linked account."""
    return {**user.data, **({"name": user.name} if user.name else {})}


def _checked_id(platform_id: object) -> str:
    if not isinstance(platform_id, str) or not 0 < len(platform_id) <= _LONGEST_ID or "\0" in platform_id:
        raise ValueError("an id of the platform is not text of 1 to 500 characters")
    return platform_id


def _usable(value: dict[str, Any]) -> dict[str, Any]:
    """The value, which JSON and Postgres can hold. Raises TypeError or ValueError."""
    encoded = json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    if b"\\u0000" in encoded:
        raise ValueError("a text of the platform holds a NUL character")
    return value


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
