"""Counting ranked ballots: every pair of options, Schulze's method on the pairs, and instant run-off.

Pure and exact. Nothing here depends on the order of ballots or draws lots: where the votes do not decide, all who are
equal are returned. A `Profile` is the ballots that were cast, each different one once with its weight: options best
first, those left out behind all that are named and equal among themselves.

Sources: M. Schulze, "The Schulze Method of Voting", arXiv:1804.02973 (strength of a link: winning votes);
D. Woodall, "Properties of preferential election rules", Voting Matters 3 (1994), for instant run-off.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from math import lcm
from operator import or_
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

Profile = Mapping[tuple[T, ...], int | Fraction]


@dataclass(frozen=True, slots=True)
class Pairs(Generic[T]):
    """How options stand against each other: `table[a][b] / unit` is the weight of those who prefer option a to b."""

    options: tuple[T, ...]
    table: tuple[tuple[int, ...], ...]
    unit: int = 1

    def preferring(self, one: T, other: T) -> Fraction:
        """The weight of those who prefer `one` to `other`."""
        return Fraction(self.table[self.options.index(one)][self.options.index(other)], self.unit)


def compare_pairs(options: Sequence[T], profile: Profile[T]) -> Pairs[T]:
    """Every option against every other. Raises ValueError when a ballot names an option twice or an unknown one."""
    unit = lcm(*(weight.denominator for weight in profile.values() if isinstance(weight, Fraction)))
    weights = {ballot: int(weight * unit) for ballot, weight in profile.items()}
    # A row of the table is one long integer with a lane per option, so that a ballot adds its weight to all the
    # options below one of its own in a single addition.
    width = sum(weights.values()).bit_length() + 1
    lanes = {option: 1 << (width * position) for position, option in enumerate(options)}
    everything = reduce(or_, lanes.values(), 0)
    rows = dict.fromkeys(options, 0)
    for ballot, weight in weights.items():
        below = everything
        for option in ballot:
            if not below & lanes.get(option, 0):
                raise ValueError(f"a ballot names {option!r} twice, or it is no option")
            below ^= lanes[option]
            rows[option] += weight * below
    lane = (1 << width) - 1
    table = tuple(tuple(row >> (width * column) & lane for column in range(len(options))) for row in rows.values())
    return Pairs(tuple(options), table, unit)


def condorcet_winner(pairs: Pairs[T]) -> T | None:
    """The option that is preferred to every other, if there is one."""
    wins = pairs.table
    everyone = range(len(wins))
    beating_all = (a for a in everyone if all(wins[a][b] > wins[b][a] for b in everyone if a != b))
    winner = next(beating_all, None)
    return None if winner is None else pairs.options[winner]


def schulze(pairs: Pairs[T]) -> list[T]:
    """The winners by Schulze's method, in the order of the options. More than one is a tie.

    An option wins when no other has a stronger path to it than it has to the other. A path is as strong as its weakest
    link; a link leads from a to b when those who prefer a outweigh those who prefer b, and has their weight's strength.

    An option that beats all others wins; ranking a winner higher cannot make it lose; a copy of an option cannot make
    another win or lose.
    """
    wins = pairs.table
    everyone = range(len(wins))
    paths = [[wins[a][b] if wins[a][b] > wins[b][a] else 0 for b in everyone] for a in everyone]
    for middle in everyone:
        onwards = paths[middle]
        for start in everyone:
            reach = paths[start][middle]
            if start != middle and reach:
                paths[start] = [
                    straight if straight >= reach or straight >= on else min(reach, on)
                    for straight, on in zip(paths[start], onwards, strict=True)
                ]
    return [pairs.options[a] for a in everyone if all(paths[a][b] >= paths[b][a] for b in everyone if a != b)]


@dataclass(frozen=True, slots=True)
class Runoff(Generic[T]):
    """An instant run-off. `rounds` has the weight of each remaining option, round by round."""

    winners: tuple[T, ...]
    rounds: tuple[dict[T, Fraction], ...]


def instant_runoff(options: Sequence[T], profile: Profile[T]) -> Runoff[T]:
    """Remove the weakest until one has more than half of what still counts.

    In each round a ballot counts for the first option on it that remains. All that share the lowest weight go at once;
    when they are all that remain, they have won together. (Removing one of them by lot would give other results.)
    """
    remaining = list(options)
    rounds: list[dict[T, Fraction]] = []
    while remaining:
        held = dict.fromkeys(remaining, Fraction())
        for ballot, weight in profile.items():
            top = next((option for option in ballot if option in held), None)
            if top is not None:
                held[top] += weight
        rounds.append(held)
        most, least = max(held.values()), min(held.values())
        if most * 2 > sum(held.values()) or most == least:
            return Runoff(tuple(option for option in remaining if held[option] == most), tuple(rounds))
        remaining = [option for option in remaining if held[option] > least]
    return Runoff((), ())
