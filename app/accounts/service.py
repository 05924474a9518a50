"""What the operator does with driver accounts: create them, give and revoke keys, register redirect URIs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import CursorResult
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.models import ApiKey, Driver, RedirectUri
from app.core.crypto import Vault, hash_api_key, new_api_key, new_signing_secret
from app.core.errors import Conflict, Invalid, NotFound
from app.core.ids import new_id

_HINT_LENGTH = 10


@dataclass(frozen=True, slots=True)
class NewDriver:
    """A fresh account with the two secrets that are shown once."""

    id: str
    name: str
    api_key: str = field(repr=False)
    signing_secret: str = field(repr=False)


async def create_driver(session: AsyncSession, vault: Vault, name: str, *, api_key: str = "") -> NewDriver:
    """A driver with one key (`api_key`, or a random one). Raises Conflict when the name is taken."""
    if not name.strip() or "\0" in name or len(name) > 200:
        raise Invalid.field("/name", "should be 1 to 200 characters")
    secret = new_signing_secret()
    driver_id = new_id("drv")
    added = await session.execute(
        insert(Driver)
        .values(id=driver_id, name=name, signing_secret=vault.seal(secret))
        .on_conflict_do_nothing(index_elements=["name"])
        .returning(Driver.id)
    )
    if added.scalar() is None:
        raise Conflict(f"there is a driver named {name!r} already")
    key = await add_key(session, driver_id, api_key)
    return NewDriver(driver_id, name, key, secret)


async def find_driver(session: AsyncSession, name: str) -> Driver:
    """The driver of this name. Raises NotFound."""
    driver = await session.scalar(select(Driver).where(Driver.name == name))
    if driver is None:
        raise NotFound(f"there is no driver named {name!r}")
    return driver


async def list_drivers(session: AsyncSession) -> Sequence[tuple[Driver, int]]:
    """All drivers with the number of their keys in force, by name."""
    keys = func.count(ApiKey.id)
    rows = await session.execute(
        select(Driver, keys)
        .outerjoin(ApiKey, (ApiKey.driver_id == Driver.id) & ApiKey.revoked_at.is_(None))
        .group_by(Driver.id)
        .order_by(Driver.name)
    )
    return [(driver, count) for driver, count in rows]


async def add_key(session: AsyncSession, driver_id: str, key: str = "") -> str:
    """One more key for a driver (a random one unless given). Returns it; it cannot be read again."""
    key = key or new_api_key()
    added = await session.execute(
        insert(ApiKey)
        .values(id=new_id("key"), driver_id=driver_id, hash=hash_api_key(key), hint=_hint(key))
        .on_conflict_do_nothing(index_elements=["hash"])
        .returning(ApiKey.id)
    )
    if added.scalar() is None:
        raise Conflict("this API key is in use already; keys are never shared or reused")
    return key


def _hint(key: str) -> str:
    """A key's first characters; of a short one (the operator's own choice) only a few, for it is stored in clear."""
    return key[: min(_HINT_LENGTH, len(key) // 4)]


async def list_keys(session: AsyncSession, driver_id: str) -> Sequence[ApiKey]:
    """A driver's keys, oldest first, revoked ones included."""
    return (await session.scalars(select(ApiKey).where(ApiKey.driver_id == driver_id).order_by(ApiKey.id))).all()


async def revoke_key(session: AsyncSession, driver_id: str, key_id: str) -> None:
    """Make a key useless at once. Raises NotFound."""
    result = await session.execute(
        update(ApiKey)
        .where(ApiKey.driver_id == driver_id, ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
        .values(revoked_at=func.now())
    )
    if not (isinstance(result, CursorResult) and result.rowcount):
        raise NotFound(f"this driver has no key {key_id!r} in force")


async def add_redirect(session: AsyncSession, driver_id: str, uri: str) -> None:
    """Register where OAuth may send people back to. Raises Invalid for anything but an absolute http(s) URL."""
    if not uri.startswith(("https://", "http://")) or "#" in uri or "\0" in uri or len(uri) > 2000:
        raise Invalid.field("/uri", "should be an absolute http(s) URL of at most 2,000 characters, without a fragment")
    await session.execute(insert(RedirectUri).values(driver_id=driver_id, uri=uri).on_conflict_do_nothing())


async def list_redirects(session: AsyncSession, driver_id: str) -> Sequence[str]:
    """A driver's redirect URIs."""
    rows = select(RedirectUri.uri).where(RedirectUri.driver_id == driver_id).order_by(RedirectUri.uri)
    return (await session.scalars(rows)).all()


async def remove_redirect(session: AsyncSession, driver_id: str, uri: str) -> None:
    """Take a redirect URI away. Raises NotFound."""
    result = await session.execute(
        delete(RedirectUri).where(RedirectUri.driver_id == driver_id, RedirectUri.uri == uri)
    )
    if not (isinstance(result, CursorResult) and result.rowcount):
        raise NotFound(f"this driver has no redirect URI {uri!r}")
