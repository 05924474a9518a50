"""Discord's own polls as a process. Source: docs.discord.com/developers/resources/poll."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

from pydantic import AfterValidator, Field, JsonValue

from metagov_sdk import Completed, Failed, Pending, Received, Signal, Status, Step
from metagov_sdk.ballot import BallotOutcome, BallotParams, BallotProcess, BallotState, Marks, Vote
from metagov_sdk.ballot.params import readable
from metagov_sdk.errors import Invalid
from plugins.discord.api import POLL_EXPIRED, UNKNOWN_CHANNEL, UNKNOWN_MESSAGE, Refused
from plugins.discord.drawing import SILENT
from plugins.discord.models import LONGEST_TEXT, Snowflake, storable
from plugins.discord.posts import find_message, post_message
from plugins.discord.text import escape
from plugins.discord.vote import DiscordOutcome

if TYPE_CHECKING:
    from plugins.discord.plugin import Discord

MOST_HOURS = 768
"""32 days."""
USUAL_HOURS = 24
OBSERVED, GONE = "observed", "gone"
PAGE = 100
_HOUR = timedelta(hours=1)
_LONGEST_ID = 100

Answer = Annotated[str, Field(min_length=1, max_length=55), AfterValidator(readable)]
Question = Annotated[str, Field(min_length=1, max_length=300), AfterValidator(readable)]


class DiscordPollParams(BallotParams):
    """A poll of Discord's own. Voters are Discord's user ids."""

    channel: Snowflake
    """The channel or thread, of the instance's own server, that it is posted in."""
    title: Question
    """The question; at most 300 characters."""
    options: Annotated[tuple[Answer, ...], Field(min_length=1, max_length=10)]
    """The answers: at most 10, of at most 55 characters each."""
    kind: Literal["single", "multiple"] = "single"
    """One answer for each voter, or several."""
    max_choices: None = None
    """Not offered: Discord lets voters take as many answers as there are, or one."""
    details: Annotated[str, Field(max_length=LONGEST_TEXT), AfterValidator(storable)] | None = None
    """What stands above the poll."""
    duration: Annotated[int, Field(strict=True, ge=1, le=MOST_HOURS)] | None = None
    """How many hours it is open, 1 to 768 (32 days); 24 when neither this nor `closing_at` is given."""

    def hours(self, now: datetime) -> int:
        """How long Discord is told to keep it open: whole hours, and no less than until `closing_at`."""
        if self.closing_at is None:
            return self.duration or USUAL_HOURS
        return min(MOST_HOURS, max(1, math.ceil((self.closing_at - now) / _HOUR)))


class DiscordPollState(BallotState):
    """An open poll, and the votes as they were last seen."""

    channel: str
    message_id: str
    counts: dict[int, int] = Field(default_factory=dict)
    """Discord's own count for each answer, by its number from 1, when the votes were read."""
    position: int = 0
    """Of the last observation that brought news."""


