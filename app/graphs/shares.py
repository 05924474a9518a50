"""Shares: URLs that are capabilities. Of a token only the hash is stored; it is shown once, to whoever makes it."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.core.errors import Invalid, NotFound
from app.core.ids import new_id
from app.graphs.service import Graphs, ensure_row
from app.host.binding import InstanceData

PREFIX = "mgg_"
_TOKEN_BYTES = 32
_MOST = 1000
_LONGEST = 100

FILES = {"graph.json": "graph", "declaration.json": "declaration", "identityProposals.json": "identities"}
"""What is at a share's URL, and nothing else."""

_ADD = """
INSERT INTO graph_shares (id, graph_id, token_hash, expires_at)
SELECT $1::text, $2::text, $3::bytea, $4::timestamptz
WHERE (SELECT count(*) FROM graph_shares WHERE graph_id = $2) < $5::int RETURNING id
"""
_REVOKE = """
DELETE FROM graph_shares s USING graphs g WHERE g.id = s.graph_id AND g.instance_id = $1 AND s.id = $2 RETURNING s.id
"""
# One statement decides, and says nothing of why not.
_FIND = """
SELECT g.instance_id, g.files::text AS files FROM graph_shares s
JOIN graphs g ON g.id = s.graph_id AND g.files IS NOT NULL
JOIN instances i ON i.id = g.instance_id AND i.deleted_at IS NULL AND i.status <> 'disabled'
JOIN communities c ON c.id = i.community_id AND c.deleted_at IS NULL
WHERE s.token_hash = $1 AND (s.expires_at IS NULL OR s.expires_at > clock_timestamp())
"""


@dataclass(frozen=True, slots=True)
class NewShare:
    """A share with its token, this once."""

    id: str
    token: str


async def create_share(use: Graphs, instance: InstanceData, expires_at: datetime | None) -> NewShare:
    """Make a share. Raises Invalid for a time that is past, or when there are too many; Conflict without a folder."""
    use.require_files()
    if expires_at is not None and expires_at <= await use.db.now():
        raise Invalid.field("/expires_at", "this time is past")
    token = PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)
    row = await ensure_row(use, instance)
    made = await use.db.pool.fetchval(_ADD, new_id("shr"), row, _hash(token), expires_at, _MOST)
    if made is None:
        raise Invalid.field("", f"the graph has {_MOST} shares; revoke those that nobody uses")
    return NewShare(made, token)


async def revoke_share(use: Graphs, instance: InstanceData, share_id: str) -> None:
    """From now on its URLs are as if they had never been. Raises NotFound."""
    if await use.db.pool.fetchval(_REVOKE, instance.id, share_id) is None:
        raise NotFound("the graph has no such share")


async def find_shared(use: Graphs, token: str) -> tuple[str, dict[str, Any]] | None:
    """The instance and the files that a token opens; None whatever is wrong with it."""
    if len(token) > _LONGEST:
        return None
    row = await use.db.pool.fetchrow(_FIND, _hash(token))
    return None if row is None else (row["instance_id"], json.loads(row["files"]))


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
