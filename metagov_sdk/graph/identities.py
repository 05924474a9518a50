"""Identity proposals: whom SourceCred should give a score, and how to call them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from metagov_sdk.graph.addresses import Address

IdentityType = Literal["USER", "PROJECT", "ORGANIZATION", "BOT"]
LONGEST_NAME = 30
"""Characters. SourceCred adds the plugin's name and a number to one that is taken already, and takes 39 in all."""


@dataclass(frozen=True, slots=True)
class IdentityProposal:
    """A participant: `address` is its node, `name` how it is called, `description` what its alias shows."""

    name: str
    plugin_name: str
    type: IdentityType
    address: Address
    description: str


def identity_names(wanted: Iterable[tuple[Address, str]]) -> dict[Address, str]:
    """A valid name for each address, made of what it would like to be called; no two alike, whatever the order.

    Names are of `[A-Za-z0-9-]`, up to LONGEST_NAME characters; two that differ only in case are a clash, too.
    """
    raise NotImplementedError


def write_identities(proposals: Iterable[IdentityProposal]) -> bytes:
    """`identityProposals.json`, in the order of the addresses."""
    raise NotImplementedError


def read_identities(data: bytes) -> Sequence[IdentityProposal]:
    """What is in an `identityProposals.json` (plain, zlib or gzip). Raises UnreadableGraph."""
    raise NotImplementedError
