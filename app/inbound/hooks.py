"""The webhook route, pure ASGI: verify, store, answer. No framework machinery on this path."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

import structlog
from starlette.types import Receive, Scope, Send

from app.core.asgi import (
    HOOKS_PREFIX,
    HOOKS_ROUTE,
    count_request,
    database_away,
    encode_problem,
    read_body,
    request_id,
    send_problem,
)
from app.core.db import is_away
from app.core.errors import NotFound, Problem, TooMany, Unavailable
from app.core.limits import TokenBuckets
from app.core.metrics import receipts_of
from app.core.quick_posts import Answer, Promise, RawHeaders
from app.core.wake import Wake
from app.host.binding import InstanceData
from app.inbound.store import Incoming, Intake, Verdict
from app.inbound.targets import Address, Targets
from app.inbound.wakes import apply_wakes
from metagov_sdk import Headers, HookRequest, Reply, Unsigned, WebhookSpec

MAX_HOOK_BYTES = 25 * 1024 * 1024
MAX_BYTES_IN_FLIGHT = 64 * 1024 * 1024
_LONGEST_KEY = 200
_STALE_TRIES = 3
_MOST_ROUTES = 10_000

ResultT = TypeVar("ResultT")
_Encoded: TypeAlias = tuple[int, list[tuple[bytes, bytes]], bytes]
"""An answer as ASGI has it: status, headers, body."""

_log = structlog.get_logger(__name__)


class HooksApp:
    """Answers `POST /api/hooks/<community>/<plugin>[/<hook>]` and `POST /api/hooks/<plugin>`."""

    def __init__(self, targets: Targets, wake: Wake) -> None:
        self._targets = targets
        self._wake = wake
        self._intake = Intake(targets.db)
        self._in_flight = 0
        self._wakes = TokenBuckets(rate=1, burst=30)
        self._routes: dict[str, tuple[Address, WebhookSpec]] = {}

    def take_post(self, path: str, headers: RawHeaders, body: bytes) -> Answer | Promise | None:
        """Take a plain webhook at once: at a community's URL, genuine by what is at hand, for one instance alone.

        All else, and all that goes wrong, is the application's: it tries again from the start and has the words for it.
        """
        try:
            return self._take_post(path, headers, body)
        except Exception:
            # Runs inside the HTTP parser, where nothing may be raised. The application meets the same error again.
            return None

    def _take_post(self, path: str, raw: RawHeaders, body: bytes) -> Answer | Promise | None:
        started = time.perf_counter()
        address, hook = self._routes.get(path) or self._route(path)
        if self._in_flight + len(body) > MAX_BYTES_IN_FLIGHT:
            return None
        request = HookRequest(body, _decoded(raw), address.hook)
        found = self._targets.verified_at_hand(address, hook, request)
        if found is None or len(found) != 1:
            return None
        reply = _pure(hook.reply, request) if hook.reply else None
        if reply is not None and not reply.store:
            return _observed(_encode(reply), raw, started)
        storing = self._intake.add(_incoming(found[0], hook, _key(hook, request), request))
        self._in_flight += len(body)

        def answer() -> Answer | None:
            self._in_flight -= len(body)
            if storing.cancelled():
                return None
            if (error := storing.exception()) is not None:
                # Whether it is stored, nobody knows: the platform repeats it, as it would after any answer but a 2xx.
                return _observed(encode_problem(database_away()), raw, started) if is_away(error) else None
            verdict = storing.result()
            return None if verdict == "stale" else _observed(self._taken(address, verdict, reply), raw, started)

        return Promise(storing, answer)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        held = _Held(self)
        try:
            status, headers, body = await self._answer(scope, receive, held)
        except Problem as problem:
            await send_problem(send, problem)
            return
        finally:
            self._in_flight -= held.size
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive, held: _Held) -> _Encoded:
        address, hook = self._routes.get(scope["path"]) or self._route(scope["path"])
        if address.community is not None:
            # Cheap refusal before a body of up to 25 MiB is read for a community that does not exist.
            await self._targets.enabled(address)
        body = await read_body(scope, receive, MAX_HOOK_BYTES, "a webhook may be at most 25 MiB", held.add)
        request = HookRequest(body, _decoded(scope["headers"]), address.hook)
        if isinstance(hook.verify, Unsigned):
            await self._note(address, hook, request)
            return _WOKEN
        found = await self._targets.verified(address, hook, request)
        reply = _pure(hook.reply, request) if hook.reply else None
        if reply is not None and not reply.store:
            return _encode(reply)
        return self._taken(address, await self._store(address, hook, request, found), reply)

    def _taken(self, address: Address, verdict: Verdict, reply: Reply | None) -> _Encoded:
        """What follows a webhook that is stored, or was before; returns its answer."""
        receipts_of(address.plugin, verdict).inc()
        if verdict == "stored":
            self._wake.poke("receipts")
        if reply is not None:
            return _encode(reply)
        return _STORED if verdict == "stored" else _REPEATED

    def _route(self, path: str) -> tuple[Address, WebhookSpec]:
        """What a path names, kept at hand. Raises NotFound."""
        address = parse_address(path)
        if len(self._routes) >= _MOST_ROUTES:
            self._routes.clear()
        route = self._routes[path] = address, self._targets.spec(address)
        return route

    def hold(self, size: int) -> None:
        """Count bytes of a webhook that is not yet stored. Raises Unavailable past the bound for all of them."""
        if self._in_flight + size > MAX_BYTES_IN_FLIGHT:
            raise Unavailable("too many webhooks are in flight; try again")
        self._in_flight += size

    async def _store(
        self, address: Address, hook: WebhookSpec, request: HookRequest, found: Sequence[InstanceData]
    ) -> Verdict:
        """One receipt per instance, in one statement. Instances that changed meanwhile are verified again."""
        key = _key(hook, request)
        for _ in range(_STALE_TRIES):
            if not found:
                return "repeated"
            verdicts = await self._intake.store([_incoming(data, hook, key, request) for data in found])
            if "stale" not in verdicts:
                return "stored" if "stored" in verdicts else "repeated"
            self._targets.forget(address)
            found = await self._targets.verified(address, hook, request)
        raise Unavailable("the instance is being changed; try again")

    async def _note(self, address: Address, hook: WebhookSpec, request: HookRequest) -> None:
        """An unsigned hook: it can make us look again, and nothing else."""
        for data in await self._targets.enabled(address):
            if not self._wakes.try_take(data.id):
                raise TooMany("too many hints; slow down", headers={"retry-after": "5"})
            if await apply_wakes(self._targets.db, self._targets.host, data, hook, request):
                self._wake.poke("polls", "processes")


class _Held:
    """The bytes that one request holds."""

    __slots__ = ("_app", "size")

    def __init__(self, app: HooksApp) -> None:
        self._app = app
        self.size = 0

    def add(self, size: int) -> None:
        self._app.hold(size)
        self.size += size


def _decoded(headers: RawHeaders) -> Headers:
    return Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers])


def _observed(encoded: _Encoded, raw: RawHeaders, started: float) -> Answer:
    """A quick answer, counted, with its request's id as `Observe` would give it."""
    status, headers, body = encoded
    count_request("POST", HOOKS_ROUTE, status, time.perf_counter() - started)
    return Answer(status, [*headers, (b"x-request-id", request_id(raw))], body)


