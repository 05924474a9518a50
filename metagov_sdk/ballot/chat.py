"""A vote by clicks under a chat message. A platform's vote writes its I/O: `start`, `find_started`, `render`, `tell`.

    class ButtonVote(ChatBallotProcess[ChatBallotParams, ChatBallotState, BallotOutcome]):
        name = "vote"

        async def start(self, params):
            message = await self.plugin.http.post(…)      # its buttons carry self.id and the option's position
            state = ChatBallotState.of(params, channel=params.channel, message_id=message.json()["id"])
            return self.opened(params, state, key=state.message_id)

    self.emit(ButtonVote.click_signal(process_id, voter="U1", choice=0, reply={"interaction": "8471"}))

A signal may be addressed by the key that `start` gave, or by the process's id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import AfterValidator, Field, JsonValue, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError
from typing_extensions import TypeVar

from metagov_sdk.ballot.outcome import BallotOutcome
from metagov_sdk.ballot.params import MOST_OPTIONS, BallotParams, BallotRules, Option, readable
from metagov_sdk.ballot.process import VOTE, BallotProcess, BallotState, vote_data
from metagov_sdk.process import Do, Pending, Received, Signal, Step

YES_OR_NO = ("yes", "no")
"""The options of a boolean vote."""
NOT_ALLOWED = "You may not vote in this vote."
"""What somebody is told who clicks and may not vote, where the vote gives no words of its own."""


class ChatBallotParams(BallotParams):
    """A vote by clicks in a chat: each voter has one choice, and may change it."""

    kind: Literal["single"] = "single"
    """One option for each voter."""
    poll_type: Literal["boolean", "choice"] = "choice"
    """`boolean` asks yes or no; `choice` offers `options`."""
    options: Annotated[tuple[Option, ...], Field(min_length=2, max_length=MOST_OPTIONS)] = YES_OR_NO
    """What can be chosen, two at least. A boolean vote has `yes` and `no`, and need not name them; a choice must."""
    channel: Annotated[str, Field(min_length=1, max_length=500), AfterValidator(readable)] | None = None
    """The platform's id of the channel it is posted in."""
    ineligible_voter_message: Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(readable)] = (
        NOT_ALLOWED
    )
    """What those are told, alone, who click and may not vote."""

    @model_validator(mode="after")
    def _fit_poll_type(self) -> Self:
        if self.poll_type == "boolean" and self.options != YES_OR_NO:
            _refuse_options(self, "a boolean vote has the options yes and no: leave them out, or take poll_type choice")
        if self.poll_type == "choice" and "options" not in self.model_fields_set:
            _refuse_options(self, "name two options at least, or take poll_type boolean for yes and no")
        return self


def _refuse_options(params: ChatBallotParams, reason: str) -> None:
    """Refuse `options`, although it takes another field to know that they are wrong."""
    error = PydanticCustomError("options", "{reason}", {"reason": reason})
    line = InitErrorDetails(type=error, loc=("options",), input=params.options)
    raise ValidationError.from_exception_data(type(params).__name__, [line])


class ChatBallotState(BallotState):
    """An open vote and its message: all that drawing it anew takes."""

    channel: str
    """Where the message is, by the platform's id."""
    message_id: str
    """The message, by the platform's id."""
    title: str
    details: str | None = None
    closing_at: datetime | None = None
    ineligible_voter_message: str = NOT_ALLOWED

    @classmethod
    def of(cls, params: ChatBallotParams, *, channel: str, message_id: str, **own: Any) -> Self:
        """The state of a vote that was just posted; `own` are the fields of a platform's own state class."""
        return cls(
            rules=params.rules(),
            channel=channel,
            message_id=message_id,
            title=params.title,
            details=params.details,
            closing_at=params.closing_at,
            ineligible_voter_message=params.ineligible_voter_message,
            **own,
        )


ParamsT = TypeVar("ParamsT", bound=ChatBallotParams, default=ChatBallotParams)
StateT = TypeVar("StateT", bound=ChatBallotState, default=ChatBallotState)
OutcomeT = TypeVar("OutcomeT", bound=BallotOutcome, default=BallotOutcome)


class ChatBallotProcess(BallotProcess[ParamsT, StateT, OutcomeT]):
    """A vote by clicks: each voter's last click counts.

    A second click on the option that a voter has already chosen keeps it. It does not take it back: people click
    twice, and platforms deliver twice, so a click must mean the same however often it comes. `choice=None` takes a
    choice back, for platforms that offer a button for that.

    Who may not vote is told so after each click, by `tell`. A click after closing is not counted, and not answered.
    """

    in_time: ClassVar[str] = "each voter's last click that came before closing"
    reply_lasts: ClassVar[timedelta] = timedelta(minutes=15)
    """How long after a click its voter can be told; then the effect expires. Discord's interaction tokens: 15 min."""
    tell_again: ClassVar[timedelta] = timedelta(seconds=10)
    """Of clicks that are folded together, a voter is told once in this time."""

    @classmethod
    def click_signal(
        cls, key: str, voter: str, choice: str | int | None, reply: dict[str, JsonValue] | None = None
    ) -> Signal:
        """A click, to be emitted by a hook.

        key     as `start` gave it, or the process's id (which buttons can carry before there is a message).
        choice  an option's text, or its position from 0, which fits where a platform keeps a button's value short.
        reply   what `tell` needs to answer this click; without it the voter is told nothing. It is stored with the
                vote: name a credential in it (`keep_credential`), and put no token there.
        """
        data = vote_data(voter, choice)
        return Signal(cls.name, key, VOTE, data if reply is None else {**data, "reply": reply})

    async def tell(self, voter: str, text: str, reply: dict[str, JsonValue]) -> None:
        """Show `text` to this voter alone, as the answer to the click that came with `reply`. I/O; at least once."""
        raise NotImplementedError(f"{type(self).__name__} must define tell")

    @classmethod
    def on_signals(cls, state: StateT, signals: Sequence[Received]) -> Step[StateT, OutcomeT]:
        """Take clicks in, and have those told who may not vote."""
        step = super().on_signals(state, [_with_option(state.rules, signal) for signal in signals])
        return replace(
            cast("Pending[StateT, OutcomeT]", step), then=(*step.then, *cls._tell_ineligible(state, signals))
        )

    @classmethod
    def _tell_ineligible(cls, state: StateT, signals: Sequence[Received]) -> list[Do]:
        told: dict[str, datetime] = {}
        effects = []
        for signal in signals:
            voter, reply = signal.data.get("voter"), signal.data.get("reply")
            if signal.kind != VOTE or not isinstance(voter, str) or not isinstance(reply, dict):
                continue
            if state.rules.may_vote(voter) or (voter in told and signal.at < told[voter] + cls.tell_again):
                continue
            told[voter] = signal.at
            args: dict[str, JsonValue] = {"voter": voter, "text": state.ineligible_voter_message, "reply": reply}
            effects.append(Do("tell", args, expires=signal.at + cls.reply_lasts))
        return effects


def _with_option(rules: BallotRules, signal: Received) -> Received:
    """The click with its option's text, where it came with the position; one that is out of range is left alone."""
    choice = signal.data.get("choice")
    if signal.kind != VOTE or type(choice) is not int or not 0 <= choice < len(rules.options):
        return signal
    return replace(signal, data={**signal.data, "choice": rules.options[choice]})
