"""Slack's votes: their messages, clicks and outcomes, against a fake Slack over real sockets."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pydantic import JsonValue

from metagov_sdk import Pending, Rejected, Retry, Unauthorized
from metagov_sdk.errors import Invalid
from metagov_sdk.process import Received
from metagov_sdk.testing import NOW, RunningProcess, bind, fold, receive
from plugins.slack import manifest
from plugins.slack.advanced import AdvancedVoteParams
from plugins.slack.processes import AdvancedVote, EmojiVote, EmojiVoteParams
from plugins.slack.vote import METADATA
from tests.fakes.slack import FakeSlack
from tests.fakes.slack_state import Channel, Team
from tests.plugins.slack.conftest import SQUARE, binding, open_vote
from tests.plugins.slack.test_hooks import signed

EMOJI = {"title": "Which tree?", "poll_type": "choice", "options": ["apple", "pear", "plum"], "channel": SQUARE}
ADVANCED = {
    "title": "Who joins the council?",
    "candidates": ["Ines", "Jun"],
    "options": ["yes", "no", "not sure"],
    "channel": SQUARE,
}


async def click(slack: FakeSlack, vote: RunningProcess, user: str, label: str) -> None:
    """Click in the message as it stands, and let the vote take it."""
    hook = slack.hooks.clicked(slack.world.team(), SQUARE, vote.state.message_id, user, label)
    got = await receive(manifest, signed(hook), config={"team_id": "T0TOWN"}, settings=slack.settings())
    for signal in got.signals:
        assert (signal.process, signal.key) == (vote.kind.name, vote.id)
        vote.signal(signal.kind, signal.data)


def counts(outcome: dict[str, Any] | None) -> dict[str, int]:
    assert outcome is not None
    return {tally["option"]: tally["count"] for tally in outcome["options"]}


def words(message: dict[str, Any]) -> str:
    return json.dumps(message["blocks"], ensure_ascii=False)


def elements(message: dict[str, Any]) -> list[dict[str, Any]]:
    return [element for block in message["blocks"] if block["type"] == "actions" for element in block["elements"]]


async def test_a_vote_by_buttons_from_start_to_end(
    slack: FakeSlack, square: Channel, transport: httpx.AsyncHTTPTransport
) -> None:
    vote = await open_vote(slack, transport, "emoji-vote", {**EMOJI, "emoji_family": "flowers", "details": "To plant."})
    message = square.messages[-1]
    assert (vote.state.channel, vote.state.message_id) == (SQUARE, message["ts"])
    assert vote.url == f"https://town-t0town.slack.com/archives/{SQUARE}/p{message['ts'].replace('.', '')}"
    assert message["metadata"] == {"event_type": METADATA, "event_payload": {"process": vote.id}}
    assert [button["text"]["text"] for button in elements(message)] == [
        ":tulip: apple",
        ":sunflower: pear",
        ":rose: plum",
    ]
    assert "To plant." in words(message)

    for user, label in (("U0ADA", "pear"), ("U0BOB", "pear"), ("U0CYD", "plum"), ("U0ADA", "plum"), ("U0ADA", "plum")):
        await click(slack, vote, user, label)
    assert counts(vote.outcome) == {"apple": 0, "pear": 1, "plum": 2}
    await vote.render()
    assert "67% (2)" in words(message)
    assert len(elements(message)) == 3

    vote.close()
    await vote.render()
    assert elements(message) == []
    assert "Most votes: plum." in words(message)
    assert vote.outcome is not None
    assert vote.outcome["winners"] == ["plum"]
    assert vote.outcome["options"][2] == {"option": "plum", "count": 2, "weight": 2.0, "voters": ["U0ADA", "U0CYD"]}
    assert (vote.outcome["channel"], vote.outcome["message_ts"]) == (SQUARE, message["ts"])
    assert [call.fields["ts"] for call in slack.calls("chat.update")] == [message["ts"]] * 2


async def test_a_boolean_vote_asks_yes_or_no(
    slack: FakeSlack, square: Channel, transport: httpx.AsyncHTTPTransport
) -> None:
    params = {"title": "Open the gate?", "poll_type": "boolean", "channel": SQUARE, "emoji_family": "numbers"}
    vote = await open_vote(slack, transport, "emoji-vote", params)
    assert [button["text"]["text"] for button in elements(square.messages[-1])] == [":one: yes", ":two: no"]
    await click(slack, vote, "U0ADA", "yes")
    assert counts(vote.outcome) == {"yes": 1, "no": 0}


async def test_a_vote_by_menus_from_start_to_end(
    slack: FakeSlack, square: Channel, transport: httpx.AsyncHTTPTransport
) -> None:
    vote = await open_vote(slack, transport, "advanced-vote", ADVANCED)
    message = square.messages[-1]
    ines, jun = (block["accessory"] for block in message["blocks"] if "accessory" in block)
    assert [option["text"]["text"] for option in ines["options"]] == ["yes", "no", "not sure"]
    assert ines["options"] == jun["options"]

    async def choose(user: str, candidate: int, option: str) -> None:
        place = [block for block in message["blocks"] if "accessory" in block][candidate]
        message_with_one = {**message, "blocks": [place]}
        square.messages[-1] = message_with_one
        await click(slack, vote, user, f"choose={option}")
        square.messages[-1] = message

    await choose("U0ADA", 0, "yes")
    await choose("U0ADA", 1, "no")
    await choose("U0BOB", 0, "no")
    await choose("U0BOB", 0, "yes")
    await choose("U0CYD", 1, "not sure")
    assert vote.outcome is not None
    assert (vote.outcome["kind"], counts(vote.outcome)) == ("approval", {"Ines": 2, "Jun": 0})
    assert vote.outcome["total_voters"] == 3
    rows = {
        row["candidate"]: {one["option"]: one["count"] for one in row["options"]} for row in vote.outcome["candidates"]
    }
    assert rows == {"Ines": {"yes": 2, "no": 0, "not sure": 0}, "Jun": {"yes": 0, "no": 1, "not sure": 1}}
    assert [row["winners"] for row in vote.outcome["candidates"]] == [["yes"], ["no", "not sure"]]
    await vote.render()
    assert "yes: 2 · no: 0 · not sure: 0" in words(message)
    vote.close()
    await vote.render()
    assert not any("accessory" in block for block in message["blocks"])
    assert vote.outcome["winners"] == ["Ines"]
    assert "chose “yes” for it" in vote.outcome["rule"]


@pytest.mark.parametrize("name", ["emoji-vote", "advanced-vote"])
async def test_running_updates_name_no_voters(slack: FakeSlack, transport: httpx.AsyncHTTPTransport, name: str) -> None:
    vote = await open_vote(slack, transport, name, EMOJI if name == "emoji-vote" else ADVANCED)
    data: dict[str, JsonValue] = (
        {"voter": "U0ADA", "choice": 0} if name == "emoji-vote" else {"voter": "U0ADA", "candidate": 0, "option": 0}
    )
    vote.signal("vote", data)
    kind = vote.kind
    outcome = kind.tally(vote.state)  # type: ignore[attr-defined]
    assert "U0ADA" in outcome.model_dump_json()
    assert "U0ADA" not in kind.update_of(outcome).model_dump_json()


async def test_who_may_not_vote_is_told_and_not_counted(
    slack: FakeSlack, square: Channel, transport: httpx.AsyncHTTPTransport
) -> None:
    square.members -= {"U0CYD"}
    params = {**EMOJI, "eligible_voters": ["U0ADA"], "ineligible_voter_message": "Only <members> & friends."}
    vote = await open_vote(slack, transport, "emoji-vote", params)
    for user in ("U0ADA", "U0BOB", "U0CYD"):
        await click(slack, vote, user, "pear")
    await vote.perform_effects()
    assert vote.outcome is not None and vote.outcome["total_voters"] == 1
    (told,) = slack.calls("chat.postEphemeral")
    assert (told.fields["channel"], told.fields["user"]) == (SQUARE, "U0BOB")
    assert told.fields["text"] == "Only &lt;members&gt; &amp; friends."
    # Who is not in the channel sees nothing that is shown there: a direct message tells them.
    direct = slack.world.team().channels[slack.calls("chat.postMessage")[-1].fields["channel"]]
    assert (direct.kind, direct.messages[-1]["text"]) == ("im", "Only &lt;members&gt; &amp; friends.")
    assert "U0CYD" in direct.members


async def test_who_may_not_choose_is_told_too(slack: FakeSlack, transport: httpx.AsyncHTTPTransport) -> None:
    vote = await open_vote(slack, transport, "advanced-vote", {**ADVANCED, "ineligible_voters": ["U0BOB"]})
    vote.signal("vote", {"voter": "U0BOB", "candidate": 0, "option": 0, "reply": {"channel": SQUARE}})
    await vote.perform_effects()
    assert [call.fields["user"] for call in slack.calls("chat.postEphemeral")] == ["U0BOB"]
    assert vote.outcome is not None and vote.outcome["total_voters"] == 0


async def test_a_vote_among_a_few_opens_their_direct_message(
    slack: FakeSlack, town: Team, transport: httpx.AsyncHTTPTransport
) -> None:
    params = {**EMOJI, "channel": None, "eligible_voters": ["U0ADA", "U0BOB"]}
    vote = await open_vote(slack, transport, "emoji-vote", params)
    channel = town.channels[vote.state.channel]
    assert (channel.kind, len(channel.messages)) == ("mpim", 1)


@pytest.mark.parametrize("named", ["square", "#square", "U0ADA"])
async def test_a_channel_by_its_name_or_a_person(
    slack: FakeSlack, town: Team, transport: httpx.AsyncHTTPTransport, named: str
) -> None:
    for number in range(250):
        town.add_channel(f"C1{number}")
    town.channels[SQUARE] = town.channels.pop(SQUARE)
    vote = await open_vote(slack, transport, "emoji-vote", {**EMOJI, "channel": named})
    assert town.channels[vote.state.channel].messages[-1]["ts"] == vote.state.message_id


async def test_a_channel_that_is_not_there_is_named(slack: FakeSlack, transport: httpx.AsyncHTTPTransport) -> None:
    with pytest.raises(Invalid, match="no such channel") as raised:
        await open_vote(slack, transport, "emoji-vote", {**EMOJI, "channel": "#nowhere"})
    assert raised.value.pointer == "/channel"


async def test_a_lost_start_is_found_again_by_its_metadata(
    slack: FakeSlack, square: Channel, transport: httpx.AsyncHTTPTransport
) -> None:
    slack.fail("chat.postMessage", lost=True)
    with pytest.raises(httpx.TransportError):
        await open_vote(slack, transport, "emoji-vote", EMOJI, now=datetime.now(UTC))
    assert len(square.messages) == 1
    bot = slack.world.bot(slack.world.team())
    for number in range(45):
        square.messages.append(
            {"type": "message", "user": "U0ADA", "text": f"{number}", "ts": slack.world.ts(), "bot_id": bot.bot_id}
        )
    config = {"team_id": "T0TOWN", "page_size": 20}
    found = await found_started(slack, transport, EMOJI, config=config)
    assert found is not None
    assert found.state.message_id == square.messages[0]["ts"]
    assert len(slack.calls("conversations.history")) == 3
    assert len(slack.calls("chat.postMessage")) == 1


async def found_started(
    slack: FakeSlack, transport: httpx.AsyncBaseTransport, params: dict[str, Any], id: str = "prc_test", **more: Any
) -> Any:
    now = datetime.now(UTC)
    plugin = bind(manifest, **binding(slack, transport, now=now, **more))
    process = EmojiVote(plugin, id=id, now=now, idempotency_key="k")
    return await process.find_started(EmojiVoteParams.model_validate(params))


async def test_nothing_is_found_where_nothing_was_posted(
    slack: FakeSlack, square: Channel, transport: httpx.AsyncHTTPTransport
) -> None:
    await open_vote(slack, transport, "emoji-vote", EMOJI)
    square.messages.append(
        {
            "type": "message",
            "ts": slack.world.ts(),
            "text": "",
            "metadata": {"event_type": METADATA, "event_payload": "x"},
        }
    )
    assert await found_started(slack, transport, EMOJI, id="prc_another") is None


async def test_a_search_that_is_refused_says_so(slack: FakeSlack, transport: httpx.AsyncHTTPTransport) -> None:
    slack.fail("conversations.history", error="missing_scope")
    with pytest.raises(Rejected, match="missing_scope"):
        await found_started(slack, transport, EMOJI)


async def test_a_click_before_the_start_has_answered_is_addressed_by_the_process(
    slack: FakeSlack, square: Channel, transport: httpx.AsyncHTTPTransport
) -> None:
    vote = await open_vote(slack, transport, "emoji-vote", EMOJI)
    assert vote.key == vote.id
    assert all(
        block.get("block_id", f"metagov:emoji-vote:{vote.id}:0") == f"metagov:emoji-vote:{vote.id}:0"
        for block in square.messages[-1]["blocks"]
    )


async def test_a_vote_opens_without_its_link(slack: FakeSlack, transport: httpx.AsyncHTTPTransport) -> None:
    slack.fail("chat.getPermalink", error="message_not_found")
    vote = await open_vote(slack, transport, "emoji-vote", EMOJI)
    assert (vote.status, vote.url) == ("pending", None)


async def test_a_start_joins_the_channel(slack: FakeSlack, town: Team, transport: httpx.AsyncHTTPTransport) -> None:
    town.add_channel("C0MARKET")
    vote = await open_vote(slack, transport, "emoji-vote", {**EMOJI, "channel": "C0MARKET"})
    assert vote.state.channel == "C0MARKET"


@pytest.mark.parametrize(
    "error", ["message_not_found", "channel_not_found", "is_archived", "cant_update_message", "edit_window_closed"]
)
async def test_a_message_that_is_gone_is_left_alone(
    slack: FakeSlack, transport: httpx.AsyncHTTPTransport, error: str
) -> None:
    vote = await open_vote(slack, transport, "emoji-vote", EMOJI)
    slack.fail("chat.update", error=error)
    await vote.render()


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ({"error": "token_revoked"}, Unauthorized),
        ({"status": 429, "retry_after": 2}, Retry),
        ({"status": 503}, httpx.TransportError),
        ({"error": "invalid_blocks"}, Rejected),
    ],
)
async def test_a_redraw_that_fails_is_told_as_what_it_is(
    slack: FakeSlack, transport: httpx.AsyncHTTPTransport, how: dict[str, Any], kind: type[Exception]
) -> None:
    vote = await open_vote(slack, transport, "emoji-vote", EMOJI)
    slack.fail("chat.update", **how)
    with pytest.raises(kind):
        await vote.render()


def test_choices_come_in_any_order_and_twice() -> None:
    """The last choice by position counts, whichever comes first; votes of strangers to the ballot change nothing."""
    state = AdvancedVote.state_of(AdvancedVoteParams.model_validate(ADVANCED), SQUARE, "1.1")
    signals = [
        Received("vote", {"voter": voter, "candidate": candidate, "option": option}, position, NOW)
        for position, (voter, candidate, option) in enumerate(
            [
                ("U1", 0, 0),
                ("U1", 0, 1),
                ("U1", 1, 0),
                ("U2", 0, 2),
                ("U1", 0, 2),
                ("U3", 9, 0),
                ("U3", 0, 9),
                ("U3", -1, 0),
            ]
        )
    ]
    signals.append(Received("vote", {"voter": "U4", "candidate": True, "option": 0}, 50, NOW))
    signals.append(Received("other", {"voter": "U4", "candidate": 0, "option": 0}, 51, NOW))
    forwards = fold(AdvancedVote, state, *signals)
    backwards = fold(AdvancedVote, state, *reversed(signals), *signals)
    assert isinstance(forwards, Pending) and isinstance(backwards, Pending)
    assert forwards.state.choices == backwards.state.choices
    assert forwards.state.choices == {"U1": {0: (4, 2), 1: (2, 0)}, "U2": {0: (3, 2)}}


async def test_a_vote_closes_at_its_time(slack: FakeSlack, transport: httpx.AsyncHTTPTransport) -> None:
    closing = NOW + timedelta(hours=1)
    vote = await open_vote(slack, transport, "emoji-vote", {**EMOJI, "closing_at": closing.isoformat()})
    vote.advance(closing)
    assert vote.status == "completed"


async def test_weights_and_thresholds_count_for_candidates(
    slack: FakeSlack, transport: httpx.AsyncHTTPTransport
) -> None:
    params = {**ADVANCED, "weights": {"U0ADA": 3}, "threshold": 0.7, "quorum": 3, "anonymous": True}
    vote = await open_vote(slack, transport, "advanced-vote", params)
    for voter, candidate, option in (("U0ADA", 1, 0), ("U0BOB", 0, 0)):
        vote.signal("vote", {"voter": voter, "candidate": candidate, "option": option})
    assert vote.outcome is not None
    assert (vote.outcome["winners"], vote.outcome["threshold_met"], vote.outcome["quorum_met"]) == (
        ["Jun"],
        True,
        False,
    )
    assert "U0ADA" not in json.dumps(vote.outcome)