def _incoming(data: InstanceData, hook: WebhookSpec, key: str | None, request: HookRequest) -> Incoming:
    return Incoming(data.id, data.generation, hook.slug, key, request.headers.raw, request.body, hook.ordered)


def _encode(reply: Reply) -> _Encoded:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers]
    headers.append((b"content-length", str(len(reply.body)).encode()))
    return reply.status, headers, reply.body


_STORED = _encode(Reply.json({"status": "stored"}, status=202))
_REPEATED = _encode(Reply.json({"status": "duplicate"}, status=200))
_WOKEN = _encode(Reply.json({"status": "noted"}, status=202))


def parse_address(path: str) -> Address:
    """What a hook path names. Raises NotFound."""
    parts = path.removeprefix(HOOKS_PREFIX).split("/")
    if not all(parts) or len(parts) > 3 or "\0" in path:
        raise NotFound("there is no webhook at this path")
    if len(parts) == 1:
        return Address(None, parts[0], "")
    return Address(parts[0], parts[1], parts[2] if len(parts) == 3 else "")


def _key(hook: WebhookSpec, request: HookRequest) -> str | None:
    """The dedupe key, with the hook's slug before it; long keys by their hash."""
    key = _pure(hook.dedupe, request) if hook.dedupe else None
    if key is None:
        return None
    if len(key) > _LONGEST_KEY or not key.isprintable():
        key = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return f"hook:{hook.slug}:{key}"


def _pure(function: Callable[[HookRequest], ResultT | None], request: HookRequest) -> ResultT | None:
    """What the plugin's pure function says; None when the bytes are more than it can take."""
    try:
        return function(request)
    except Exception as error:
        # The signature holds, so the webhook is kept: its handler will say what is wrong with it.
        _log.warning("a webhook could not be read", hook=request.hook, error=type(error).__name__)
        return None
