"""What Slack's votes have in common: how they are posted, found again, redrawn, and how people are answered."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, Generic, NamedTuple

from pydantic import Field, JsonValue
from typing_extensions import TypeVar

from metagov_sdk import PluginError, Status, Step
from metagov_sdk.ballot import BallotOutcome, ChatBallotParams, ChatBallotProcess, ChatBallotState
from metagov_sdk.errors import Invalid
from plugins.slack.api import SlackApi, SlackRefused
from plugins.slack.blocks import Drawing, check_size, escape
from plugins.slack.models import UserId

METADATA = "metagov_vote"
"""The event type in the metadata of a vote's message; its payload names the process."""
_MOST_IN_DIRECT = 8
_SEARCHED = timedelta(days=2)
_LONGEST_ID = "x" * 64
_PLACE = re.compile(r"metagov:([a-z-]{1,30}):([A-Za-z0-9_-]{1,64}):([0-9]{1,4})")
_CHANNEL = re.compile(r"[CDG][A-Z0-9]{2,30}")
_PERSON = re.compile(r"[UW][A-Z0-9]{1,30}")
_GONE = frozenset(
    {"cant_update_message", "channel_not_found", "edit_window_closed", "is_archived", "message_not_found"}
)
_UNSEEN = frozenset({"channel_not_found", "not_in_channel", "user_not_in_channel"})


class SlackVoteParams(ChatBallotParams):
    """A vote in a message."""

    eligible_voters: Annotated[tuple[UserId, ...], Field(min_length=1, max_length=100_000)] | None = None
    """The only ones who may vote, by their user ids; absent: whoever sees it and is not ineligible. Without a `channel`
    the vote is posted in the direct message with exactly them, and they may be eight at most."""
    ineligible_voters: Annotated[tuple[UserId, ...], Field(max_length=100_000)] | None = None
    """Who may not vote, by their user ids, even if named as eligible."""


class Clicked(NamedTuple):
    """A click on a vote: on its nth row of things to click, and there on the option at this position."""

    process: str
    process_id: str
    row: int
    option: int
    voter: str
    reply: dict[str, JsonValue]


ParamsT = TypeVar("ParamsT", bound=SlackVoteParams)
StateT = TypeVar("StateT", bound=ChatBallotState)
OutcomeT = TypeVar("OutcomeT", bound=BallotOutcome)


