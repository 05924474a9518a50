"""Idempotency-Key: a POST that acts is performed once per key; its repeat gets the first answer again, for 24 hours."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from sqlalchemy import delete, func, text
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.accounts.auth import authenticate
from app.accounts.models import Idempotency
from app.core.asgi import MAX_JSON_BYTES, read_body, send_problem
from app.core.crypto import Vault
from app.core.db import Database
from app.core.errors import Conflict, Invalid, Problem
from app.core.ids import new_id

HEADER = b"idempotency-key"
_KEPT_HEADERS = (b"content-type", b"location")
_PREFIXES = ("/api/internal/", "/api/action/")

# One statement decides: ours (fresh, or abandoned by a request that died), or somebody's (answered, or still at work).
_ACQUIRE = """
INSERT INTO idempotency_keys AS held (id, driver_id, key, fingerprint, locked_until)
VALUES ($1, $2, $3, $4, clock_timestamp() + interval '2 minutes')
ON CONFLICT (driver_id, key) DO UPDATE
    SET id = excluded.id, fingerprint = excluded.fingerprint, answer = NULL,
        locked_until = excluded.locked_until, created_at = clock_timestamp()
    WHERE held.created_at < clock_timestamp() - interval '24 hours'
       OR (held.answer IS NULL AND held.locked_until < clock_timestamp() AND held.fingerprint = excluded.fingerprint)
RETURNING id
"""


def derived_key(driver_id: str, key: str) -> str:
    """What a plugin gets as `idempotency_key`: the driver's key, told apart from other drivers' equal keys."""
    return hashlib.sha256(f"{driver_id}\0{key}".encode()).hexdigest()


class IdempotentPosts:
    """Applies the header to every POST of a driver."""

    def __init__(self, app: ASGIApp, *, db: Callable[[], Database], vault: Vault) -> None:
        self._app = app
        self._db = db
        self._vault = vault

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].startswith(_PREFIXES):
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        key = headers.get(HEADER)
        authorization = headers.get(b"authorization", b"").decode("latin-1")
        if key is None or not authorization:
            await self._app(scope, receive, send)
            return
        try:
            await self._once(key.decode("latin-1"), authorization, headers, scope, receive, send)
        except Problem as problem:
            await send_problem(send, problem)

    async def _once(
        self,
        key: str,
        authorization: str,
        headers: dict[bytes, bytes],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        if not 1 <= len(key) <= 255 or not key.isprintable():
            raise Invalid("the header Idempotency-Key should be 1 to 255 printable characters")
        driver_id = (await authenticate(self._db(), authorization, None)).driver_id
        body = await read_body(scope, receive, MAX_JSON_BYTES, "a JSON body may be at most 1 MiB")
        community = headers.get(b"x-metagov-community", b"")
        asked = [scope["path"].encode(), scope["query_string"], community, body]
        fingerprint = hashlib.sha256(b"".join(b"%d:%s" % (len(part), part) for part in asked)).digest()
        mine = new_id("idk")
        if await self._db().pool.fetchval(_ACQUIRE, mine, driver_id, key, fingerprint) is None:
            await self._repeat(driver_id, key, fingerprint, send)
            return

        async def replay() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        answer: list[Message] = []

        async def keep(message: Message) -> None:
            answer.append(message)

        try:
            await self._app(scope, replay, keep)
        except BaseException:
            await self._release(mine)
            raise
        await self._store(mine, answer)
        for message in answer:
            await send(message)

    async def _repeat(self, driver_id: str, key: str, fingerprint: bytes, send: Send) -> None:
        row = await self._db().pool.fetchrow(
            "SELECT fingerprint, answer FROM idempotency_keys WHERE driver_id = $1 AND key = $2", driver_id, key
        )
        if row is not None and row["fingerprint"] != fingerprint:
            raise Invalid("this Idempotency-Key was used for a different request; use a fresh one")
        if row is None or row["answer"] is None:
            raise Conflict(
                "the first request with this Idempotency-Key is still being worked on", headers={"retry-after": "1"}
            )
        status, headers, body = self._vault.open(row["answer"])
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        raw += [(b"content-length", str(len(body.encode())).encode()), (b"idempotent-replayed", b"true")]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": body.encode()})

    async def _store(self, row: str, answer: list[Message]) -> None:
        status = answer[0]["status"]
        if status in (401, 409, 429) or status >= 500:
            # Nothing was settled: the same request may succeed next time.
            await self._release(row)
            return
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in answer[0]["headers"]
            if name.lower() in _KEPT_HEADERS
        ]
        body = b"".join(message.get("body", b"") for message in answer[1:])
        sealed = self._vault.seal([status, headers, body.decode()])
        await self._db().pool.execute("UPDATE idempotency_keys SET answer = $2 WHERE id = $1", row, sealed)

    async def _release(self, row: str) -> None:
        await self._db().pool.execute("DELETE FROM idempotency_keys WHERE id = $1 AND answer IS NULL", row)


async def forget_old_keys(db: Database) -> None:
    """Drop answers older than 24 hours."""
    async with db.begin() as session:
        await session.execute(
            delete(Idempotency).where(Idempotency.created_at < func.now() - text("interval '24 hours'"))
        )
