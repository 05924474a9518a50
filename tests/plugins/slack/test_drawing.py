"""How Slack's votes are drawn: within Block Kit's limits whatever is asked, and never more than was said."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from slack_sdk.models.blocks import Block

from metagov_sdk.errors import Invalid
from metagov_sdk.testing import NOW
from plugins.slack.advanced import AdvancedVoteParams
from plugins.slack.blocks import emoji_labels, escape
from plugins.slack.processes import AdvancedVote, EmojiVote, EmojiVoteParams
from tests.fakes.slack_blocks import faults, is_too_long
from tests.plugins.slack.conftest import SQUARE
from tests.plugins.slack.test_votes import ADVANCED, EMOJI

NUMBERED = [f"option {number}" for number in range(100)]
HOSTILE = "<!channel> <@U0ADA> <https://evil.example|here> & *bold* `code` > quote\nnext _line_"


def shown(params: dict[str, Any], status: Any = "pending") -> Any:
    if "candidates" in params:
        values = AdvancedVoteParams.model_validate(params)
        AdvancedVote.check(values, NOW)
        return AdvancedVote.draw("metagov:advanced-vote:prc_x", AdvancedVote.state_of(values, SQUARE, "1.1"), status)
    vote = EmojiVoteParams.model_validate(params)
    EmojiVote.check(vote, NOW)
    return EmojiVote.draw("metagov:emoji-vote:prc_x", EmojiVote.state_of(vote, SQUARE, "1.1"), status)


@pytest.mark.parametrize("status", ["pending", "completed"])
@pytest.mark.parametrize(
    "params",
    [
        EMOJI,
        {**EMOJI, "options": [f"option {number}" for number in range(25)]},
        {**EMOJI, "options": ["x" * 800, "y" * 1000]},
        {**EMOJI, "options": ["&" * 300, "<" * 300], "title": "&" * 500, "details": "&" * 1000},
        {**EMOJI, "details": "line\n" * 1000},
        {**EMOJI, "details": " \n "},
        {**EMOJI, "title": "t" * 2900},
        {**EMOJI, "options": ["\U0001f338" * 400, "\u202e" + "x" * 74]},
        {**EMOJI, "closing_at": "2026-02-01T12:00:00Z"},
        ADVANCED,
        {**ADVANCED, "candidates": [f"candidate {number}" for number in range(20)]},
        {**ADVANCED, "candidates": ["one"], "options": [f"option {number}" for number in range(100)]},
        {**ADVANCED, "candidates": ["c" * 1000], "options": ["&" * 1000] * 1 + ["o" * 1000]},
    ],
)
def test_slack_takes_what_is_drawn(params: dict[str, Any], status: str) -> None:
    drawing = shown(params, status)
    assert faults(drawing.blocks) == []
    assert not is_too_long(drawing.blocks)
    assert 0 < len(drawing.text) <= 4000
    for block in drawing.blocks:
        parsed = Block.parse(block)
        assert parsed is not None
        parsed.validate_json()


@pytest.mark.parametrize(
    ("params", "pointer"),
    [
        ({**EMOJI, "options": [f"{number}" for number in range(26)]}, "/options"),
        ({**EMOJI, "options": ["apple", "&" * 301]}, "/options/1"),
        ({**EMOJI, "options": [str(number) + "x" * 900 for number in range(20)]}, "/options"),
        ({**EMOJI, "title": "t" * 2901}, "/title"),
        ({**EMOJI, "title": "<" * 1000}, "/title"),
        ({**EMOJI, "details": "d" * 5801}, "/details"),
        ({**EMOJI, "channel": None}, "/channel"),
        ({**EMOJI, "channel": None, "eligible_voters": [f"U{number}" for number in range(9)]}, "/eligible_voters"),
        ({**EMOJI, "closing_at": "2020-01-01T00:00:00Z"}, "/closing_at"),
        ({**ADVANCED, "candidates": [f"{number}" for number in range(41)]}, "/candidates"),
        ({**ADVANCED, "options": [f"{number}" for number in range(101)]}, "/options"),
        ({**ADVANCED, "candidates": [f"{number}" for number in range(40)], "options": NUMBERED[:20]}, "/candidates"),
    ],
)  # fmt: skip
def test_what_has_no_room_is_refused_where_it_stands(params: dict[str, Any], pointer: str) -> None:
    with pytest.raises(Invalid) as raised:
        shown(params)
    assert raised.value.pointer == pointer


@pytest.mark.parametrize(
    ("params", "where"),
    [
        ({**EMOJI, "emoji_family": "stars"}, "emoji_family"),
        ({**EMOJI, "eligible_voters": ["ada"]}, "eligible_voters"),
        ({**EMOJI, "options": ["one"]}, "options"),
        ({**ADVANCED, "candidates": []}, "candidates"),
        ({**ADVANCED, "candidates": ["Ines", "Ines"]}, "candidates"),
    ],
)
def test_what_does_not_fit_the_schema_names_its_field(params: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError) as raised:
        shown(params)
    assert {error["loc"][0] for error in raised.value.errors()} == {where}


@pytest.mark.parametrize("params", [EMOJI, ADVANCED])
def test_hostile_words_are_shown_and_not_obeyed(params: dict[str, Any]) -> None:
    listed = "candidates" if "candidates" in params else "options"
    drawing = shown({**params, "title": HOSTILE, "details": HOSTILE, listed: [HOSTILE, "other"]})
    texts = [text["text"] for text in find_texts(drawing.blocks)]
    assert all("<" not in text and ">" not in text for text in [*texts, drawing.text]), texts
    assert any(escape(HOSTILE) in text for text in texts)
    assert all(text["verbatim"] is True for text in find_texts(drawing.blocks))


def find_texts(value: Any) -> list[dict[str, Any]]:
    """The text objects that Slack reads markup in."""
    if isinstance(value, list):
        return [text for item in value for text in find_texts(item)]
    if not isinstance(value, dict):
        return []
    own = [value] if value.get("type") == "mrkdwn" else []
    return own + [text for item in value.values() for text in find_texts(item)]


def test_the_closing_time_is_shown_in_the_readers_time_zone() -> None:
    drawing = shown({**EMOJI, "closing_at": "2026-02-01T12:00:00+02:00"})
    assert (
        "<!date^1769940000^{date_short_pretty} {time}|2026-02-01 10:00 UTC>"
        in drawing.blocks[-1]["elements"][0]["text"]
    )
    assert "<!date" not in json.dumps(shown({**EMOJI, "closing_at": "2026-02-01T12:00:00Z"}, "completed").blocks)


def test_options_beyond_the_emojis_are_numbered() -> None:
    labels = emoji_labels("numbers", 12)
    assert labels[0] == ":one:"
    assert labels[9:] == [":keycap_ten:", "11.", "12."]
    assert len(set(labels)) == 12


_MARKUP = st.sampled_from("&<>*`_\n \U0001f338")
_ANY = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXT = st.text(_MARKUP | _ANY, min_size=1)
LISTED = st.lists(TEXT, min_size=2, max_size=30, unique=True)


@settings(max_examples=200, deadline=None)
@given(
    params=st.fixed_dictionaries(
        {"title": TEXT, "details": st.none() | TEXT, "options": LISTED}, optional={"candidates": LISTED}
    ),
    stretch=st.sampled_from([1, 1, 7, 60]),
)
def test_whatever_is_accepted_slack_takes(params: dict[str, Any], stretch: int) -> None:
    longer = {**params, "title": params["title"] * stretch, "channel": SQUARE}
    for status in ("pending", "completed"):
        try:
            drawing = shown(longer, status)
        except (Invalid, ValidationError):
            return
        assert faults(drawing.blocks) == []
        assert not is_too_long(drawing.blocks)
        assert 0 < len(drawing.text) <= 4000
