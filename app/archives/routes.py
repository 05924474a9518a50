"""HTTP for archives: HEAD, manifests, blobs as they are stored, and rows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from app.accounts.auth import HeaderCommunity
from app.archives.format import LARGEST_BLOB, blob_name, digest, unpack
from app.archives.places import find_name
from app.archives.ranges import immutable, is_known
from app.archives.schemas import ArchiveHeadOut, ArchiveManifest, ArchiveRows
from app.archives.service import Archives
from app.archives.stores import NoArchives, UnusableArchive
from app.core.errors import NotFound, Unavailable, Upstream
from app.core.paging import After, Limit, bad_cursor, decode_cursor, encode_cursor
from app.installs.routes import PluginName
from app.runtime import instances
from metagov_sdk.archive import ArchiveAway, BadDigest, CorruptArchive, MissingObject, NoSnapshot, UnknownTable

router = APIRouter(prefix="/api/internal/archive", tags=["archives"])

_Responses = dict[int | str, dict[str, Any]]
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_NOT_MODIFIED: _Responses = {304: {"description": "You have it already: its ETag is in If-None-Match."}}
_CORRUPT: _Responses = {
    502: {"description": "What lies in the archive is not what was written there; `type` says how."}
}
_PARTIAL: _Responses = {
    206: {"description": "The range that was asked for.", "content": _BYTES},
    416: {"description": "The range lies outside."},
}
PlatformId = Annotated[
    str | None, Query(max_length=500, description="Which instance, where the community has several of the plugin.")
]
Digest = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="A SHA-256 in hex.")]


@router.get(
    "/{plugin}", operation_id="get_archive", responses={**_NOT_MODIFIED, **_CORRUPT}, response_model=ArchiveHeadOut
)
async def get_archive(
    request: Request, caller: HeaderCommunity, plugin: PluginName, community_platform_id: PlatformId = None
) -> Response:
    """The newest snapshot of what a plugin has mirrored."""
    community = caller[1]
    archive_name = await _find_name(request, community.id, plugin, community_platform_id)
    with _said_as_problems():
        head = await _archives(request).head(community.id, community.slug, archive_name)
    etag = f'"{head.snapshot if head else "none"}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Authorization, X-Metagov-Community"}
    if is_known(request, etag):
        return Response(status_code=304, headers=headers)
    answer = ArchiveHeadOut(
        provider=plugin,
        community=community.slug,
        snapshot=head.snapshot if head else None,
        seq=head.seq if head else 0,
        created_at=head.created_at if head else None,
    )
    return Response(answer.model_dump_json(), headers=headers, media_type="application/json")


@router.get(
    "/{plugin}/manifest/{snapshot}",
    operation_id="get_archive_manifest",
    responses={**_NOT_MODIFIED, **_PARTIAL, **_CORRUPT},
    response_model=ArchiveManifest,
)
async def get_manifest(
    request: Request,
    caller: HeaderCommunity,
    plugin: PluginName,
    snapshot: Digest,
    community_platform_id: PlatformId = None,
) -> Response:
    """A snapshot's manifest, byte for byte: its SHA-256 is the snapshot's id."""
    community = caller[1]
    archive_name = await _find_name(request, community.id, plugin, community_platform_id)
    with _said_as_problems():
        async with _archives(request).reader(community.id, community.slug, archive_name, snapshot) as reader:
            return immutable(request, reader.manifest.encode(), snapshot, "application/json")


@router.get(
    "/{plugin}/blob/{sha256}",
    operation_id="get_archive_blob",
    responses={200: {"content": _BYTES, "description": "A zstd frame."}, **_NOT_MODIFIED, **_PARTIAL, **_CORRUPT},
    response_class=Response,
)
async def get_blob(
    request: Request,
    caller: HeaderCommunity,
    plugin: PluginName,
    sha256: Digest,
    community_platform_id: PlatformId = None,
) -> Response:
    """A chunk of rows, or a JSON Schema, as it is stored: a zstd frame of what has this SHA-256."""
    community = caller[1]
    archive_name = await _find_name(request, community.id, plugin, community_platform_id)
    with _said_as_problems():
        async with _archives(request).store(community.slug, archive_name) as archive:
            try:
                stored = await archive.read(blob_name(sha256), 2 * LARGEST_BLOB)
            except MissingObject:
                raise NotFound("the archive has no such blob") from None
        await asyncio.to_thread(_check_blob, stored, sha256)
    return immutable(request, stored, sha256, "application/octet-stream")


@router.get("/{plugin}/table/{table}", operation_id="list_archive_rows", responses=_CORRUPT, response_model=ArchiveRows)
async def list_rows(
    request: Request,
    caller: HeaderCommunity,
    plugin: PluginName,
    table: Annotated[str, Path(max_length=130, description="In full, `discord.message`, or without the plugin.")],
    snapshot: Annotated[
        str | None, Query(pattern="^[0-9a-f]{64}$", description="Not the newest snapshot but this one.")
    ] = None,
    after: After = None,
    limit: Limit = 50,
    community_platform_id: PlatformId = None,
) -> Response:
    """A table's rows. Pages after the first are of the same snapshot, whatever has become the newest meanwhile."""
    community = caller[1]
    archive_name = await _find_name(request, community.id, plugin, community_platform_id)
    name = table if "." in table else f"{plugin}.{table}"
    position = decode_cursor(after, (str, int, int), of=f"{archive_name}/{name}")
    if position is not None and (snapshot not in (None, position[0]) or min(position[1:]) < 0):
        raise bad_cursor()
    wanted, chunk, row = position or (snapshot, 0, 0)
    with _said_as_problems():
        async with _archives(request).reader(community.id, community.slug, archive_name, wanted) as reader:
            rows, more = await reader.page(name, chunk, row, limit)
    following = None if more is None else encode_cursor((reader.snapshot, *more), of=f"{archive_name}/{name}")
    body = orjson.dumps({"rows": rows, "snapshot": reader.snapshot, "next": following})
    return Response(body, media_type="application/json", headers={"Cache-Control": "private, no-cache"})


async def _find_name(request: Request, community_id: str, plugin: str, platform_id: str | None) -> str:
    """Of the instance's archive. Raises NotFound unless the community has the plugin, Conflict when several fit."""
    gateway = request.app.state.gateway
    instance, _ = await instances.choose(gateway.db.pool, gateway.vault, community_id, plugin, platform_id)
    return await find_name(gateway.db.pool, instance)


def _check_blob(stored: bytes, sha256: str) -> None:
    what = f"the blob {sha256}"
    if digest(unpack(stored, what, LARGEST_BLOB)) != sha256:
        raise BadDigest(f"{what} holds something else than its name says")


@contextlib.contextmanager
def _said_as_problems() -> Iterator[None]:
    try:
        yield
    except (NoArchives, NoSnapshot, UnknownTable) as error:
        raise NotFound(str(error)) from error
    except CorruptArchive as error:
        kind = "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in type(error).__name__)
        raise Upstream(str(error), slug=f"archive{kind}") from error
    except (ArchiveAway, UnusableArchive) as error:
        raise Unavailable(str(error), retry_after=30) from error


def _archives(request: Request) -> Archives:
    archives: Archives = request.app.state.gateway.archives
    return archives
