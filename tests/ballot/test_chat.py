"""A vote by clicks under a chat message, and how it is shown."""

from __future__ import annotations

import json
from datetime import timedelta
from itertools import permutations
from typing import Any, Literal

import pytest
from pydantic import JsonValue, SecretStr, ValidationError

from metagov_sdk import Config, Do, HookRequest, Manifest, Pending, Plugin, Received, Status, Step, hmac_sha256, webhook
from metagov_sdk import config as config_field
from metagov_sdk.ballot import (
    VOTE,
    BallotOutcome,
    ChatBallotParams,
    ChatBallotProcess,
    ChatBallotState,
    standings,
    sum_up,
)
from metagov_sdk.testing import (
    NOW,
    ContractError,
    RunningProcess,
    check_manifest,
    fold,
    hook_request,
    receive,
    sign_hmac_sha256,
    start_process,
)

SHOWN: list[str] = []
"""What the chat shows, the newest last."""


class ChatConfig(Config):
    """The chat's secret."""

    secret: SecretStr
    """What its webhooks are signed with."""


class FlowerState(ChatBallotState):
    flower: str


class ButtonVote(ChatBallotProcess[ChatBallotParams, FlowerState, BallotOutcome]):
    """A vote by buttons."""

    name = "vote"

    async def start(self, params: ChatBallotParams) -> Step[FlowerState, BallotOutcome]:
        """Post it."""
        state = FlowerState.of(params, channel=params.channel or "general", message_id="17.5", flower="rose")
        return self.opened(params, state, key=state.message_id, url="https://chat.example/17.5")

    async def find_started(self, params: ChatBallotParams) -> Step[FlowerState, BallotOutcome] | None:
        """Look for it."""
        return None

    async def render(self, state: FlowerState, status: Status) -> None:
        """Draw it."""
        outcome = self.tally(state)
        bars = "; ".join(f"{each.option} {each.text}" for each in standings(outcome))
        SHOWN.append(f"{state.title} | {bars} | {sum_up(outcome, status)}")

    async def tell(self, voter: str, text: str, reply: dict[str, JsonValue]) -> None:
        """Say it to one."""
        SHOWN.append(f"{voter} via {reply['token_name']}: {text}")


class Chat(Plugin[ChatConfig]):
    """A chat."""

    name = "chat"

    @webhook("clicks", verify=hmac_sha256(config_field("secret")))
    async def clicks(self, request: HookRequest) -> None:
        """Clicks on buttons."""
        for process, voter, option in request.json()["clicks"]:
            self.emit(ButtonVote.click_signal(process, voter, option, {"token_name": f"interaction of {voter}"}))


manifest = Manifest(Chat, processes=[ButtonVote])


@pytest.fixture(autouse=True)
def nothing_shown() -> None:
    SHOWN.clear()


async def opened(**params: Any) -> RunningProcess:
    asked = {"title": "Lunch?", "options": ["soup", "salad"], **params}
    return await start_process(
        manifest, "vote", {name: value for name, value in asked.items() if value is not None}, config={"secret": "s"}
    )


def click(voter: str, choice: str | int | None, *, on: str = "17.5") -> Any:
    return ButtonVote.click_signal(on, voter, choice, {"token_name": f"interaction of {voter}"})


def counts(vote: RunningProcess) -> list[int]:
    assert vote.outcome is not None
    return [option["count"] for option in vote.outcome["options"]]


async def test_a_click_goes_from_the_webhook_into_the_count_and_the_message() -> None:
    vote = await opened(ineligible_voters=["eve"])
    clicks = [["prc_test", "ada", 1], ["17.5", "bob", "soup"], ["prc_test", "cyd", 1], ["prc_test", "eve", 0]]
    body = json.dumps({"clicks": clicks}).encode()
    request = hook_request(body, sign_hmac_sha256("s", body), hook="clicks")
    got = await receive(manifest, request, config={"secret": "s"})
    vote.deliver(*got.signals)
    assert counts(vote) == [1, 2]
    await vote.perform_effects()
    await vote.render()
    assert SHOWN == [
        "eve via interaction of eve: You may not vote in this vote.",
        "Lunch? | soup ███░░░░░░░ 33% (1); salad ███████░░░ 67% (2) | 3 votes so far",
    ]


