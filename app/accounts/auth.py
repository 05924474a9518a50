"""Who calls, and for which community. One statement per request answers both."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request
from starlette.requests import HTTPConnection

from app.core.crypto import API_KEY_PREFIX, hash_api_key
from app.core.db import Database
from app.core.errors import BadRequest, NotFound, Unauthenticated

COMMUNITY_HEADER = "X-Metagov-Community"
NO_COMMUNITY = "you have no community with this slug"

_AUTHENTICATE = """
SELECT k.driver_id, c.id, c.slug, c.readable_name
FROM api_keys k
LEFT JOIN communities c ON c.driver_id = k.driver_id AND c.slug = $2 AND c.deleted_at IS NULL
WHERE k.hash = $1 AND k.revoked_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class CommunityRef:
    """A live community."""

    id: str
    slug: str
    readable_name: str


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated driver, and the community it acts for where the route names one."""

    driver_id: str
    community: CommunityRef | None


def api_key_of(authorization: str | None) -> str:
    """The API key in an Authorization header: Bearer, or Basic with the key as user name or password; "" if none."""
    scheme, _, value = (authorization or "").strip().partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            user, _, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
        except (ValueError, binascii.Error):
            return ""
        return user if user.startswith(API_KEY_PREFIX) else password or user
    return ""


def required_key(authorization: str | None) -> str:
    """`api_key_of` a header that has to hold one. Raises Unauthenticated."""
    key = api_key_of(authorization)
    if not key:
        raise Unauthenticated("send your API key as `Authorization: Bearer KEY` (or as the password of HTTP Basic)")
    return key


def unknown_key() -> Unauthenticated:
    """What is said of a key that is in no row, or in a revoked one."""
    return Unauthenticated("this API key is unknown or revoked")


async def authenticate(db: Database, authorization: str | None, slug: str | None) -> Caller:
    """The caller. `slug` is looked up among its own communities only. Raises Unauthenticated."""
    row = await db.pool.fetchrow(_AUTHENTICATE, hash_api_key(required_key(authorization)), slug)
    if row is None:
        raise unknown_key()
    community = CommunityRef(row["id"], row["slug"], row["readable_name"]) if row["id"] else None
    return Caller(row["driver_id"], community)


def database(connection: HTTPConnection) -> Database:
    """The service's database."""
    db: Database = connection.app.state.db
    return db


Db = Annotated[Database, Depends(database)]
Authorization = Annotated[str | None, Header(include_in_schema=False)]
CommunityHeader = Annotated[
    str | None,
    Header(alias=COMMUNITY_HEADER, description="The slug of the community to act for.", max_length=200),
]


async def driver(request: Request, db: Db) -> str:
    """The calling driver's id."""
    return (await authenticate(db, request.headers.get("authorization"), None)).driver_id


async def community_in_header(request: Request, db: Db) -> tuple[str, CommunityRef]:
    """The calling driver and the community its header names. Raises BadRequest when it is missing or not its own."""
    slug = request.headers.get(COMMUNITY_HEADER)
    caller = await authenticate(db, request.headers.get("authorization"), slug)
    if caller.community is None:
        raise BadRequest(wrong_header(slug))
    return caller.driver_id, caller.community


def wrong_header(slug: str | None) -> str:
    """What to say of a header that is missing or names no community of the caller's; unknown and foreign read alike."""
    if not slug:
        return f"the header {COMMUNITY_HEADER} is missing; it names the community's slug"
    return f"the header {COMMUNITY_HEADER} names no community of yours"


async def community_in_path(request: Request, db: Db, slug: str) -> tuple[str, CommunityRef]:
    """The calling driver and the community in the path. Raises NotFound, for another driver's too."""
    caller = await authenticate(db, request.headers.get("authorization"), slug)
    if caller.community is None:
        raise NotFound(NO_COMMUNITY)
    return caller.driver_id, caller.community


DriverId = Annotated[str, Depends(driver)]
HeaderCommunity = Annotated[tuple[str, CommunityRef], Depends(community_in_header)]
PathCommunity = Annotated[tuple[str, CommunityRef], Depends(community_in_path)]


async def find_public(db: Database, slug: str | None) -> Caller:
    """The community a public call names, whoever its driver is; the caller is nobody."""
    row = await db.pool.fetchrow(
        "SELECT id, slug, readable_name FROM communities WHERE slug = $1 AND deleted_at IS NULL", slug
    )
    return Caller("", CommunityRef(row["id"], row["slug"], row["readable_name"]) if row else None)
