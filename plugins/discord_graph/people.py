"""Members: their addresses, roles' weights and names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from metagov_sdk.graph import Address, IdentityProposal, Key, key_of
from metagov_sdk.graph.descriptions import cut, escape
from plugins.discord_graph.config import RoleWeights
from plugins.discord_graph.kinds import MEMBER

_NAME_UNITS, _USERNAME_UNITS = 39, 20
_NOT_IN_NAMES = re.compile("[^A-Za-z0-9-]")
_SUFFIX = re.compile(r"(-discord(-[0-9]+)?)+\Z")
_LONGEST_TO_CLASH = 31
"""SourceCred makes `name-discord-7` of a name that is taken, and gives up past 42 characters and past 99."""
_MOST_ALIKE = 20
_ROOM_FOR = {32: 6, 33: 2, 34: 2}
_ROOM = 80
"""How many may be alike, by their longest name, until SourceCred is spared them. It has room for 101 (for 11 of 32
characters); some of it was given to those who have had the name before, or is to be."""


@dataclass(frozen=True, slots=True)
class Person:
    """A member. `weight` is what their reactions are multiplied by."""

    id: str
    kind: str
    """"user" or "bot"."""
    address: Address
    key: Key
    """Of its id."""
    kind_key: Key
    """Of its kind and id."""
    description: str
    weight: float
    name: str
    tag: str


def person(raw: Mapping[str, Any], roles: RoleWeights) -> Person:
    """A member of an archive."""
    id = raw["id"]
    kind = "bot" if raw.get("bot") or raw.get("system") else "user"
    tag = raw.get("discriminator") or "0"
    username = raw.get("username") or ""
    weight = roles.defaultWeight
    for role in raw.get("roles") or ():
        weight = max(weight, roles.weights.get(role, 0) if isinstance(role, str) else 0)
    return Person(
        id=id,
        kind=kind,
        address=(*MEMBER, kind, id),
        key=key_of((id,)),
        kind_key=key_of((kind, id)),
        description=f"discord/{escape(cut(username, _USERNAME_UNITS))}#{tag}",
        weight=weight,
        name=_name(raw.get("nick") or username, id),
        tag=tag,
    )


def proposals(people: Iterable[Person]) -> Iterator[IdentityProposal]:
    """Identities as SourceCred's plugin proposes them, with its names.

    It would give up where a name is taken that is too long for a suffix, or taken a hundred times. Before it comes to
    that, members with a long name, and all but some of those with a short one, get the name that it gives to members
    without a usable one.
    """
    everybody = sorted(people, key=lambda one: one.address)
    alike: dict[str, list[int]] = {}
    for one in everybody:
        alike.setdefault(_base(one.name), []).append(len(one.name))
    crowded = {base for base, lengths in alike.items() if len(lengths) > _room(max(lengths))}
    seen: dict[str, int] = {}
    for one in everybody:
        base = _base(one.name)
        seen[base] = before = seen.get(base, 0) + 1
        clashes = base in crowded and (len(one.name) > _LONGEST_TO_CLASH or before > _MOST_ALIKE)
        yield IdentityProposal(
            name=f"discord-{one.id}" if clashes else one.name,
            plugin_name="discord",
            type="BOT" if one.kind == "bot" else "USER",
            address=one.address,
            description=f"discord/{escape(one.name)}#{one.tag}",
        )


def _room(longest: int) -> int:
    return _ROOM if longest <= _LONGEST_TO_CLASH else _ROOM_FOR.get(longest, 1)


def _name(wanted: str, id: str) -> str:
    units = len(wanted.encode("utf-16-le", "surrogatepass")) // 2
    if units != len(wanted):
        # A character beyond the first plane counts twice, and leaves two hyphens.
        wanted = "".join("--" if ord(character) > 0xFFFF else character for character in wanted)
    name = _NOT_IN_NAMES.sub("-", wanted[:_NAME_UNITS])
    return name if name.strip("-") else f"discord-{_NOT_IN_NAMES.sub('-', id)}"[:_NAME_UNITS]


def _base(name: str) -> str:
    """What SourceCred's own suffixes may have been added to."""
    return _SUFFIX.sub("", name.lower())
