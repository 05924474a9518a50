"""What has to hold for any ballots at all: neither order nor names matter, and each method keeps its promises."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from metagov_sdk.ballot import (
    BallotOutcome,
    BallotRules,
    Kind,
    Marks,
    Pairs,
    Profile,
    compare_pairs,
    condorcet_winner,
    count,
    instant_runoff,
    read_choice,
    schulze,
)

OPTIONS = ("a", "b", "c", "d")
KINDS: tuple[Kind, ...] = ("single", "multiple", "ranked", "score", "approval")

rankings = st.permutations(OPTIONS).flatmap(lambda order: st.integers(1, 4).map(lambda size: tuple(order[:size])))
full_rankings = st.permutations(OPTIONS).map(tuple)
weights = st.fractions(0, 5, max_denominator=6)
profiles = st.dictionaries(rankings, weights, max_size=8)
full_profiles = st.dictionaries(full_rankings, st.integers(1, 5), min_size=1, max_size=8)


def choices(kind: Kind) -> st.SearchStrategy[Any]:
    scores = st.one_of(st.integers(0, 10), st.sampled_from([0.1, 0.2, 0.3, 9.99]))
    by_kind: dict[Kind, st.SearchStrategy[Any]] = {
        "single": st.sampled_from(OPTIONS),
        "score": st.dictionaries(st.sampled_from(OPTIONS), scores, min_size=1),
    }
    several = st.lists(st.sampled_from(OPTIONS), min_size=1, unique=True)
    return st.none() | by_kind.get(kind, several)


elections = st.sampled_from(KINDS).flatmap(
    lambda kind: st.tuples(
        st.just(kind),
        st.dictionaries(st.text("xyzé🌍", min_size=1, max_size=3), choices(kind), max_size=12),
    )
)
some_weights = st.dictionaries(
    st.text("xyzé🌍", min_size=1, max_size=3), st.sampled_from([0, 0.1, 0.2, 0.3, 1, 2.5, 1e15 / 3, 1e-9]), max_size=6
)


def counted(kind: Kind, votes: dict[str, Any], **rules: Any) -> BallotOutcome:
    checked = BallotRules(kind=kind, **{"options": OPTIONS, **rules})
    return count(checked, {voter: read_choice(checked, choice) for voter, choice in votes.items()})


@given(elections, some_weights, st.randoms(use_true_random=False))
def test_the_order_of_votes_does_not_matter(election: tuple[Kind, Any], weights: dict[str, float], random: Any) -> None:
    kind, votes = election
    shuffled = list(votes.items())
    random.shuffle(shuffled)
    assert counted(kind, votes, weights=weights) == counted(kind, dict(shuffled), weights=weights)


@given(elections, some_weights, st.permutations(OPTIONS))
def test_other_names_for_the_options_name_other_winners(
    election: tuple[Kind, Any], weights: dict[str, float], names: list[str]
) -> None:
    kind, votes = election
    new = dict(zip(OPTIONS, names, strict=True))

    def renamed(choice: Any) -> Any:
        if isinstance(choice, dict):
            return {new[option]: score for option, score in choice.items()}
        if isinstance(choice, list):
            return [new[option] for option in choice]
        return choice and new[choice]

    before = counted(kind, votes, weights=weights)
    after = counted(kind, {voter: renamed(choice) for voter, choice in votes.items()}, weights=weights)
    assert {new[winner] for winner in before.winners} == set(after.winners)
    assert {new[tally.option]: tally.weight for tally in before.options} == {
        tally.option: tally.weight for tally in after.options
    }


@given(elections, some_weights)
def test_the_outcome_adds_up(election: tuple[Kind, Any], weights: dict[str, float]) -> None:
    kind, votes = election
    outcome = counted(kind, votes, weights=weights)
    assert outcome.total_voters == len(votes)
    assert outcome.abstained == sum(choice is None for choice in votes.values())
    assert outcome.tie == (len(outcome.winners) > 1)
    moving = [voter for voter, choice in votes.items() if choice is not None and weights.get(voter, 1) > 0]
    if kind != "score":
        assert bool(outcome.winners) == bool(moving), "somebody chose, so something wins"
    for tally in outcome.options:
        assert tally.voters is not None
        assert tally.count == len(tally.voters)
        assert list(tally.voters) == sorted(tally.voters)
    if kind in ("single", "ranked"):
        assert sum(tally.count for tally in outcome.options) == len(votes) - outcome.abstained


@given(st.sampled_from(KINDS), st.sampled_from(OPTIONS), st.integers(1, 5))
def test_what_all_want_wins_alone_with_every_vote(kind: Kind, favourite: str, number: int) -> None:
    choice: Any = {favourite: 10} if kind == "score" else favourite
    outcome = counted(kind, {f"v{index}": choice for index in range(number)}, threshold=1)
    assert (outcome.winners, outcome.tie, outcome.threshold_met) == ((favourite,), False, True)


@given(elections)
def test_a_voter_of_no_weight_changes_no_winner(election: tuple[Kind, Any]) -> None:
    kind, votes = election
    voter = next(iter(votes), None)
    assume(voter is not None)
    without = {name: choice for name, choice in votes.items() if name != voter}
    weightless = counted(kind, votes, weights={voter: 0})
    assert weightless.winners == counted(kind, without).winners
    assert weightless.total_voters == len(votes)


@given(elections)
def test_equal_weights_change_no_winner(election: tuple[Kind, Any]) -> None:
    kind, votes = election
    heavy = counted(kind, votes, weights=dict.fromkeys(votes, 0.1))
    assert heavy.winners == counted(kind, votes).winners
    assert heavy.threshold_met == counted(kind, votes).threshold_met


@given(profiles)
def test_one_that_beats_every_other_wins_alone(profile: dict[tuple[str, ...], Fraction]) -> None:
    pairs = compare_pairs(OPTIONS, profile)
    winner = condorcet_winner(pairs)
    assume(winner is not None)
    assert schulze(pairs) == [winner]


@given(profiles)
def test_pairs_are_what_a_plain_count_gives(profile: dict[tuple[str, ...], Fraction]) -> None:
    pairs = compare_pairs(OPTIONS, profile)
    for one in OPTIONS:
        for other in OPTIONS:
            plain = Fraction(0)
            for ballot, weight in profile.items():
                if one in ballot and (other not in ballot or ballot.index(one) < ballot.index(other)):
                    plain += weight if one != other else 0
            assert pairs.preferring(one, other) == plain


@given(full_profiles, st.data())
def test_ranking_a_schulze_winner_higher_does_not_make_it_lose(
    profile: dict[tuple[str, ...], int], data: st.DataObject
) -> None:
    winner = schulze(compare_pairs(OPTIONS, profile))[0]
    ballot = data.draw(st.sampled_from(sorted(profile)))
    weight = profile.pop(ballot)
    place = data.draw(st.integers(0, ballot.index(winner)))
    others = [option for option in ballot if option != winner]
    raised = (*others[:place], winner, *others[place:])
    profile[raised] = profile.get(raised, 0) + weight
    assert winner in schulze(compare_pairs(OPTIONS, profile))


def with_a_copy(profile: dict[tuple[str, ...], int], copied: str, data: st.DataObject) -> dict[tuple[str, ...], int]:
    """The same ballots with a further option, next to `copied` on each of them."""
    cloned: dict[tuple[str, ...], int] = {}
    for ballot, weight in profile.items():
        pair = data.draw(st.sampled_from([(copied, "copy"), ("copy", copied)]))
        place = ballot.index(copied)
        longer = (*ballot[:place], *pair, *ballot[place + 1 :])
        cloned[longer] = cloned.get(longer, 0) + weight
    return cloned


@given(full_profiles, st.sampled_from(OPTIONS), st.data())
def test_a_copy_of_an_option_does_not_change_who_wins_by_schulze(
    profile: dict[tuple[str, ...], int], copied: str, data: st.DataObject
) -> None:
    before = schulze(compare_pairs(OPTIONS, profile))
    after = schulze(compare_pairs((*OPTIONS, "copy"), with_a_copy(profile, copied, data)))
    assert {copied if winner == "copy" else winner for winner in after} == set(before)


def _without_ties(rounds: tuple[dict[str, Fraction], ...]) -> bool:
    return all(list(held.values()).count(min(held.values())) == 1 for held in rounds)


# Small electorates tie often, and the law says nothing of ties.
@settings(suppress_health_check=[HealthCheck.filter_too_much])
@given(full_profiles, st.sampled_from(OPTIONS), st.data())
def test_a_copy_of_an_option_does_not_change_who_wins_by_runoff(
    profile: dict[tuple[str, ...], int], copied: str, data: st.DataObject
) -> None:
    before = instant_runoff(OPTIONS, profile)
    after = instant_runoff((*OPTIONS, "copy"), with_a_copy(profile, copied, data))
    assume(_without_ties(before.rounds) and _without_ties(after.rounds))
    assert {copied if winner == "copy" else winner for winner in after.winners} == set(before.winners)


@given(profiles)
def test_a_runoff_ends_with_a_majority_or_a_tie_of_all_that_remain(profile: dict[tuple[str, ...], Fraction]) -> None:
    runoff = instant_runoff(OPTIONS, profile)
    last = runoff.rounds[-1]
    assert runoff.winners
    if len(runoff.winners) == 1:
        assert last[runoff.winners[0]] * 2 > sum(last.values()) or len(last) == 1
    else:
        assert set(runoff.winners) == set(last)
        assert len(set(last.values())) == 1


def test_a_perfect_cycle_is_a_tie_of_all() -> None:
    cycle: Profile[str] = {("a", "b", "c"): 1, ("b", "c", "a"): 1, ("c", "a", "b"): 1}
    assert schulze(compare_pairs("abc", cycle)) == ["a", "b", "c"]
    assert instant_runoff("abc", cycle).winners == ("a", "b", "c")


def test_a_drawn_comparison_is_no_link_of_a_path() -> None:
    """Nine prefer a to b and nine b to a; were that a link, a would come level with b by way of it."""
    pairs = Pairs(("a", "b", "c"), ((0, 9, 1), (9, 0, 3), (2, 2, 0)))
    assert schulze(pairs) == ["b"]


def test_of_tied_winners_each_has_to_reach_the_threshold() -> None:
    votes = {"v1": ["a", "b"], "v2": ["c", "a", "b"], "v3": ["b"], "v4": ["b"]}
    outcome = counted("ranked", votes, threshold=0.5)
    assert (outcome.winners, outcome.threshold_met) == (("a", "b"), False), "one of four prefers a to c"
    assert counted("ranked", votes, threshold=0.25).threshold_met


def test_a_tenth_three_times_is_three_tenths() -> None:
    """As floats, 0.1 + 0.2 is more than 0.3, and there would be a winner where there is a tie."""
    votes = {"x": "a", "y": "a", "z": "b"}
    outcome = counted("single", votes, weights={"x": 0.1, "y": 0.2, "z": 0.3})
    assert (outcome.winners, outcome.tie) == (("a", "b"), True)
    by_scores = counted("score", {"x": {"a": 0.1, "b": 0.3}, "y": {"a": 0.2}})
    assert (by_scores.winners, by_scores.tie) == (("a", "b"), True)


def test_marks_compare_by_what_they_say() -> None:
    assert read_choice(BallotRules(options=OPTIONS), "b") == Marks((1,))
