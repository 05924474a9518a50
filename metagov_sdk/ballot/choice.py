"""One voter's choice: read from JSON, held to the rules, kept small."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, NoReturn

from pydantic import JsonValue

from metagov_sdk.ballot.params import HIGHEST_SCORE, BallotRules, clipped
from metagov_sdk.errors import Invalid


class Marks(NamedTuple):
    """What a ballot says, with options by their position in the list of options.

    options  as chosen; ranked: best first; None: an abstention.
    scores   of these options, in the same order, for a vote by scores.
    """

    options: tuple[int, ...] | None
    scores: tuple[float, ...] = ()


ABSTENTION = Marks(None)


def read_choice(rules: BallotRules, choice: JsonValue) -> Marks:
    """The choice as marks on the ballot: `str | [str] | {option: score} | null`, null being an abstention.

    Raises Invalid, with a pointer at or below `/choice`, for an option that is not on the ballot or named twice, for
    too many, for none at all, and for a score outside its range.
    """
    if choice is None:
        return ABSTENTION
    if rules.kind == "score":
        return _read_scores(rules, choice)
    if isinstance(choice, str):
        return Marks((_position(rules, choice, "/choice"),))
    if not isinstance(choice, list):
        _refuse("/choice", "should be an option, or a list of options")
    _check_number(rules, len(choice))
    seen: dict[int, None] = {}
    for at, option in enumerate(choice):
        position = _position(rules, option, f"/choice/{at}")
        if position in seen:
            _refuse(f"/choice/{at}", f"names {clipped(rules.options[position])} a second time")
        seen[position] = None
    return Marks(tuple(seen))


def _read_scores(rules: BallotRules, choice: JsonValue) -> Marks:
    if not isinstance(choice, Mapping):
        _refuse("/choice", f"should give options their scores, as in {{option: {HIGHEST_SCORE}}}")
    _check_number(rules, len(choice))
    scores = {}
    for option, score in choice.items():
        where = f"/choice/{_escaped(option)}"
        position = _position(rules, option, where)
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= HIGHEST_SCORE:
            _refuse(where, f"should be a score from 0 to {HIGHEST_SCORE}")
        scores[position] = float(score)
    by_position = sorted(scores.items())
    return Marks(tuple(position for position, _ in by_position), tuple(score for _, score in by_position))


def _check_number(rules: BallotRules, number: int) -> None:
    if number == 0:
        _refuse("/choice", "should name an option; null abstains")
    most = 1 if rules.kind == "single" else rules.max_choices
    if most is not None and number > most:
        _refuse("/choice", f"should name {most} option{'s' * (most > 1)} at most, and names {number}")


def _position(rules: BallotRules, option: JsonValue, pointer: str) -> int:
    if not isinstance(option, str):
        _refuse(pointer, "should be the text of an option")
    position = rules.positions.get(option)
    if position is None:
        _refuse(pointer, f"{clipped(option)} is not an option of this vote")
    return position


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _refuse(pointer: str, reason: str) -> NoReturn:
    raise Invalid(pointer, reason)