class SlackVote(ChatBallotProcess[ParamsT, StateT, OutcomeT], Generic[ParamsT, StateT, OutcomeT]):
    """A vote in a message.

    Clicks are addressed by the process's id, which the message's blocks carry: one that comes before `start` has
    answered finds its vote all the same.
    """

    render_every = timedelta(seconds=2)
    listed: ClassVar[str]
    """Which parameter's length decides whether a message has room for the vote."""

    @classmethod
    def draw(cls, place: str, state: StateT, status: Status) -> Drawing:
        """The message as it should be. Pure."""
        raise NotImplementedError(f"{cls.__name__} must define draw")

    @classmethod
    def state_of(cls, params: ParamsT, channel: str, message_ts: str) -> StateT:
        """The state of a vote that was just posted. Pure."""
        raise NotImplementedError(f"{cls.__name__} must define state_of")

    @classmethod
    def check(cls, params: ParamsT, now: datetime) -> None:
        """Refuse what Slack cannot show, and a vote that has nowhere to be."""
        super().check(params, now)
        if params.channel is None and params.eligible_voters is None:
            raise Invalid("/channel", "name a channel, or eligible_voters to ask them in a direct message")
        if params.channel is None and len(params.eligible_voters or ()) > _MOST_IN_DIRECT:
            raise Invalid("/eligible_voters", f"a direct message has {_MOST_IN_DIRECT} people at most: name a channel")
        cls.check_room(params)
        check_size(cls.draw(f"metagov:{cls.name}:{_LONGEST_ID}", cls.state_of(params, "", ""), "pending"), cls.listed)

    @classmethod
    def check_room(cls, params: ParamsT) -> None:
        """Refuse what has no room in the blocks one by one. Raises Invalid."""
        raise NotImplementedError(f"{cls.__name__} must define check_room")

    async def start(self, params: ParamsT) -> Step[StateT, OutcomeT]:
        """Post the message."""
        # It may have waited for a worker beyond its time; then it fails rather than close with nobody asked.
        self.check(params, self.now)
        channel = await self._channel(params)
        drawing = self.draw(self._place, self.state_of(params, channel, ""), "pending")
        posted = await self._api.call_joining(
            "chat.postMessage",
            channel=channel,
            text=drawing.text,
            blocks=drawing.blocks,
            metadata={"event_type": METADATA, "event_payload": {"process": self.id}},
            unfurl_links=False,
            unfurl_media=False,
        )
        return await self._posted(params, str(posted["channel"]), str(posted["ts"]))

    async def find_started(self, params: ParamsT) -> Step[StateT, OutcomeT] | None:
        """Look for a message that carries the process's id, among those of the last two days."""
        channel = await self._channel(params)
        oldest = f"{(self.now - _SEARCHED).timestamp():.6f}"
        pages = self._api.pages(
            "conversations.history", "messages", channel=channel, oldest=oldest, include_all_metadata=True
        )
        async for messages in pages:
            for message in messages:
                if _process_of(message) == self.id:
                    return await self._posted(params, channel, str(message["ts"]))
        return None

    async def render(self, state: StateT, status: Status) -> None:
        """Draw the message anew. One that can no longer be changed is left as it is: the vote goes on without it."""
        drawing = self.draw(self._place, state, status)
        try:
            await self._api.call(
                "chat.update", channel=state.channel, ts=state.message_id, text=drawing.text, blocks=drawing.blocks
            )
        except SlackRefused as refused:
            if refused.error not in _GONE:
                raise
            self.plugin.log.info("a vote's message cannot be redrawn", process=self.id, error=refused.error)

    async def tell(self, voter: str, text: str, reply: dict[str, JsonValue]) -> None:
        """Show it to them alone, under the vote; who is not in the channel gets a direct message."""
        words = escape(text)
        try:
            await self._api.call("chat.postEphemeral", channel=reply["channel"], user=voter, text=words)
        except SlackRefused as refused:
            if refused.error not in _UNSEEN:
                raise
            await self._api.call("chat.postMessage", channel=await self._api.direct([voter]), text=words)

    @property
    def _api(self) -> SlackApi:
        return SlackApi(self.plugin.http, self.plugin.config.page_size)

    @property
    def _place(self) -> str:
        return f"metagov:{self.name}:{self.id}"

    async def _posted(self, params: ParamsT, channel: str, ts: str) -> Step[StateT, OutcomeT]:
        url = await self._permalink(channel, ts)
        return self.opened(params, self.state_of(params, channel, ts), key=self.id, url=url)

    async def _permalink(self, channel: str, ts: str) -> str | None:
        try:
            answer = await self._api.call("chat.getPermalink", channel=channel, message_ts=ts)
        except PluginError as error:
            # The vote is open; it can do without the link.
            self.plugin.log.info("a vote's link is not known", process=self.id, error=error.reason)
            return None
        link = answer.get("permalink")
        return link if isinstance(link, str) else None

    async def _channel(self, params: ParamsT) -> str:
        """The id of the conversation it belongs in; the same each time."""
        if params.channel is None:
            return await self._api.direct(params.eligible_voters or ())
        if _CHANNEL.fullmatch(params.channel):
            return params.channel
        if _PERSON.fullmatch(params.channel):
            return await self._api.direct([params.channel])
        name = params.channel.removeprefix("#")
        pages = self._api.pages(
            "conversations.list", "channels", exclude_archived=True, types="public_channel,private_channel"
        )
        async for channels in pages:
            for channel in channels:
                if channel.get("name") == name:
                    return str(channel["id"])
        raise Invalid("/channel", "there is no such channel, or the app cannot see it: give its id, and invite the app")


def clicks_in(body: Mapping[str, Any]) -> Iterator[Clicked]:
    """The clicks on votes in an interaction's payload; nothing else in it counts."""
    container, user, actions = body.get("container"), body.get("user"), body.get("actions")
    if body.get("type") != "block_actions" or not isinstance(container, dict) or not isinstance(user, dict):
        return
    channel, voter = container.get("channel_id"), user.get("id")
    if not isinstance(channel, str) or not isinstance(voter, str) or not isinstance(actions, list):
        return
    for action in actions:
        place = _PLACE.fullmatch(str(action.get("block_id"))) if isinstance(action, dict) else None
        option = _option_of(action) if place else None
        if place is not None and option is not None:
            yield Clicked(place[1], place[2], int(place[3]), option, voter, {"channel": channel})


def _option_of(action: Mapping[str, Any]) -> int | None:
    """Which option was clicked: a button's value, or that of what was chosen in a menu."""
    chosen = action.get("selected_option")
    value = chosen.get("value") if isinstance(chosen, dict) else action.get("value")
    return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,4}", value) else None


def _process_of(message: Mapping[str, Any]) -> object:
    metadata = message.get("metadata")
    if not isinstance(metadata, dict) or metadata.get("event_type") != METADATA:
        return None
    payload = metadata.get("event_payload")
    return payload.get("process") if isinstance(payload, dict) else None
