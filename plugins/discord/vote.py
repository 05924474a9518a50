"""A vote by buttons under a message."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

from pydantic import Field, JsonValue

from metagov_sdk import Pending, Retry, Status, Step, Unauthorized
from metagov_sdk.ballot import BallotOutcome, ChatBallotParams, ChatBallotProcess, ChatBallotState
from metagov_sdk.ballot.params import Option
from plugins.discord.api import UNKNOWN_WEBHOOK, Refused
from plugins.discord.drawing import MOST_BUTTONS, SILENT, check_room, draw_vote
from plugins.discord.interactions import EPHEMERAL, button_prefix
from plugins.discord.models import Snowflake
from plugins.discord.posts import edit_message, find_message, post_message

if TYPE_CHECKING:
    from plugins.discord.plugin import Discord


class DiscordVoteParams(ChatBallotParams):
    """A vote by buttons. Voters are Discord's user ids."""

    channel: Snowflake
    """The channel or thread, of the instance's own server, that it is posted in."""
    options: Annotated[tuple[Option, ...], Field(min_length=2, max_length=MOST_BUTTONS)] = ("yes", "no")
    """What can be chosen: 2 to 25 options, each of them a button. A boolean vote has `yes` and `no`."""


class DiscordOutcome(BallotOutcome):
    """How a vote stands, and the message it is held under."""

    channel: str
    message_id: str


class DiscordVote(ChatBallotProcess[DiscordVoteParams, ChatBallotState, DiscordOutcome]):
    """A vote by buttons under a message that shows how it stands. Each member has one vote and may change it."""

    name = "vote"
    render_every: ClassVar[timedelta] = timedelta(seconds=1.5)
    """The edits of one channel's messages share a bucket; this leaves room for a few votes in it."""

    @property
    def discord(self) -> Discord:
        """The bound plugin."""
        return cast("Discord", self.plugin)

    @classmethod
    def check(cls, params: DiscordVoteParams, now: datetime) -> None:
        """Refuse a deadline that has passed, and what the message has no room for: nothing is cut off in secret."""
        super().check(params, now)
        check_room(params)

    async def start(self, params: DiscordVoteParams) -> Step[ChatBallotState, DiscordOutcome]:
        """Post the message with its buttons, which carry the process's id."""
        await self.discord.check_channel(params.channel, "/channel")
        empty = ChatBallotState.of(params, channel=params.channel, message_id="")
        message = await post_message(self.discord, params.channel, self._drawn(empty, "pending"), self.id)
        return self._opened(params, message)

    async def find_started(self, params: DiscordVoteParams) -> Step[ChatBallotState, DiscordOutcome] | None:
        """The message whose buttons carry the process's id."""
        prefix = button_prefix(self.id)
        found = await find_message(self.discord, params.channel, lambda message: _has_button(message, prefix))
        return None if found is None else self._opened(params, found)

    def _opened(self, params: DiscordVoteParams, message: dict[str, Any]) -> Pending[ChatBallotState, DiscordOutcome]:
        state = ChatBallotState.of(params, channel=params.channel, message_id=message["id"])
        url = self.discord.message_url(state.channel, state.message_id)
        return self.opened(params, state, key=state.message_id, url=url)

    async def render(self, state: ChatBallotState, status: Status) -> None:
        """Draw the message anew; after the end without its buttons."""
        await edit_message(self.discord, state.channel, state.message_id, self._drawn(state, status))

    async def tell(self, voter: str, text: str, reply: dict[str, JsonValue]) -> None:
        """A message that only the one who clicked sees. When the 15 minutes are over there is nobody to tell."""
        try:
            webhook = await self.discord.credential(f"interaction:{reply.get('interaction')}")
        except Unauthorized:
            return
        body: dict[str, JsonValue] = {
            "content": text,
            "flags": EPHEMERAL,
            "allowed_mentions": SILENT,
        }
        try:
            await self.discord.ask("POST", f"webhooks/{webhook}", json=body)
        except Refused as error:
            if error.code == UNKNOWN_WEBHOOK:
                # The answer to the click may still be on its way to Discord.
                raise Retry("Discord does not know the click yet", after=1) from error
            if error.status != 401:
                raise

    @classmethod
    def tally(cls, state: ChatBallotState) -> DiscordOutcome:
        """The count, and where the message is."""
        counted = super().tally(state)
        return BallotOutcome.extended(counted, DiscordOutcome, channel=state.channel, message_id=state.message_id)

    def _drawn(self, state: ChatBallotState, status: Literal["pending", "completed"]) -> dict[str, JsonValue]:
        return draw_vote(state, self.tally(state), status, self.id)


def _has_button(message: dict[str, Any], prefix: str) -> bool:
    rows = message.get("components") or ()
    return any(
        str(each.get("custom_id", "")).startswith(prefix) for row in rows for each in row.get("components") or ()
    )
