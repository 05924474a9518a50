"""Experimental: an archive whose HEAD is also told to Ceramic: `ceramic+http://host:5101?objects=file:///srv/archives`.

Objects and HEAD lie in the archive that `objects` names. After each move HEAD goes to a stream of its own as well,
where nobody can take it back: a reader that finds the archive behind its stream knows that it was rolled back.
Spoken is ceramic-one's HTTP interface (https://github.com/ceramicnetwork/rust-ceramic, api/ceramic.yaml):
`POST /ceramic/events`, `GET /ceramic/streams/{id}`. It was never tried on a network, only against a fake of that page.
Settings, after METAGOV_ARCHIVE_CERAMIC_: KEY (Ed25519, 32 bytes in base64), MODEL (a model of the "set" or "single"
kind whose content is any object).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import orjson

from app.archives.format import decode_head
from app.archives.stores import Deployment, KeepsScratch, open_store
from app.archives.stores.ceramic_events import (
    Cid,
    Controller,
    data_event,
    init_event,
    multibase,
    read_cid,
    read_multibase,
    read_stream_id,
    stream_id,
)
from metagov_sdk.archive import ArchiveAway, ArchiveSettings, DataArchive, Head, NotCanonical, RolledBack

_LOOKS = 40
_PAUSE = 0.25
_LONGEST_STATE = 256 * 1024


class CeramicArchive(DataArchive):
    """Another archive, with a witness."""

    def __init__(
        self, objects: DataArchive, http: httpx.AsyncClient, key: Controller, model: bytes, below: str
    ) -> None:
        self._objects = objects
        self._http = http
        self._key = key
        self._init, self._init_car = init_event(key.did, model, hashlib.sha256(below.encode()).digest()[:12])
        self.stream = stream_id(self._init)

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, below: str, settings: ArchiveSettings) -> AsyncIterator[CeramicArchive]:
        """The archive that the query's `objects` names. Raises ValueError for a URL or setting that is not usable."""
        parts = urlsplit(url)
        query = parse_qs(parts.query, keep_blank_values=True)
        objects = query.pop("objects", [])
        if not parts.netloc or parts.path.strip("/") or query or len(objects) != 1 or objects[0].startswith("ceramic"):
            raise ValueError("a Ceramic archive's URL is ceramic+http://host:port?objects=<the URL of another archive>")
        environment = settings.environment
        try:
            seed = base64.b64decode(environment.get("CERAMIC_KEY", ""), validate=True)
            model = read_stream_id(environment.get("CERAMIC_MODEL", ""))
        except ValueError as error:
            raise ValueError(f"METAGOV_ARCHIVE_CERAMIC_KEY or _MODEL: {error}") from None
        if len(seed) != 32:
            raise ValueError("METAGOV_ARCHIVE_CERAMIC_KEY should be 32 bytes in base64")
        community, _, provider = below.partition("/")
        client = settings.client(f"{parts.scheme.removeprefix('ceramic+')}://{parts.netloc}")
        deployment = settings if isinstance(settings, Deployment) else Deployment(settings.environment)
        async with client as http, open_store(objects[0], community, provider, deployment) as inner:
            yield cls(inner, http, Controller(seed), model, below)

    async def head(self) -> Head:
        """HEAD as it is in the archive. Raises RolledBack when the stream knows of a newer one, or of another."""
        head = await self._objects.head()
        state = await self._state()
        if state is None or state[1] is None:
            return head
        told = state[1]
        mine = None if head.data is None else decode_head(head.data)
        number = 0 if mine is None else mine.seq
        if number < told["seq"]:
            raise RolledBack(f"HEAD is at snapshot number {number}, and Ceramic was told of number {told['seq']}")
        if mine is not None and number == told["seq"] and mine.snapshot != told["snapshot"]:
            raise RolledBack(f"HEAD's snapshot number {number} is another than the one Ceramic was told of")
        return head

    async def read(self, name: str, most: int) -> bytes:
        """As in the archive."""
        return await self._objects.read(name, most)

    async def missing(self, names: Collection[str]) -> set[str]:
        """As in the archive."""
        return await self._objects.missing(names)

    async def add(self, name: str, data: bytes, *, replace: bool = False) -> bool:
        """As in the archive."""
        return await self._objects.add(name, data, replace=replace)

    async def sweep_scratch(self, older_than: timedelta) -> int:
        """As in the archive."""
        inner = self._objects
        return await inner.sweep_scratch(older_than) if isinstance(inner, KeepsScratch) else 0

    async def move_head(self, data: bytes, expected: Head) -> None:
        """Set HEAD in the archive, which decides who is first, and tell Ceramic then. Raises HeadMoved, ArchiveAway."""
        await self._objects.move_head(data, expected)
        head = decode_head(data)
        await self._tell({"snapshot": head.snapshot, "seq": head.seq})

    async def _tell(self, content: Mapping[str, Any]) -> None:
        state = await self._state()
        if state is None:
            await self._post(self._init_car)
        previous = self._init if state is None else state[0]
        event, file = data_event(self._key, self._init, previous, dict(content))
        await self._post(file)
        for _ in range(_LOOKS):
            state = await self._state()
            if state is not None and (state[0] == event or (state[1] or {}).get("seq", 0) >= content["seq"]):
                return
            await asyncio.sleep(_PAUSE)
        raise ArchiveAway("HEAD is set in the archive; Ceramic took the event and does not show it yet")

    async def _state(self) -> tuple[Cid, dict[str, Any] | None] | None:
        """The stream's newest event, and its content if it has any; None where there is no stream yet."""
        answer = await self._send("GET", f"/ceramic/streams/{self.stream}")
        if answer.status_code == 404:
            return None
        try:
            state = orjson.loads(answer.content)
            if len(answer.content) > _LONGEST_STATE or state["controller"] != self._key.did:
                raise ValueError
            content = orjson.loads(read_multibase(state["data"]))["content"]
            event = read_cid(state["event_cid"])
            if content is not None and not (isinstance(content["seq"], int) and isinstance(content["snapshot"], str)):
                raise ValueError
        except (ValueError, TypeError, KeyError):
            raise NotCanonical(f"Ceramic's stream {self.stream} has another state than one of ours") from None
        return event, content

    async def _post(self, file: bytes) -> None:
        await self._send("POST", "/ceramic/events", {"data": multibase(file)})

    async def _send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        try:
            answer = await self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise ArchiveAway(f"Ceramic does not answer: {type(error).__name__}: {error}") from error
        if answer.is_success or (answer.status_code == 404 and method == "GET"):
            return answer
        raise ArchiveAway(f"Ceramic answered {answer.status_code}: {answer.text[:200]}")
