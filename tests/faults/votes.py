"""A plugin with one of everything a worker does: a webhook, a poll, a process that renders and has effects.

Its platform is a folder: what a call does there stands in a file, a JSON object per line, whatever becomes of the call.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from pydantic import JsonValue, SecretStr

from metagov_sdk import (
    Checkpoint,
    CloseReason,
    Completed,
    Config,
    Do,
    Event,
    HookRequest,
    Model,
    Pending,
    Plugin,
    Process,
    Received,
    Signal,
    State,
    Status,
    Step,
    by_header,
    config,
    hmac_sha256,
    poll,
    webhook,
)


class VotesConfig(Config):
    """The secret that webhooks are signed with, and the platform."""

    webhook_secret: SecretStr
    platform: str
    """A folder."""


class Count(State):
    """What the instance remembers."""

    handled: int = 0


class Heard(Event):
    """A webhook was handled."""

    event_type: ClassVar[str] = "heard"
    text: str


class News(Event):
    """The poll has found a line of the platform's news."""

    event_type: ClassVar[str] = "news"
    text: str


class Votes(Plugin[VotesConfig, Count]):
    """Emits without keys, so that whatever is done twice shows."""

    name = "votes"

    def write(self, file: str, **line: JsonValue) -> None:
        """Have something happen on the platform."""
        with (Path(self.config.platform) / file).open("a") as lines:
            lines.write(json.dumps(line) + "\n")

    def read(self, file: str) -> list[dict[str, Any]]:
        """What has happened there."""
        path = Path(self.config.platform) / file
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @webhook(verify=hmac_sha256(config("webhook_secret"), header="X-Signature"), dedupe=by_header("X-Delivery"))
    async def receive(self, request: HookRequest) -> None:
        """One event and one change of the state; with `vote`, a ballot for that process too."""
        order = request.json()
        self.emit(Heard(text=order["text"]))
        self.change(lambda state: Count(handled=state.handled + 1))
        if "vote" in order:
            ballot = {"voter": order["voter"], "choice": order["choice"]}
            self.emit(Signal("vote", order["vote"], "ballot", ballot))

    @poll(every=timedelta(seconds=1))
    async def news(self, cursor: JsonValue) -> AsyncIterator[Checkpoint]:
        """Every line of the news, once."""
        seen = cursor if isinstance(cursor, int) else 0
        for number, line in enumerate(self.read("news")[seen:], seen + 1):
            self.emit(News(text=line["text"]))
            yield Checkpoint(number)


class Question(Model):
    """How long is voted, and by how many at most."""

    seconds: float
    voters: int


class Ballots(State):
    """Each voter's choice with its place in the order of arrival."""

    voters: int = 0
    choices: dict[str, tuple[int, str]] = {}  # noqa: RUF012 -- pydantic copies it


class Tally(Model):
    """Ballots per choice."""

    counts: dict[str, int]


class Vote(Process[Question, Ballots, Tally]):
    """Ends when all have voted, or at its closing time; an effect says so on the platform."""

    name = "vote"
    render_every = timedelta(seconds=0.5)

    @property
    def platform(self) -> Votes:
        plugin = self.plugin
        assert isinstance(plugin, Votes)
        return plugin

    async def start(self, params: Question) -> Step[Ballots, Tally]:
        """Open it: the one thing that must not happen twice."""
        closing_at = self.now + timedelta(seconds=params.seconds)
        self.platform.write("opened", id=self.id, closing_at=closing_at.isoformat())
        return self._opened(params, closing_at)

    async def find_started(self, params: Question) -> Step[Ballots, Tally] | None:
        """What an earlier start has opened."""
        for line in self.platform.read("opened"):
            if line["id"] == self.id:
                return self._opened(params, datetime.fromisoformat(line["closing_at"]))
        return None

    def _opened(self, params: Question, closing_at: datetime) -> Pending[Ballots, Tally]:
        ballots = Ballots(voters=params.voters)
        return Pending(ballots, outcome=tally(ballots), key=self.id, closing_at=closing_at)

    @classmethod
    def on_signal(cls, state: Ballots, signal: Received) -> Step[Ballots, Tally]:
        """The latest ballot of each voter counts."""
        voter, choice = signal.data["voter"], signal.data["choice"]
        if state.choices.get(voter, (-1, ""))[0] > signal.position:
            return Pending(state)
        state = Ballots(voters=state.voters, choices={**state.choices, voter: (signal.position, choice)})
        if len(state.choices) == state.voters:
            return cls.close(state, "driver")
        return Pending(state, outcome=tally(state))

    @classmethod
    def close(cls, state: Ballots, why: CloseReason) -> Completed[Tally]:
        """The end."""
        return Completed(tally(state), then=(Do("tell", dict(tally(state).counts)),))

    async def render(self, state: Ballots, status: Status) -> None:
        """Show whether it is over."""
        self.platform.write("shown", id=self.id, status=status)

    async def tell(self, **counts: int) -> None:
        """Announce the result."""
        self.platform.write("told", id=self.id, key=self.idempotency_key, counts=dict(counts))


def tally(state: Ballots) -> Tally:
    """Count the choices."""
    counts: dict[str, int] = {}
    for _, choice in state.choices.values():
        counts[choice] = counts.get(choice, 0) + 1
    return Tally(counts=counts)
