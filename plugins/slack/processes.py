"""The two kinds of votes: by a button for each option, and by a menu for each candidate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from metagov_sdk import Pending, Signal, Status, Step
from metagov_sdk.ballot import VOTE, BallotOutcome, ChatBallotState
from metagov_sdk.errors import Invalid
from metagov_sdk.process import Received
from plugins.slack.advanced import (
    AdvancedVoteOutcome,
    AdvancedVoteParams,
    AdvancedVoteState,
    choice_data,
    count_choices,
    with_choices,
)
from plugins.slack.blocks import (
    MOST_BUTTONS,
    MOST_CANDIDATES,
    MOST_MENU_OPTIONS,
    Asked,
    Drawing,
    EmojiFamily,
    check_texts,
    draw_buttons,
    draw_menus,
    emoji_labels,
)
from plugins.slack.vote import Clicked, SlackVote, SlackVoteParams


class EmojiVoteParams(SlackVoteParams):
    """A vote by buttons."""

    emoji_family: EmojiFamily = "hearts"
    """Which emojis mark the options."""


class EmojiVoteState(ChatBallotState):
    """An open vote by buttons."""

    emoji_family: EmojiFamily = "hearts"


class EmojiVoteOutcome(BallotOutcome):
    """The outcome, and where it is shown."""

    channel: str
    message_ts: str
    """The message, by the timestamp that names it in its channel."""


class EmojiVote(SlackVote[EmojiVoteParams, EmojiVoteState, EmojiVoteOutcome]):
    """A vote in a message, by a button for each option. Counts are shown as they come; a new click changes a vote."""

    name = "emoji-vote"
    listed = "/options"

    @classmethod
    def check_room(cls, params: EmojiVoteParams) -> None:
        """Refuse more options than there is room for buttons, and texts that are too long."""
        if len(params.options) > MOST_BUTTONS:
            raise Invalid("/options", f"a vote by buttons has {MOST_BUTTONS} options at most")
        check_texts(params.title, params.details, params.options, cls.listed)

    @classmethod
    def state_of(cls, params: EmojiVoteParams, channel: str, message_ts: str) -> EmojiVoteState:
        """See SlackVote."""
        return EmojiVoteState.of(params, channel=channel, message_id=message_ts, emoji_family=params.emoji_family)

    @classmethod
    def tally(cls, state: EmojiVoteState) -> EmojiVoteOutcome:
        """The count, and where it is shown."""
        counted: BallotOutcome = super().tally(state)
        return counted.extended(EmojiVoteOutcome, channel=state.channel, message_ts=state.message_id)

    @classmethod
    def draw(cls, place: str, state: EmojiVoteState, status: Status) -> Drawing:
        """See SlackVote."""
        asked = Asked(place, state.title, state.details, state.closing_at)
        labels = emoji_labels(state.emoji_family, len(state.rules.options))
        return draw_buttons(asked, labels, cls.tally(state), status)


class AdvancedVote(SlackVote[AdvancedVoteParams, AdvancedVoteState, AdvancedVoteOutcome]):
    """A vote on several candidates, by a menu for each: a voter chooses one of the options for each candidate, and may
    change every choice. The outcome counts who chose the first option for a candidate; `candidates` has all counts.
    """

    name = "advanced-vote"
    in_time: ClassVar[str] = "each voter's last choice for each candidate that came before closing"
    listed = "/candidates"

    @classmethod
    def check_room(cls, params: AdvancedVoteParams) -> None:
        """Refuse more candidates or options than there is room for, and texts that are too long."""
        if len(params.candidates) > MOST_CANDIDATES:
            raise Invalid("/candidates", f"one message has room for {MOST_CANDIDATES} candidates at most")
        if len(params.options) > MOST_MENU_OPTIONS:
            raise Invalid("/options", f"a menu has {MOST_MENU_OPTIONS} options at most")
        check_texts(params.title, params.details, params.candidates, cls.listed)

    @classmethod
    def state_of(cls, params: AdvancedVoteParams, channel: str, message_ts: str) -> AdvancedVoteState:
        """See SlackVote."""
        return AdvancedVoteState.of(params, channel=channel, message_id=message_ts, candidates=params.candidates)

    @classmethod
    def tally(cls, state: AdvancedVoteState) -> AdvancedVoteOutcome:
        """See count_choices."""
        return count_choices(state, cls.in_time)

    @classmethod
    def update_of(cls, outcome: AdvancedVoteOutcome) -> AdvancedVoteOutcome:
        """The counts without the voters' ids."""
        return outcome.without_voters()

    @classmethod
    def on_signals(
        cls, state: AdvancedVoteState, signals: Sequence[Received]
    ) -> Step[AdvancedVoteState, AdvancedVoteOutcome]:
        """Take choices in, and have those told who may not vote."""
        after = with_choices(state, signals)
        outcome = None if after is state else cls.tally(after)
        return Pending(after, outcome=outcome, then=tuple(cls._tell_ineligible(state, signals)))

    @classmethod
    def draw(cls, place: str, state: AdvancedVoteState, status: Status) -> Drawing:
        """See SlackVote."""
        asked = Asked(place, state.title, state.details, state.closing_at)
        outcome = cls.tally(state)
        return draw_menus(asked, [(row.candidate, row.options) for row in outcome.candidates], outcome, status)


def signal_of(click: Clicked) -> Signal | None:
    """What a click says to its vote; None where there is no such kind of vote."""
    if click.process == EmojiVote.name:
        return EmojiVote.click_signal(click.process_id, click.voter, click.option, click.reply)
    if click.process == AdvancedVote.name:
        data = choice_data(click.voter, click.row, click.option)
        return Signal(AdvancedVote.name, click.process_id, VOTE, {**data, "reply": click.reply})
    return None
