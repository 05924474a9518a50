"""Identity proposals: whom SourceCred should give a score, and how to call them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from metagov_sdk.graph.addresses import Address, Key, key_of, raw
from metagov_sdk.graph.javascript import dump, encode

IdentityType = Literal["USER", "PROJECT", "ORGANIZATION", "BOT"]
LONGEST_NAME = 30
"""Characters, at most."""
LONGEST_IN_LEDGER = 42
"""SourceCred's bound. Of a name that is taken it makes `name-plugin-99`, which has to fit (identityProposal.js)."""

_INVALID = re.compile(r"[^A-Za-z0-9-]")


@dataclass(frozen=True, slots=True)
class IdentityProposal:
    """A participant: `address` is its node, `name` how it is called, `description` what its alias shows."""

    name: str
    plugin_name: str
    type: IdentityType
    address: Address
    description: str


def identity_name(wanted: str, plugin_name: str, address: Address) -> str:
    """A valid name of what somebody would like to be called, as SourceCred's Discord plugin makes it, but shorter.

    Every UTF-16 code unit that is no ASCII letter, digit or hyphen becomes a hyphen. If nothing else is left, the name
    is the plugin's and the address's last part.
    """
    longest = max(1, min(LONGEST_NAME, LONGEST_IN_LEDGER - len(f"-{plugin_name}-99")))
    for text in (wanted, f"{plugin_name}-{address[-1] if address else ''}"):
        # No more than `longest` characters count, and each is one code unit or two.
        name = _INVALID.sub(lambda letter: "-" * (1 + (letter[0] > "\uffff")), text[:longest])[:longest]
        if name.strip("-"):
            return name
    return "participant"[:longest]


def propose(
    own: Iterable[IdentityProposal], others: Iterable[IdentityProposal], settled: Iterable[IdentityProposal] = ()
) -> Sequence[IdentityProposal]:
    """The proposals by address, with names that are valid and distinct, whatever the order they come in.

    Names that differ only in case are not distinct. The first by address keeps the name, own ones before others; the
    rest get a number. Of an address that is proposed more than once the own proposal is kept, or else the first.
    settled: own ones that stay as they are, alike or not; the names of the rest are distinct from theirs.
    """
    fixed = {key_of(proposal.address): proposal for proposal in settled}
    by_address: dict[Key, tuple[bool, IdentityProposal]] = {}
    for is_other, proposals in ((False, own), (True, others)):
        for proposal in proposals:
            if (key := key_of(proposal.address)) not in fixed:
                by_address.setdefault(key, (is_other, proposal))
    ordered = sorted(by_address, key=lambda key: (by_address[key][0], key))
    names: dict[Key, str] = {}
    taken = {proposal.name.lower() for proposal in fixed.values()}
    clashes = []
    for key in ordered:
        proposal = by_address[key][1]
        name = identity_name(proposal.name, proposal.plugin_name, proposal.address)
        names[key] = name
        if name.lower() in taken:
            clashes.append(key)
        taken.add(name.lower())
    last: dict[str, int] = {}
    for key in clashes:
        name = names[key]
        number, free = last.get(name.lower(), 1), name
        while free.lower() in taken:
            number += 1
            free = f"{name[: LONGEST_NAME - 6]}-{number}"
        last[name.lower()] = number
        names[key] = free
        taken.add(free.lower())
    fixed |= {key: replace(proposal, name=names[key]) for key, (_, proposal) in by_address.items()}
    return [fixed[key] for key in sorted(fixed)]


def write_identities(proposals: Iterable[IdentityProposal]) -> bytes:
    """`identityProposals.json`, in the order of the addresses."""
    return encode(
        dump(
            [
                {
                    "name": each.name,
                    "pluginName": each.plugin_name,
                    "type": each.type,
                    "alias": {"address": raw("N", each.address), "description": each.description},
                }
                for each in sorted(proposals, key=lambda proposal: key_of(proposal.address))
            ]
        )
    )