class DiscordPoll(BallotProcess[DiscordPollParams, DiscordPollState, DiscordOutcome]):
    """A poll of Discord's own. Votes are read now and then, and a last time when it closes; those who may not vote can
    click, and are left out of the outcome.
    """

    name = "poll"
    in_time: ClassVar[str] = "as last observed"
    observe_every: ClassVar[timedelta | None] = timedelta(seconds=30)

    @property
    def discord(self) -> Discord:
        """The bound plugin."""
        return cast("Discord", self.plugin)

    @classmethod
    def check(cls, params: DiscordPollParams, now: datetime) -> None:
        """Refuse a deadline that Discord cannot keep, or two that contradict each other."""
        super().check(params, now)
        if len(_content(params.details, "")) > LONGEST_TEXT - _LONGEST_ID:
            raise Invalid("/details", "the message has no room for so much, with its markup made harmless")
        if params.closing_at is None:
            return
        if params.duration is not None:
            raise Invalid("/duration", "give either duration or closing_at")
        if params.closing_at - now > MOST_HOURS * _HOUR:
            raise Invalid("/closing_at", "Discord keeps a poll open for 32 days at most")

    async def start(self, params: DiscordPollParams) -> Step[DiscordPollState, DiscordOutcome]:
        """Post the poll."""
        await self.discord.check_channel(params.channel, "/channel")
        answers: list[JsonValue] = [{"poll_media": {"text": option}} for option in params.options]
        body: dict[str, JsonValue] = {
            "content": _content(params.details, self.id),
            "allowed_mentions": SILENT,
            "poll": {
                "question": {"text": params.title},
                "answers": answers,
                "duration": params.hours(self.now),
                "allow_multiselect": params.kind == "multiple",
            },
        }
        message = await post_message(self.discord, params.channel, body, self.id)
        return self._opened(params, message)

    async def find_started(self, params: DiscordPollParams) -> Step[DiscordPollState, DiscordOutcome] | None:
        """The bot's poll whose text names the process."""
        mark = _mark(self.id)
        found = await find_message(
            self.discord, params.channel, lambda message: "poll" in message and message["content"].endswith(mark)
        )
        return None if found is None else self._opened(params, found)

    def _opened(self, params: DiscordPollParams, message: dict[str, Any]) -> Pending[DiscordPollState, DiscordOutcome]:
        state = DiscordPollState(rules=params.rules(), channel=params.channel, message_id=message["id"])
        ends = params.closing_at or datetime.fromisoformat(message["poll"]["expiry"])
        url = self.discord.message_url(state.channel, state.message_id)
        return Pending(state, outcome=self.tally(state), key=state.message_id, url=url, closing_at=ends)

    async def observe(self, state: DiscordPollState, final: bool) -> Signal | None:
        """Who has voted for what; None while Discord's counts are as they were.

        Before the last look the poll is ended, so that nothing changes after it.
        """
        if final:
            await self._expire(state)
        try:
            message = await self.discord.ask("GET", f"channels/{state.channel}/messages/{state.message_id}")
        except Refused as error:
            if error.code in (UNKNOWN_MESSAGE, UNKNOWN_CHANNEL):
                return Signal(self.name, state.message_id, GONE)
            raise
        poll = message["poll"]
        counts = {str(each["id"]): each["count"] for each in poll["results"]["answer_counts"] if each["count"]}
        # Somebody may have ended it in Discord. A last look is taken when the gateway closes it anyway.
        ended = not final and datetime.fromisoformat(poll["expiry"]) <= self.now
        if not final and not ended and counts == {str(answer): count for answer, count in state.counts.items()}:
            return None
        votes: dict[str, JsonValue] = {answer: await self._voters(state, answer) for answer in sorted(counts)}
        return Signal(self.name, state.message_id, OBSERVED, {"votes": votes, "counts": counts, "ended": ended})

    async def _voters(self, state: DiscordPollState, answer: str) -> list[JsonValue]:
        """All who chose an answer, page by page."""
        path = f"channels/{state.channel}/polls/{state.message_id}/answers/{answer}"
        voters: list[JsonValue] = []
        after = "0"
        while True:
            page = (await self.discord.ask("GET", path, query={"limit": str(PAGE), "after": after}))["users"]
            voters += [user["id"] for user in page]
            if len(page) < PAGE:
                return voters
            after = max((user["id"] for user in page), key=int)

    async def render(self, state: DiscordPollState, status: Status) -> None:
        """Discord draws the poll; all there is to do is to end it there, if it was closed early."""
        if status == "completed":
            await self._expire(state)

    async def _expire(self, state: DiscordPollState) -> None:
        try:
            await self.discord.ask("POST", f"channels/{state.channel}/polls/{state.message_id}/expire")
        except Refused as error:
            if error.code not in (POLL_EXPIRED, UNKNOWN_MESSAGE, UNKNOWN_CHANNEL):
                raise

    @classmethod
    def on_signals(cls, state: DiscordPollState, signals: Sequence[Received]) -> Step[DiscordPollState, DiscordOutcome]:
        """The latest look replaces the earlier ones: a vote that was taken back is gone."""
        for signal in signals:
            if signal.kind == GONE:
                return Failed({"message_deleted": "the poll's message was deleted in Discord"})
            if signal.kind == OBSERVED and signal.position > state.position:
                counts = {int(answer): count for answer, count in signal.data["counts"].items()}
                seen = {"votes": _read_votes(state, signal), "counts": counts, "position": signal.position}
                state = state.model_copy(update=seen)
                if signal.data.get("ended") is True:
                    return Completed(cls.tally(state))
        return Pending(state, outcome=cls.tally(state))

    @classmethod
    def tally(cls, state: DiscordPollState) -> DiscordOutcome:
        """The count, and where the poll is."""
        counted: BallotOutcome = super().tally(state)
        return BallotOutcome.extended(counted, DiscordOutcome, channel=state.channel, message_id=state.message_id)


def _read_votes(state: DiscordPollState, signal: Received) -> dict[str, Vote]:
    """By voter. Who changed their vote between two pages may be in two lists: of a single vote, the later counts."""
    chosen: dict[str, list[int]] = {}
    for answer, voters in sorted((int(key), voters) for key, voters in signal.data["votes"].items()):
        for voter in voters:
            if state.rules.may_vote(voter) and answer <= len(state.rules.options):
                chosen.setdefault(voter, []).append(answer - 1)
    last = slice(-1, None) if state.rules.kind == "single" else slice(None)
    return {voter: Vote(signal.position, Marks(tuple(positions[last]))) for voter, positions in chosen.items()}


def _content(details: str | None, process_id: str) -> str:
    return f"{escape(details.strip())}\n{_mark(process_id)}".lstrip() if details else _mark(process_id)


def _mark(process_id: str) -> str:
    """A line in small print by which the poll is found again: a poll has no field that an app could write to."""
    return f"-# poll {process_id}"