async def test_one_choice_each_and_the_last_one_counts() -> None:
    vote = await opened()
    for choice, then in ((0, [1, 0]), (1, [0, 1]), ("soup", [1, 0]), (None, [0, 0])):
        vote.deliver(click("ada", choice))
        assert counts(vote) == then
        vote.deliver(click("ada", choice))
        assert counts(vote) == then, "the same click again changes nothing"
    vote.deliver(click("ada", 0), click("bob", 1), click("ada", 1))
    assert counts(vote) == [0, 2]


async def test_clicks_count_by_position_in_whatever_order_they_are_applied() -> None:
    vote = await opened()
    clicks = [Received(VOTE, dict(click("ada", choice).data), place, NOW) for place, choice in enumerate((0, 1, 0), 1)]
    for order in permutations(clicks):
        step = fold(ButtonVote, vote.state, *order)
        assert isinstance(step, Pending)
        assert [option.count for option in ButtonVote.tally(step.state).options] == [1, 0]


@pytest.mark.parametrize("choice", [2, -1, 10**30, True, "pizza", "0", "Soup"])
async def test_a_click_on_no_option_changes_nothing(choice: Any) -> None:
    vote = await opened()
    vote.deliver(click("ada", 0))
    before = vote.state
    vote.deliver(click("ada", choice))
    assert (vote.state, counts(vote), vote.effects) == (before, [1, 0], [])


async def test_who_may_not_vote_is_told_in_the_votes_own_words_for_a_while() -> None:
    vote = await opened(eligible_voters=["ada"], ineligible_voter_message="Members only, sorry.")
    vote.deliver(click("eve", 0))
    reply: dict[str, JsonValue] = {"token_name": "interaction of eve"}
    args: dict[str, JsonValue] = {"voter": "eve", "text": "Members only, sorry.", "reply": reply}
    assert vote.effects == [Do("tell", args, expires=NOW + timedelta(minutes=15))]
    vote.now = NOW + timedelta(minutes=15)
    await vote.perform_effects()
    assert SHOWN == [], "its token has expired"


async def test_of_many_clicks_at_once_each_is_told_once() -> None:
    vote = await opened(ineligible_voters=["eve", "zoe"])
    vote.deliver(*[click(voter, n % 2) for n in range(50) for voter in ("eve", "zoe", "ada")])
    assert [effect.args["voter"] for effect in vote.effects] == ["eve", "zoe"]
    late = [Received(VOTE, dict(click("eve", 0).data), n, NOW + timedelta(seconds=n)) for n in range(25)]
    assert len(ButtonVote.on_signals(vote.state, late).then) == 3, "at 0, 10 and 20 seconds"


async def test_nobody_is_told_without_a_way_to() -> None:
    vote = await opened(ineligible_voters=["eve"])
    vote.deliver(ButtonVote.click_signal("17.5", "eve", 0))
    hostile: list[dict[str, JsonValue]] = [
        {"voter": "eve", "reply": "r"},
        {"voter": ["eve"], "reply": {}},
        {"reply": {}},
    ]
    for data in hostile:
        vote.signal(VOTE, data)
    vote.signal("other", dict(click("eve", 0).data))
    assert (vote.effects, counts(vote)) == ([], [0, 0])


async def test_after_closing_a_click_is_neither_counted_nor_answered() -> None:
    vote = await opened(closing_at=(NOW + timedelta(hours=1)).isoformat(), ineligible_voters=["eve"])
    vote.deliver(click("ada", 0))
    vote.advance(NOW + timedelta(hours=1))
    vote.deliver(click("bob", 0), click("eve", 0))
    assert (vote.status, counts(vote), vote.effects) == ("completed", [1, 0], [])


async def test_updates_name_no_voter_until_the_end() -> None:
    vote = await opened()
    vote.deliver(click("ada", 0))
    assert vote.outcome is not None
    assert vote.update is not None
    assert vote.outcome["options"][0]["voters"] == ["ada"]
    assert vote.update["options"][0] == {"option": "soup", "count": 1, "weight": 1}
    assert {**vote.update, "options": None} == {**vote.outcome, "options": None}
    vote.close()
    assert vote.update == vote.outcome
    assert vote.outcome["options"][0]["voters"] == ["ada"]


async def test_a_signal_for_another_process_is_refused() -> None:
    vote = await opened()
    with pytest.raises(ContractError, match="addressed"):
        vote.deliver(click("ada", 0, on="18.0"))


