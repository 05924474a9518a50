"""Counts of elections whose ballots and results are published.

Tennessee: the example of a capital to be chosen, as Wikipedia's articles on Condorcet methods, instant-runoff voting,
score voting and approval voting work it out. Forty-five voters: example 1 of M. Schulze, "The Schulze Method of
Voting", arXiv:1804.02973. Burlington: the mayoral election of March 2009 among its three strongest candidates, ballots
as in Wikipedia's article "2009 Burlington mayoral election".
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import pytest

from metagov_sdk.ballot import (
    BallotRules,
    Marks,
    Profile,
    compare_pairs,
    condorcet_winner,
    count,
    instant_runoff,
    read_choice,
    schulze,
)

CITIES = ("Memphis", "Nashville", "Chattanooga", "Knoxville")
TENNESSEE: Profile[str] = {
    ("Memphis", "Nashville", "Chattanooga", "Knoxville"): 42,
    ("Nashville", "Chattanooga", "Knoxville", "Memphis"): 26,
    ("Chattanooga", "Knoxville", "Nashville", "Memphis"): 15,
    ("Knoxville", "Chattanooga", "Nashville", "Memphis"): 17,
}
TENNESSEE_SCORES = (
    (42, {"Memphis": 10, "Nashville": 4, "Chattanooga": 2, "Knoxville": 0}),
    (26, {"Memphis": 0, "Nashville": 10, "Chattanooga": 4, "Knoxville": 2}),
    (15, {"Memphis": 0, "Nashville": 6, "Chattanooga": 10, "Knoxville": 6}),
    (17, {"Memphis": 0, "Nashville": 5, "Chattanooga": 7, "Knoxville": 10}),
)
FORTY_FIVE: Profile[str] = {
    tuple("ACBED"): 5,
    tuple("ADECB"): 5,
    tuple("BEDAC"): 8,
    tuple("CABED"): 3,
    tuple("CAEBD"): 7,
    tuple("CBADE"): 2,
    tuple("DCEBA"): 7,
    tuple("EBADC"): 8,
}
BURLINGTON: Profile[str] = {
    ("Montroll", "Kiss", "Wright"): 1332,
    ("Montroll", "Wright", "Kiss"): 767,
    ("Montroll",): 455,
    ("Kiss", "Montroll", "Wright"): 2043,
    ("Kiss", "Wright", "Montroll"): 371,
    ("Kiss",): 568,
    ("Wright", "Montroll", "Kiss"): 1513,
    ("Wright", "Kiss", "Montroll"): 495,
    ("Wright",): 1289,
}
MAYORS = ("Montroll", "Kiss", "Wright")


def voters_of(rules: BallotRules, ballots: Sequence[tuple[Any, Any]]) -> dict[str, Marks]:
    """Each ballot as often as it was cast, by voters with a number for a name."""
    all_of_them = [ballot for number, ballot in ballots for _ in range(number)]
    return {f"voter {number}": read_choice(rules, ballot) for number, ballot in enumerate(all_of_them)}


def test_tennessee_ranked_elects_nashville_which_beats_each_other_city() -> None:
    pairs = compare_pairs(CITIES, TENNESSEE)
    assert [pairs.preferring("Nashville", other) for other in ("Memphis", "Chattanooga", "Knoxville")] == [58, 68, 68]
    assert pairs.preferring("Chattanooga", "Knoxville") == 83
    assert condorcet_winner(pairs) == "Nashville"
    assert schulze(pairs) == ["Nashville"]


def test_tennessee_ranked_as_a_vote() -> None:
    rules = BallotRules(kind="ranked", options=CITIES, threshold=0.58)
    outcome = count(rules, voters_of(rules, [(number, list(ballot)) for ballot, number in TENNESSEE.items()]))
    assert outcome.winners == ("Nashville",)
    assert [tally.count for tally in outcome.options] == [42, 26, 15, 17], "how many rank each first"
    assert outcome.threshold_met, "58 of 100 prefer Nashville even where it is closest"
    stricter = rules.model_copy(update={"threshold": 0.59})
    assert not count(stricter, voters_of(rules, [(n, list(b)) for b, n in TENNESSEE.items()])).threshold_met


def test_tennessee_by_instant_runoff_elects_knoxville() -> None:
    runoff = instant_runoff(CITIES, TENNESSEE)
    assert runoff.winners == ("Knoxville",)
    published: Any = (
        {"Memphis": 42, "Nashville": 26, "Chattanooga": 15, "Knoxville": 17},
        {"Memphis": 42, "Nashville": 26, "Knoxville": 32},
        {"Memphis": 42, "Knoxville": 58},
    )
    assert runoff.rounds == published


def test_tennessee_by_scores_elects_nashville() -> None:
    rules = BallotRules(kind="score", options=CITIES)
    outcome = count(rules, voters_of(rules, TENNESSEE_SCORES))
    assert [tally.weight for tally in outcome.options] == [420, 603, 457, 312]
    assert outcome.winners == ("Nashville",)


def test_tennessee_by_approval_of_the_two_nearest_elects_nashville() -> None:
    rules = BallotRules(kind="approval", options=CITIES)
    outcome = count(rules, voters_of(rules, [(number, list(ballot[:2])) for ballot, number in TENNESSEE.items()]))
    assert [tally.count for tally in outcome.options] == [42, 68, 58, 32]
    assert outcome.winners == ("Nashville",)


def test_tennessee_by_plurality_elects_memphis() -> None:
    rules = BallotRules(options=CITIES)
    outcome = count(rules, voters_of(rules, [(number, ballot[0]) for ballot, number in TENNESSEE.items()]))
    assert outcome.winners == ("Memphis",)


def test_schulzes_forty_five_voters() -> None:
    pairs = compare_pairs("ABCDE", FORTY_FIVE)
    published = {"AB": 20, "AC": 26, "AD": 30, "AE": 22, "BC": 16, "BD": 33, "BE": 18, "CD": 17, "CE": 24, "DE": 14}
    assert {one + other: pairs.preferring(one, other) for one, other in combinations("ABCDE", 2)} == published
    assert condorcet_winner(pairs) is None, "each of them is beaten by another"
    assert schulze(pairs) == ["E"]


@pytest.mark.parametrize(("out", "next_winner"), [("E", "A"), ("EA", "C"), ("EAC", "B"), ("EACB", "D")])
def test_schulzes_ranking_of_the_others(out: str, next_winner: str) -> None:
    """The published order is E, A, C, B, D; here each is what wins among those that are left."""
    left = tuple(option for option in "ABCDE" if option not in out)
    profile: dict[tuple[str, ...], Any] = {}
    for ballot, number in FORTY_FIVE.items():
        shorter = tuple(option for option in ballot if option in left)
        profile[shorter] = profile.get(shorter, 0) + number
    assert schulze(compare_pairs(left, profile)) == [next_winner]


def test_burlington_by_instant_runoff_elects_kiss() -> None:
    runoff = instant_runoff(MAYORS, BURLINGTON)
    published: Any = ({"Montroll": 2554, "Kiss": 2982, "Wright": 3297}, {"Kiss": 4314, "Wright": 4064})
    assert runoff.rounds == published
    assert runoff.winners == ("Kiss",)


def test_burlington_by_pairs_elects_montroll() -> None:
    pairs = compare_pairs(MAYORS, BURLINGTON)
    assert [pairs.preferring("Montroll", "Kiss"), pairs.preferring("Kiss", "Montroll")] == [4067, 3477]
    assert [pairs.preferring("Montroll", "Wright"), pairs.preferring("Wright", "Montroll")] == [4597, 3668]
    assert condorcet_winner(pairs) == "Montroll"
    assert schulze(pairs) == ["Montroll"]
