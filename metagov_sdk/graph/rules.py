"""A rule set: how the rows of an archive become a graph. Pure, so that the same archive gives the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, Self

from pydantic import Field, field_validator, model_validator
from typing_extensions import TypeVar

from metagov_sdk.archive import ArchiveReader
from metagov_sdk.graph.builder import GraphBuilder
from metagov_sdk.graph.declaration import Declaration, join_declarations
from metagov_sdk.graph.errors import GraphConflict, WrongGraph
from metagov_sdk.graph.graph import WeightedGraph
from metagov_sdk.graph.identities import IdentityProposal
from metagov_sdk.models import Config, Model


class GraphInput(Model):
    """A graph that a rule set takes in: another of this community's, or one from elsewhere by its URL."""

    name: str = Field(pattern="^[a-z][a-z0-9-]{0,39}$")
    """How the rule set and its conflicts call it."""
    plugin: str | None = None
    """The community's rule set whose graph it is; or else"""
    graph_url: str | None = None
    """where it lies: another gateway's share URL, or a SourceCred instance's `output/graphs/<owner>/<name>/graph`."""
    declaration_url: str | None = None
    identity_proposals_url: str | None = None
    merge: bool = True
    """Whether all of it goes into the graph; if not, it is only there for the rule set to read."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.plugin is None) == (self.graph_url is None):
            raise ValueError("an input has either a plugin or a graph_url")
        if self.plugin is not None and (self.declaration_url or self.identity_proposals_url):
            raise ValueError("a plugin's graph needs no URLs")
        return self


class GraphConfig(Config):
    """The configuration of a rule set; derive yours, and give `source` a default if one provider is meant."""

    source: str
    """The plugin whose archive is read."""
    inputs: tuple[GraphInput, ...] = ()
    """Graphs that are taken in."""

    @field_validator("inputs")
    @classmethod
    def _distinct(cls, inputs: tuple[GraphInput, ...]) -> tuple[GraphInput, ...]:
        if len({each.name for each in inputs}) != len(inputs):
            raise ValueError("two inputs have one name")
        return inputs


@dataclass(frozen=True, slots=True)
class PublishedGraph:
    """A graph with what is published beside it. An input from elsewhere may be the bare graph."""

    graph: WeightedGraph
    declaration: Declaration | None = None
    identities: Sequence[IdentityProposal] = ()


GraphConfigT = TypeVar("GraphConfigT", bound=GraphConfig)


class GraphRules(Generic[GraphConfigT]):
    """Makes a graph of an archive: `class PropsGraph(GraphRules[PropsConfig])`, with a docstring that describes it.

    Nothing but the archive, the configuration and the inputs may go into it: no clock, no chance, no network.

    plugin_name  what SourceCred adds to an identity's name that is taken; letters, digits and hyphens.
    inputs       names of inputs that it cannot do without.
    """

    plugin_name: ClassVar[str]
    inputs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: GraphConfigT) -> None:
        self.config = config

    def declaration(self) -> Declaration:
        """The kinds of nodes and edges it makes. Inputs' kinds are added to them by whoever merges."""
        raise NotImplementedError

    async def build(self, archive: ArchiveReader, graph: GraphBuilder, inputs: Mapping[str, PublishedGraph]) -> None:
        """Add to `graph` what the archive tells. `inputs` are by name, those that are merged anyway among them.

        Raises ArchiveError as the reader does (an unknown table, missing fields), GraphError as the builder does.
        """
        raise NotImplementedError


async def build_graph(
    rules: GraphRules[GraphConfigT], archive: ArchiveReader, inputs: Mapping[str, PublishedGraph] | None = None
) -> PublishedGraph:
    """Run a rule set, merge in the inputs that are to be, and check what came of it.

    inputs: by name, all that the configuration lists. The declaration is the rule set's and its merged inputs' in one.

    Raises what `build` raises; GraphConflict when sources contradict each other or a weight repeats a type's prefix;
    WrongGraph when an input is missing. Reading the archive gives way to others on the loop, the rest takes processor
    time without a break.
    """
    given = inputs or {}
    wanted = {*rules.inputs, *(each.name for each in rules.config.inputs)}
    if missing := sorted(wanted - given.keys()):
        raise WrongGraph(f"there is no input {missing[0]!r}: name it under `inputs`, with a plugin or a graph_url")
    builder = GraphBuilder(rules.plugin_name)
    await rules.build(archive, builder, given)
    merged = {each.name: given[each.name] for each in rules.config.inputs if each.merge}
    for name, published in sorted(merged.items()):
        builder.include(published.graph, name)
        builder.include_identities(published.identities)
    declarations = [each.declaration for each in merged.values() if each.declaration is not None]
    declaration = join_declarations(rules.declaration(), declarations)
    graph = builder.finish()
    if conflicts := graph.conflicts_with(declaration):
        raise GraphConflict(conflicts)
    return PublishedGraph(graph, declaration, builder.identities())