@pytest.mark.parametrize(
    ("asked", "options"),
    [
        ({"poll_type": "boolean"}, ("yes", "no")),
        ({"poll_type": "boolean", "options": ["yes", "no"]}, ("yes", "no")),
        ({"options": ["a", "b", "c"]}, ("a", "b", "c")),
        ({"poll_type": "choice", "options": ["yes", "no"]}, ("yes", "no")),
    ],
)
def test_what_is_asked(asked: dict[str, Any], options: tuple[str, ...]) -> None:
    params = ChatBallotParams.model_validate({"title": "t", **asked})
    assert params.options == params.rules().options == options
    assert ChatBallotParams.model_validate(params.model_dump(mode="json")) == params


@pytest.mark.parametrize(
    ("asked", "where"),
    [
        ({}, "options"),
        ({"options": ["a"]}, "options"),
        ({"options": []}, "options"),
        ({"options": ["a", "a"]}, "options"),
        ({"poll_type": "boolean", "options": ["a", "b"]}, "options"),
        ({"poll_type": "emoji", "options": ["a", "b"]}, "poll_type"),
        ({"kind": "ranked", "options": ["a", "b"]}, "kind"),
        ({"max_choices": 2, "options": ["a", "b"]}, "max_choices"),
        ({"channel": "", "options": ["a", "b"]}, "channel"),
        ({"ineligible_voter_message": " ", "options": ["a", "b"]}, "ineligible_voter_message"),
    ],
)
def test_what_cannot_be_asked(asked: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError) as raised:
        ChatBallotParams.model_validate({"title": "t", **asked})
    assert [error["loc"][0] for error in raised.value.errors()] == [where]


async def test_a_platforms_own_fields_are_in_the_state() -> None:
    vote = await opened(details="soon", channel="food")
    state = vote.state
    assert (state.flower, state.channel, state.message_id, state.title, state.details) == (
        "rose",
        "food",
        "17.5",
        "Lunch?",
        "soon",
    )


def test_it_keeps_the_rules_of_plugins() -> None:
    check_manifest(manifest)


def outcome(votes: dict[str, int], weights: dict[str, float] | None = None, **rules: Any) -> BallotOutcome:
    """Of votes for the first, second or third of three options; negative to abstain."""
    params = ChatBallotParams(title="t", options=("a", "b", "c"), weights=weights, **rules)
    state = FlowerState.of(params, channel="c", message_id="1", flower="rose")
    clicks = [
        Received(VOTE, {"voter": voter, "choice": None if option < 0 else option}, place, NOW)
        for place, (voter, option) in enumerate(votes.items(), 1)
    ]
    step = ButtonVote.on_signals(state, clicks) if clicks else Pending(state)
    assert isinstance(step, Pending)
    return ButtonVote.tally(step.state)


def test_bars_show_shares_of_the_weight() -> None:
    third = standings(outcome({"x": 0, "y": 1, "z": 2}), width=3)
    assert [(each.percent, each.bar, each.count, each.wins) for each in third] == [(33, "█░░", 1, True)] * 3
    heavy = standings(outcome({"x": 0, "y": 1}, {"x": 3}), width=4)
    assert [(each.text, each.wins) for each in heavy] == [
        ("███░ 75% (1)", True),
        ("█░░░ 25% (1)", False),
        ("░░░░ 0% (0)", False),
    ]
    assert [each.text for each in standings(outcome({}), width=2)] == ["░░ 0% (0)"] * 3


@pytest.mark.parametrize(
    ("votes", "rules", "status", "says"),
    [
        ({}, {}, "pending", "0 votes so far"),
        ({"x": 0, "y": -1}, {}, "pending", "2 votes, 1 abstained so far"),
        ({}, {}, "completed", "Closed with 0 votes. Nothing was chosen."),
        ({"x": 0}, {}, "completed", "Closed with 1 vote. Most votes: a."),
        ({"x": 0, "y": 1}, {}, "completed", "Closed with 2 votes. A tie between a and b."),
        ({"x": 0, "y": 1, "z": 2}, {}, "completed", "Closed with 3 votes. A tie between a, b and c."),
        ({"x": 0}, {"quorum": 2}, "completed", "Closed with 1 vote. Most votes: a. Too few have voted."),
        (
            {"x": 0, "y": 0, "z": 1},
            {"threshold": 0.75},
            "completed",
            "Closed with 3 votes. Most votes: a. It takes a larger share than that.",
        ),
    ],
)
def test_a_line_sums_it_up(
    votes: dict[str, int], rules: dict[str, Any], status: Literal["pending", "completed"], says: str
) -> None:
    assert sum_up(outcome(votes, **rules), status) == says
