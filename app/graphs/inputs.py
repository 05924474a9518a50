"""The graphs that a graph takes in: other rule sets' of the community, and those of other people by their URLs."""

from __future__ import annotations

import asyncio
import hashlib
import json
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from app.core.egress import BodyTooLarge, EgressRefused
from app.graphs.building import BuildFailed, BuildRefused
from app.graphs.child import InputFiles
from app.graphs.files import Fresh, GraphFiles
from app.graphs.service import Graphs, rule_sets
from app.host.binding import InstanceData, UnreadableInstance
from app.installs.graph_inputs import find_cycle, plugins_read
from app.runtime import instances
from metagov_sdk.graph import LIMITS, GraphConfig, GraphInput

_SMALL = 32 * 2**20
"""What a declaration or proposals may be."""
_BATCH = 2**20

_OTHERS = """
SELECT i.id, i.plugin, g.files::text AS files, g.error FROM instances i LEFT JOIN graphs g ON g.instance_id = i.id
WHERE i.community_id = $1 AND i.plugin = ANY($2::text[]) AND i.status <> 'disabled' AND i.deleted_at IS NULL
ORDER BY i.plugin, i.id
"""
_KNOWN = "SELECT etag, modified, sha256 FROM graph_fetches WHERE (graph_id, url_hash) = ($1, $2)"
_LEARN = """
INSERT INTO graph_fetches (graph_id, url_hash, etag, modified, sha256) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (graph_id, url_hash) DO UPDATE SET etag = excluded.etag, modified = excluded.modified,
    sha256 = excluded.sha256, fetched_at = clock_timestamp()
"""
_KEEP_ONLY = "DELETE FROM graph_fetches WHERE graph_id = $1 AND NOT url_hash = ANY($2::bytea[])"


@dataclass(frozen=True, slots=True)
class Resolved:
    """Where inputs' files are, and digests that tell whether any has changed."""

    files: Mapping[str, InputFiles]
    digests: Mapping[str, list[str | None]]
    remote: bool
    """Whether any is from elsewhere."""


async def resolve(use: Graphs, graph_id: str, instance: InstanceData, config: GraphConfig) -> Resolved:
    """Find or fetch all inputs. Raises BuildRefused for what cannot be, BuildFailed for what is away just now."""
    files = use.require_files()
    local = await _local(use, files, instance, config)
    found: dict[str, InputFiles] = {}
    digests: dict[str, list[str | None]] = {}
    hashes: list[bytes] = []
    async with use.client() as http:
        for each in config.inputs:
            if each.plugin is not None:
                found[each.name], digests[each.name] = local[each.plugin]
                continue
            fetching = _Fetching(use, files, http, graph_id, each)
            urls = (each.graph_url, each.declaration_url, each.identity_proposals_url)
            names = [None if url is None else await fetching.get(url, small=n > 0) for n, url in enumerate(urls)]
            paths = [None if name is None else str(files.path(name)) for name in names]
            found[each.name] = InputFiles(graph=paths[0] or "", declaration=paths[1], identities=paths[2])
            digests[each.name] = names
            hashes += [_hash(url) for url in urls if url is not None]
    await use.db.pool.execute(_KEEP_ONLY, graph_id, hashes)
    return Resolved(found, digests, bool(hashes))


async def _local(
    use: Graphs, files: GraphFiles, instance: InstanceData, config: GraphConfig
) -> dict[str, tuple[InputFiles, list[str | None]]]:
    wanted = plugins_read(config)
    if not wanted:
        return {}
    await _refuse_cycle(use, instance)
    rows: dict[str, list[tuple[str | None, str | None]]] = {}
    for row in await use.db.pool.fetch(_OTHERS, instance.community_id, wanted):
        rows.setdefault(row["plugin"], []).append((row["files"], row["error"]))
    found: dict[str, tuple[InputFiles, list[str | None]]] = {}
    for plugin in wanted:
        there = rows.get(plugin, [])
        if len(there) != 1:
            reason = "it is not enabled" if not there else f"the community has {len(there)} instances of it"
            raise BuildRefused(f"the graph of {plugin!r} cannot be taken in: {reason}")
        if there[0][0] is None:
            because = f": {there[0][1]}" if there[0][1] else ""
            raise BuildRefused(f"the graph of {plugin!r}, which is taken in, is not built yet{because}")
        built = json.loads(there[0][0])
        names = [built[name]["sha256"] for name in ("graph", "declaration", "identities")]
        paths = [str(files.path(f"{name}.gz")) for name in names]
        found[plugin] = InputFiles(graph=paths[0], declaration=paths[1], identities=paths[2]), names
    return found


