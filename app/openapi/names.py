"""Names for generated clients: stable, readable, and never given twice."""

from __future__ import annotations

import re
from collections.abc import Iterable

_WORD = re.compile(r"[A-Za-z0-9]+")


def pascal(text: str) -> str:
    """`delayed-stochastic-vote` as `DelayedStochasticVote`; capitals that are there already stay."""
    return "".join(word[0].upper() + word[1:] for word in _WORD.findall(text))


def snake(*parts: str) -> str:
    """`("slack", "post-message")` as `slack_post_message`."""
    return "_".join(word.lower() for part in parts for word in _WORD.findall(part))


def prefixed(plugin: str, name: str) -> str:
    """`PostMessageParams` of the plugin `slack` as `SlackPostMessageParams`, without saying the plugin twice."""
    prefix = pascal(plugin)
    name = pascal(name)
    if name.lower().startswith(prefix.lower()):
        name = name[len(prefix) :]
    return prefix + pascal(name)


class Names:
    """Gives out names. A taken one gets a number, whatever its capitals: generators turn names into file names."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = {name.lower() for name in taken}

    def are_free(self, wanted: Iterable[str]) -> bool:
        """Whether none of them is taken."""
        return self._taken.isdisjoint(name.lower() for name in wanted)

    def give(self, wanted: str, separator: str = "") -> str:
        """The name itself, or the first free one of `name2`, `name3`, …"""
        name, number = wanted, 1
        while name.lower() in self._taken:
            number += 1
            name = f"{wanted}{separator}{number}"
        self._taken.add(name.lower())
        return name
