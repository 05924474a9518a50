"""ceramic-one's HTTP interface as its published page has it: events as CAR files in, streams' states out.

It reads what it is sent with somebody else's CBOR, checks ids and signatures, and applies what events say.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.fakes.github_git import serve

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"


class Refused(Exception):
    """The event is not one."""


class FakeCeramic:
    """Events by their ids, and the state of each stream. `lag`: how many looks an event takes to show."""

    def __init__(self) -> None:
        self.url = ""
        self.events: dict[str, bytes] = {}
        self.streams: dict[str, dict[str, Any]] = {}
        self.lag = 0
        self._hidden: list[tuple[str, dict[str, Any]]] = []

    def app(self) -> Starlette:
        """The interface."""
        return Starlette(
            routes=[
                Route("/ceramic/events", self._post, methods=["POST"]),
                Route("/ceramic/events/{event_id}", self._event),
                Route("/ceramic/streams/{stream_id}", self._stream),
            ]
        )

    async def _post(self, request: Request) -> Response:
        data = (await request.json())["data"]
        try:
            if data[0] != "u":
                raise Refused("not base64url")
            self._take(base64.urlsafe_b64decode(data[1:] + "=" * (-len(data[1:]) % 4)))
        except Refused as error:
            return JSONResponse({"message": str(error)}, 400)
        return Response(status_code=204)

    async def _event(self, request: Request) -> Response:
        event_id = request.path_params["event_id"]
        if event_id not in self.events:
            return Response("Event not found", 404)
        data = "u" + base64.urlsafe_b64encode(self.events[event_id]).decode().rstrip("=")
        return JSONResponse({"id": event_id, "data": data})

    async def _stream(self, request: Request) -> Response:
        if self._hidden and self.lag:
            self.lag -= 1
        while self._hidden and not self.lag:
            name, shown = self._hidden.pop(0)
            self.streams[name] = shown
        state = self.streams.get(request.path_params["stream_id"])
        return Response("Stream not found", 404) if state is None else JSONResponse(state)

    def _take(self, car: bytes) -> None:
        header, *sections = _sections(car)
        (root,) = cbor2.loads(header, tag_hook=_link)["roots"]
        blocks = {}
        for section in sections:
            cid, block = section[: _cid_length(section)], section[_cid_length(section) :]
            if hashlib.sha256(block).digest() != cid[-32:]:
                raise Refused("a block is not what its id says")
            blocks[cid] = block
        event = cbor2.loads(blocks[root], tag_hook=_link)
        if "signatures" in event:
            payload = cbor2.loads(blocks[event["payload"]], tag_hook=_link)
            self._apply(root, payload, _signer(event))
        else:
            state = {
                "id": _stream_id(root),
                "event_cid": _text(root),
                "controller": event["header"]["controllers"][0],
                "dimensions": {},
                "data": _multibase({"content": event["data"], "metadata": {}}),
            }
            if event["data"] is not None or event["header"]["sep"] != "model" or not event["header"]["model"]:
                raise Refused("not an init event of a model instance")
            self.streams.setdefault(_stream_id(root), state)
        self.events[_text(root)] = car

    def _apply(self, root: bytes, payload: dict[str, Any], signer: str) -> None:
        name = _stream_id(payload["id"])
        state = self.streams.get(name)
        if state is None:
            raise Refused("no such stream")
        if state["controller"] != signer:
            raise Refused("signed by somebody else")
        if state["event_cid"] != _text(payload["prev"]):
            raise Refused("does not follow from the newest event")
        (patch,) = payload["data"]
        assert (patch["op"], patch["path"]) == ("replace", "")
        new = {**state, "event_cid": _text(root), "data": _multibase({"content": patch["value"], "metadata": {}})}
        if self.lag:
            self._hidden.append((name, new))
        else:
            self.streams[name] = new


def _signer(envelope: dict[str, Any]) -> str:
    (signature,) = envelope["signatures"]
    protected = json.loads(signature["protected"])
    did, _, name = protected["kid"].partition("#")
    number = 0
    for digit in name[1:]:
        number = number * 58 + _BASE58.index(digit)
    raw = number.to_bytes(34, "big")
    assert raw[:2] == b"\xed\x01"
    assert protected["alg"] == "EdDSA"
    signed = b".".join(
        base64.urlsafe_b64encode(part).rstrip(b"=") for part in (signature["protected"], envelope["payload"])
    )
    try:
        Ed25519PublicKey.from_public_bytes(raw[2:]).verify(signature["signature"], signed)
    except InvalidSignature:
        raise Refused("the signature does not fit") from None
    return str(did)


def _sections(car: bytes) -> list[bytes]:
    stream, found = io.BytesIO(car), []
    while byte := stream.read(1):
        length = shift = 0
        while True:
            length |= (byte[0] & 0x7F) << shift
            if byte[0] < 0x80:
                break
            shift += 7
            byte = stream.read(1)
        found.append(stream.read(length))
    return found


def _cid_length(section: bytes) -> int:
    # Version, codec (one byte, or two with the upper bit), hash and its length, SHA-256.
    return 1 + (2 if section[1] >= 0x80 else 1) + 2 + 32


def _link(tag: Any, immutable: bool) -> bytes:
    assert tag.tag == 42
    assert tag.value[:1] == b"\0"
    return bytes(tag.value[1:])


def _text(cid: bytes) -> str:
    return "b" + base64.b32encode(cid).decode().lower().rstrip("=")


def _stream_id(init: bytes) -> str:
    number, text = int.from_bytes(b"\xce\x01\x03" + init, "big"), ""
    while number:
        number, digit = divmod(number, 36)
        text = _BASE36[digit] + text
    return "k" + text


def _multibase(value: Any) -> str:
    return "m" + base64.b64encode(json.dumps(value).encode()).decode().rstrip("=")


@contextlib.asynccontextmanager
async def open_ceramic() -> AsyncIterator[FakeCeramic]:
    """The interface on loopback."""
    fake = FakeCeramic()
    async with serve(fake.app()) as url:
        fake.url = url
        yield fake
