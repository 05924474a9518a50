"""What a vote may be asked with, and what a voter may choose: anything else is refused with the field's name."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from metagov_sdk.ballot import ABSTENTION, BallotParams, BallotRules, Marks, read_choice
from metagov_sdk.errors import Invalid
from metagov_sdk.testing import NOW

VOTE = {"title": "Lunch?", "options": ["soup", "salad"]}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"title": None}, "title"),
        ({"title": " \t"}, "title"),
        ({"title": "x" * 3001}, "title"),
        ({"title": "a\0b"}, "title"),
        ({"title": "\ud800"}, "title"),
        ({"options": []}, "options"),
        ({"options": "soup"}, "options"),
        ({"options": ["soup", "soup"]}, "options"),
        ({"options": ["soup", ""]}, "options"),
        ({"options": ["soup", "  "]}, "options"),
        ({"options": ["soup", "s\0up"]}, "options"),
        ({"options": ["soup", 7]}, "options"),
        ({"options": [f"option {number}" for number in range(10_000)]}, "options"),
        ({"options": [f"option {number}" for number in range(101)], "kind": "ranked"}, "options"),
        ({"options": ["x" * 1001]}, "options"),
        ({"kind": "borda"}, "kind"),
        ({"eligible_voters": []}, "eligible_voters"),
        ({"eligible_voters": ["ada", ""]}, "eligible_voters"),
        ({"eligible_voters": "ada"}, "eligible_voters"),
        ({"ineligible_voters": ["x" * 501]}, "ineligible_voters"),
        ({"ineligible_voters": ["\udfff"]}, "ineligible_voters"),
        ({"weights": {"ada": -1}}, "weights"),
        ({"weights": {"ada": float("nan")}}, "weights"),
        ({"weights": {"ada": float("inf")}}, "weights"),
        ({"weights": {"ada": "2"}}, "weights"),
        ({"weights": {"ada": True}}, "weights"),
        ({"weights": {"ada": 1e-10}}, "weights"),
        ({"weights": {"ada": 2**53}}, "weights"),
        ({"weights": {"ada": 2**52, "bob": 2**52}}, "weights"),
        ({"weights": {"a\0": 1}}, "weights"),
        ({"weights": {"\ud800": 1}}, "weights"),
        ({"quorum": -1}, "quorum"),
        ({"quorum": 2.5}, "quorum"),
        ({"quorum": 0.5}, "quorum"),
        ({"quorum": "3"}, "quorum"),
        ({"quorum": True}, "quorum"),
        ({"threshold": 50}, "threshold"),
        ({"threshold": -0.1}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"max_choices": 0}, "max_choices"),
        ({"max_choices": 1.5, "kind": "multiple"}, "max_choices"),
        ({"max_choices": 2}, "max_choices"),
        ({"closing_at": "tomorrow"}, "closing_at"),
        ({"closing_at": "2030-01-01T00:00:00"}, "closing_at"),
        ({"details": "x" * 40_001}, "details"),
        ({"details": "a\0b"}, "details"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_bad_parameters_name_their_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as raised:
        BallotParams.model_validate({**VOTE, **change})
    assert {error["loc"][0] for error in raised.value.errors()} == {field}


@pytest.mark.parametrize(
    "change",
    [
        {"options": ["only"]},
        {"options": [f"option {number}" for number in range(1000)]},
        {"options": [f"option {number}" for number in range(100)], "kind": "ranked"},
        {"options": ["é", "e\u0301", "soup ", "soup"]},
        {"weights": {"ada": 0, "bob": 0.5, "eve": 3}},
        {"quorum": 0.5, "eligible_voters": ["ada"]},
        {"quorum": 3, "threshold": 2 / 3},
        {"quorum": 0, "threshold": 0, "max_choices": 1},
        {"max_choices": 5, "kind": "approval"},
        {"closing_at": "2026-01-02T05:04:06+02:00"},
        {"ineligible_voters": []},
    ],
)
def test_good_parameters_survive_being_stored(change: dict[str, Any]) -> None:
    params = BallotParams.model_validate({**VOTE, **change})
    assert BallotParams.model_validate(params.model_dump(mode="json")) == params
    assert params.rules().options == params.options
    params.check_closing(NOW)


@pytest.mark.parametrize("offset", [timedelta(0), timedelta(seconds=-1), timedelta(days=3654)])
def test_it_closes_in_the_future_and_within_ten_years(offset: timedelta) -> None:
    params = BallotParams.model_validate({**VOTE, "closing_at": NOW + offset})
    with pytest.raises(Invalid) as raised:
        params.check_closing(NOW)
    assert raised.value.pointer == "/closing_at"


@pytest.mark.parametrize("end_of_days", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_times_at_the_ends_of_the_calendar_are_refused_and_break_nothing(end_of_days: str) -> None:
    params = BallotParams.model_validate({**VOTE, "closing_at": end_of_days})
    with pytest.raises(Invalid):
        params.check_closing(NOW)


THREE = ["soup", "salad", "a/b~c"]


@pytest.mark.parametrize(
    ("kind", "most", "choice", "pointer"),
    [
        ("single", None, "pizza", "/choice"),
        ("single", None, "", "/choice"),
        ("single", None, "Soup", "/choice"),
        ("single", None, 7, "/choice"),
        ("single", None, True, "/choice"),
        ("single", None, [], "/choice"),
        ("single", None, ["soup", "salad"], "/choice"),
        ("single", None, {"soup": 1}, "/choice"),
        ("multiple", None, [], "/choice"),
        ("multiple", None, ["soup", "soup"], "/choice/1"),
        ("multiple", None, ["soup", "pizza"], "/choice/1"),
        ("multiple", None, ["soup", None], "/choice/1"),
        ("multiple", None, [["soup"]], "/choice/0"),
        ("multiple", 1, ["soup", "salad"], "/choice"),
        ("approval", 1, ["soup", "salad"], "/choice"),
        ("ranked", None, {"soup": 1, "salad": 2}, "/choice"),
        ("ranked", 2, THREE, "/choice"),
        ("ranked", None, ["soup", "salad", "soup"], "/choice/2"),
        ("score", None, "soup", "/choice"),
        ("score", None, ["soup"], "/choice"),
        ("score", None, {}, "/choice"),
        ("score", None, {"pizza": 3}, "/choice/pizza"),
        ("score", None, {"soup": 11}, "/choice/soup"),
        ("score", None, {"soup": 10**400}, "/choice/soup"),
        ("score", None, {"a/b~c": -1}, "/choice/a~1b~0c"),
        ("score", None, {"soup": "10"}, "/choice/soup"),
        ("score", None, {"soup": True}, "/choice/soup"),
        ("score", None, {"soup": None}, "/choice/soup"),
        ("score", None, {"soup": float("nan")}, "/choice/soup"),
        ("score", 1, {"soup": 1, "salad": 1}, "/choice"),
    ],
)
def test_bad_choices_name_the_place(kind: Any, most: int | None, choice: Any, pointer: str) -> None:
    rules = BallotRules(kind=kind, options=tuple(THREE), max_choices=most)
    with pytest.raises(Invalid) as raised:
        read_choice(rules, choice)
    assert raised.value.pointer == pointer
    assert raised.value.reason


@pytest.mark.parametrize(
    ("kind", "choice", "marks"),
    [
        ("single", "salad", Marks((1,))),
        ("single", ["salad"], Marks((1,))),
        ("multiple", "salad", Marks((1,))),
        ("multiple", ["salad", "soup"], Marks((1, 0))),
        ("ranked", ["salad", "soup"], Marks((1, 0))),
        ("score", {"salad": 0, "soup": 9.5}, Marks((0, 1), (9.5, 0))),
        ("approval", None, ABSTENTION),
        ("score", None, ABSTENTION),
    ],
)
def test_good_choices_are_marks_on_the_ballot(kind: Any, choice: Any, marks: Marks) -> None:
    assert read_choice(BallotRules(kind=kind, options=tuple(THREE)), choice) == marks


def test_a_long_option_is_not_repeated_whole_in_a_message() -> None:
    with pytest.raises(Invalid) as raised:
        read_choice(BallotRules(options=("a",)), "x" * 100_000)
    assert len(raised.value.reason) < 200
