"""What a page's requests were answered: counted always, kept by their content when the operator wants it."""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.mirrors.forgotten import Forgotten
from app.mirrors.pages import Reading
from metagov_sdk import Place, Plugin

_HEADERS = ("content-type", "link")
"""What a page may be read by, beside the body. Nothing that could be a secret."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A request and its answer."""

    method: str
    url: str
    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)


@dataclass(slots=True)
class Recorder:
    """Listens to a plugin object's requests during one page."""

    place: Place
    keep: bool
    requests: int = 0
    answers: list[Answered] = field(default_factory=list)

    def listen(self, plugin: Plugin[Any, Any, Any]) -> None:
        """Hear of every request that `plugin.http` sends from now on."""
        client = plugin.http
        hooks = client.event_hooks
        client.event_hooks = {
            "request": [*hooks["request"], self._count],
            "response": [*hooks["response"], self._keep] if self.keep else hooks["response"],
        }

    def leave_out(self, forgotten: Forgotten) -> None:
        """Keep nothing of a page that names one of these."""
        if any(forgotten.are_in(each.body) for each in self.answers):
            self.answers.clear()

    async def _count(self, request: httpx.Request) -> None:
        self.requests += 1

    async def _keep(self, response: httpx.Response) -> None:
        await response.aread()
        headers = {name: response.headers[name] for name in _HEADERS if name in response.headers}
        # The path alone: where the platform is, is the operator's setting.
        url = response.request.url.raw_path.decode()
        self.answers.append(Answered(response.request.method, url, response.status_code, headers, response.content))


_BODIES = text("""
INSERT INTO mirror_bodies (instance_id, sha256, body)
SELECT :instance, * FROM unnest(CAST(:hashes AS bytea[]), CAST(:bodies AS bytea[])) ORDER BY 2
ON CONFLICT DO NOTHING
""")
_ANSWERS = text("""
INSERT INTO mirror_answers (partition, place_sha256, place, answers)
VALUES (:partition, :hash, CAST(:place AS json), CAST(:answers AS json))
ON CONFLICT (partition, place_sha256) DO UPDATE SET answers = excluded.answers, at = now()
""")


async def keep_answers(session: AsyncSession, reading: Reading, recorder: Recorder) -> None:
    """Store what was recorded, if anything, beside the page. Equal bodies are stored once."""
    if not recorder.answers:
        return
    bodies = {hashlib.sha256(each.body).digest(): zlib.compress(each.body, 3) for each in recorder.answers}
    await session.execute(
        _BODIES, {"instance": reading.instance.id, "hashes": list(bodies), "bodies": list(bodies.values())}
    )
    place = json.dumps(asdict(recorder.place), sort_keys=True)
    answers = [
        [each.method, each.url, each.status, each.headers, hashlib.sha256(each.body).hexdigest()]
        for each in recorder.answers
    ]
    await session.execute(
        _ANSWERS,
        {
            "partition": reading.partition.number,
            "hash": hashlib.sha256(place.encode()).digest(),
            "place": place,
            "answers": json.dumps(answers),
        },
    )
