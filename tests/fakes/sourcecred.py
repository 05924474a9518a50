"""A SourceCred instance's web server: one file, with an ETag, and whatever goes wrong on demand.

The file is shaped as SourceCred 0.11 writes it (credAccounts.js, ledger.js, identity.js). Its people are invented.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

WEEK_MS = 7 * 24 * 3600 * 1000
FIRST_WEEK_MS = 1_767_484_800_000  # 2026-01-04T00:00:00Z, a Sunday: SourceCred's weeks start there.


def discord_alias(user_id: str) -> dict[str, str]:
    """An alias as the Discord plugin makes it."""
    return {"address": f"N\0sourcecred\0discord\0MEMBER\0user\0{user_id}\0", "description": f"discord/{user_id}"}


def github_alias(login: str) -> dict[str, str]:
    """An alias as the GitHub plugin makes it."""
    return {"address": f"N\0sourcecred\0github\0USERLIKE\0USER\0{login}\0", "description": f"github/{login}"}


def account(name: str, cred: Sequence[float], aliases: Sequence[dict[str, str]] = ()) -> dict[str, Any]:
    """One account with its cred per week."""
    identity = str(uuid.uuid5(uuid.NAMESPACE_URL, name))
    return {
        "account": {
            "identity": {
                "id": identity,
                "name": name,
                "subtype": "USER",
                "address": f"N\0sourcecred\0core\0IDENTITY\0{identity}\0",
                "aliases": list(aliases),
            },
            "balance": "0",
            "paid": "0",
            "allocationHistory": [],
            "active": True,
            "payoutAddresses": {},
            "mergedIdentityIds": [],
        },
        "cred": list(cred),
        "totalCred": sum(cred),
    }


def accounts_file(*accounts: dict[str, Any]) -> dict[str, Any]:
    """The file for these accounts; its first and last interval are as long as the longest cred."""
    weeks = max((len(item["cred"]) for item in accounts), default=0)
    starts = [FIRST_WEEK_MS + week * WEEK_MS for week in range(weeks)]
    return {
        "accounts": list(accounts),
        "unclaimedAliases": [],
        "intervals": [{"startTimeMs": start, "endTimeMs": start + WEEK_MS} for start in starts],
    }


class FakeSourceCred:
    """`async with FakeSourceCred(accounts_file(…)) as server:` serves `server.url`/output/accounts.json.

    `requests` are the paths and headers that came; `status`, `body` and `headers` replace what is answered.
    """

    def __init__(self, document: dict[str, Any] | None = None) -> None:
        self.document = accounts_file() if document is None else document
        self.status: int | None = None
        self.body: bytes | None = None
        self.headers: dict[str, str] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.url = ""
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode("latin-1")
            request, *lines = head.rstrip("\r\n").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            path = request.split(" ")[1]
            self.requests.append((path, headers))
            status, extra, body = self._answer(path, headers)
            extra = {"Content-Length": str(len(body)), "Connection": "close", **extra, **self.headers}
            top = "".join(f"{name}: {value}\r\n" for name, value in extra.items())
            writer.write(f"HTTP/1.1 {status} X\r\n{top}\r\n".encode() + body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # The client went away, as it does after an answer too large for it.
        finally:
            writer.close()

    def _answer(self, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        if self.status is not None:
            return self.status, {}, self.body or b""
        if path != "/output/accounts.json":
            return 404, {}, b"not found"
        body = json.dumps(self.document).encode() if self.body is None else self.body
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        if headers.get("if-none-match") == etag:
            return 304, {"ETag": etag}, b""
        return 200, {"ETag": etag, "Content-Type": "application/json"}, body