async def _refuse_cycle(use: Graphs, instance: InstanceData) -> None:
    """Configurations are checked when they are set; one that was stored otherwise does not build in circles either."""
    rows = await use.db.pool.fetch(_OTHERS, instance.community_id, rule_sets(use.host))
    found, _ = await instances.by_ids(use.db.pool, use.vault, [row["id"] for row in rows])
    reads: dict[str, set[str]] = {}
    for each in found.values():
        try:
            reads.setdefault(each.plugin, set()).update(plugins_read(use.host.read_config(each)))
        except UnreadableInstance:
            continue
    if cycle := find_cycle(reads, instance.plugin):
        raise BuildRefused(f"the graphs read each other: {' → '.join(cycle)}")


@dataclass(frozen=True, slots=True)
class _Fetching:
    """The files of one input from elsewhere. What is said of it names the host alone: its path can be a capability."""

    use: Graphs
    files: GraphFiles
    http: httpx.AsyncClient
    graph_id: str
    input: GraphInput

    async def get(self, url: str, *, small: bool) -> str:
        """The name of the file that is kept of a URL, fetched anew unless it is unchanged."""
        key = _hash(url)
        known = await self.use.db.pool.fetchrow(_KNOWN, self.graph_id, key)
        if known is not None and not self.files.has(f"{known['sha256']}.input"):
            known = None
        headers = {} if known is None else {"If-None-Match": known["etag"], "If-Modified-Since": known["modified"]}
        try:
            async with self.http.stream(
                "GET", url, headers={name: value for name, value in headers.items() if value}
            ) as answer:
                if answer.status_code == 304 and known is not None:
                    return f"{known['sha256']}.input"
                if answer.status_code != 200:
                    return self._away(url, known, f"it answered {answer.status_code}", answer.status_code)
                sha256 = await self._keep(answer, url, _SMALL if small else LIMITS.unpacked)
        except EgressRefused as error:
            raise BuildRefused(self._said(url, str(error))) from None
        except BodyTooLarge as error:
            raise BuildRefused(self._said(url, str(error))) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return self._away(url, known, f"it cannot be read ({type(error).__name__})", 0)
        etag, modified = answer.headers.get("etag"), answer.headers.get("last-modified")
        await self.use.db.pool.execute(_LEARN, self.graph_id, key, _short(etag), _short(modified), sha256)
        return f"{sha256}.input"

    def _away(self, url: str, known: Mapping[str, str] | None, reason: str, status: int) -> str:
        """What was fetched last, where the host is only away; what was taken back or has moved is not used any more."""
        if 300 <= status < 400 and status != 304:
            raise BuildRefused(self._said(url, f"{reason}, a redirect; name where it leads, for none is followed"))
        if 400 <= status < 500 and status not in (408, 425, 429):
            raise BuildRefused(self._said(url, reason))
        if known is None:
            raise BuildFailed(self._said(url, reason))
        return f"{known['sha256']}.input"

    async def _keep(self, answer: httpx.Response, url: str, most: int) -> str:
        """Write a body as it comes, packed if it is not; returns the digest of what is kept."""
        size = 0
        with self.files.writing() as fresh:
            keeping = _Packing(fresh)
            async for batch in _batches(answer.aiter_bytes()):
                size += len(batch)
                if size > most:
                    raise BuildRefused(self._said(url, f"it is larger than {most:,} bytes"))
                await asyncio.to_thread(keeping.write, batch)
            return await asyncio.to_thread(keeping.keep)

    def _said(self, url: str, reason: str) -> str:
        return f"the input {self.input.name!r} ({_host(url)}) cannot be taken: {reason}"


class _Packing:
    """A file that is packed unless it came so."""

    def __init__(self, fresh: Fresh) -> None:
        self._fresh = fresh
        self._digest = hashlib.sha256()
        self._pack: Callable[[bytes], bytes] | None = None
        self._finish: Callable[[], bytes] = bytes

    def write(self, batch: bytes) -> None:
        if self._pack is None:
            plain = batch.lstrip()[:1] in (b"[", b"{", b"")
            packer = zlib.compressobj(1, wbits=31)
            self._pack = packer.compress if plain else bytes
            self._finish = packer.flush if plain else bytes
        self._add(self._pack(batch))

    def keep(self) -> str:
        self._add(self._finish())
        digest = self._digest.hexdigest()
        self._fresh.keep(f"{digest}.input")
        return digest

    def _add(self, data: bytes) -> None:
        self._digest.update(data)
        self._fresh.write(data)


async def _batches(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    held: list[bytes] = []
    size = 0
    async for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= _BATCH:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


def _hash(url: str) -> bytes:
    return hashlib.sha256(url.encode()).digest()


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or "no host"
    except ValueError:
        return "no host"


def _short(header: str | None) -> str | None:
    """A header that can be sent back; what is longer than any, or no ASCII, is not worth a mistake."""
    return header if header is not None and len(header) <= 1000 and header.isascii() else None
