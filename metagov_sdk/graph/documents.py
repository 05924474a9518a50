"""Reading the two small files beside a graph: its declaration, and its identity proposals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, FiniteFloat, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from metagov_sdk.graph.addresses import Address, key_of
from metagov_sdk.graph.declaration import Declaration, EdgeType, NodeType
from metagov_sdk.graph.errors import UnreadableGraph, WrongGraph
from metagov_sdk.graph.identities import LONGEST_IN_LEDGER, IdentityProposal, IdentityType
from metagov_sdk.graph.scan import JsonScanner, below
from metagov_sdk.graph.unpack import ReadLimits, unpack
from metagov_sdk.graph.weights import EdgeWeight

MOST_TYPES = 500
"""Of a declaration, of each kind. SourceCred's own have a dozen; whoever sorts nodes by them looks through all."""
SMALL = ReadLimits(packed=8 * 2**20, unpacked=32 * 2**20, element=32 * 2**20)
"""What is taken of a declaration or of proposals: 5,000 participants need about a megabyte."""

ModelT = TypeVar("ModelT")


def read_declaration(data: bytes, limits: ReadLimits = SMALL) -> Declaration:
    """What is in a `declaration.json` (plain, zlib or gzip). Raises UnreadableGraph with the place."""
    found = _read(data, limits, TypeAdapter(_Declaration))
    try:
        return Declaration(
            found.name,
            found.node_prefix,
            found.edge_prefix,
            tuple(each.type() for each in found.node_types),
            tuple(each.type() for each in found.edge_types),
            tuple(each.type() for each in found.user_types),
            tuple(found.keys.operator_keys),
            tuple(found.keys.weight_keys),
            tuple(found.keys.share_keys),
        )
    except WrongGraph as error:
        raise UnreadableGraph("", str(error)) from None


def read_identities(data: bytes, limits: ReadLimits = SMALL) -> Sequence[IdentityProposal]:
    """What is in an `identityProposals.json` (plain, zlib or gzip). Raises UnreadableGraph with the place."""
    return [
        IdentityProposal(each.name, each.plugin_name, each.type, each.alias.address, each.alias.description)
        for each in _read(data, limits, TypeAdapter(Annotated[list[_Proposal], FailFast()]))
    ]


def _read(data: bytes, limits: ReadLimits, adapter: TypeAdapter[ModelT]) -> ModelT:
    scanner = JsonScanner(unpack([data], limits), limits.element)
    value = scanner.value("")
    scanner.end()
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        pointer = ""
        for part in first["loc"]:
            pointer = below(pointer, part)
        raise UnreadableGraph(pointer, first["msg"]) from None


def _node_address(text: Any) -> Address:
    return _address(text, "N")


def _edge_address(text: Any) -> Address:
    return _address(text, "E")


def _address(text: Any, nonce: str) -> Address:
    if not isinstance(text, str) or not text.startswith(f"{nonce}\0") or not text.endswith("\0"):
        raise ValueError(f"an address should begin with {nonce} and NUL, and end with NUL")
    address = tuple(text.split("\0")[1:-1])
    try:
        key_of(address)
    except WrongGraph as error:
        raise ValueError(str(error)) from None
    return address


_NodeAddress = Annotated[Address, BeforeValidator(_node_address)]
_EdgeAddress = Annotated[Address, BeforeValidator(_edge_address)]
_Weight = Annotated[FiniteFloat, Field(ge=0)]
_Name = Annotated[str, Field(pattern="^[A-Za-z0-9-]+$", max_length=LONGEST_IN_LEDGER)]


class _Shape(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, strict=True, hide_input_in_errors=True)


class _NodeType(_Shape):
    name: str
    plural_name: str
    prefix: _NodeAddress
    default_weight: _Weight
    description: str

    def type(self) -> NodeType:
        return NodeType(self.name, self.plural_name, self.prefix, self.default_weight, self.description)


class _Both(_Shape):
    forwards: _Weight
    backwards: _Weight


class _EdgeType(_Shape):
    forward_name: str
    backward_name: str
    prefix: _EdgeAddress
    default_weight: _Both
    description: str

    def type(self) -> EdgeType:
        weight = EdgeWeight(self.default_weight.forwards, self.default_weight.backwards)
        return EdgeType(self.forward_name, self.backward_name, self.prefix, weight, self.description)


# One mistake is enough, and millions of them cost memory.
_NodeTypes = Annotated[list[_NodeType], Field(max_length=MOST_TYPES), FailFast()]
_EdgeTypes = Annotated[list[_EdgeType], Field(max_length=MOST_TYPES), FailFast()]
_Words = Annotated[list[str], FailFast()]


class _Keys(_Shape):
    operator_keys: _Words
    weight_keys: _Words
    share_keys: _Words


class _Declaration(_Shape):
    name: str
    node_prefix: _NodeAddress
    edge_prefix: _EdgeAddress
    node_types: _NodeTypes
    edge_types: _EdgeTypes
    user_types: _NodeTypes
    keys: _Keys


class _Alias(_Shape):
    address: _NodeAddress
    description: str


class _Proposal(_Shape):
    name: _Name
    plugin_name: _Name
    type: IdentityType
    alias: _Alias
