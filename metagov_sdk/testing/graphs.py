"""Run a plugin's graph rules in a test, on an archive in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from metagov_sdk.archive import ArchivedTable, ArchiveReader
from metagov_sdk.graph import (
    GraphConfig,
    PublishedGraph,
    build_graph,
    read_declaration,
    read_graph,
    write_declaration,
    write_graph,
    write_identities,
)
from metagov_sdk.manifest import Manifest
from metagov_sdk.testing.archives import ArchiveInMemory
from metagov_sdk.testing.binding import ContractError, typed

Tables = Mapping[str, Sequence[Mapping[str, Any]]]


async def build_graph_of(
    manifest: Manifest,
    archive: ArchiveReader | Tables,
    *,
    config: GraphConfig | Mapping[str, Any] | None = None,
    inputs: Mapping[str, PublishedGraph] | None = None,
) -> PublishedGraph:
    """What a plugin's rules make of an archive, or of tables given as `ArchiveInMemory` takes them.

    They run twice, the second time with the rows cut into other batches. Raises ContractError when that gives other
    bytes or a file that cannot be read back, pydantic.ValidationError for a config that the gateway would not take,
    LookupError for a plugin without rules, and what `build_graph` raises.
    """
    if manifest.graph is None:
        raise LookupError(f"the plugin {manifest.name!r} has no graph rules: Manifest(…, graph=…)")
    settled = typed(manifest.config, config or {})
    reader = archive if isinstance(archive, ArchiveReader) else ArchiveInMemory(archive)
    built = await build_graph(manifest.graph(settled), reader, inputs)
    again = await build_graph(manifest.graph(settled), _InSmallBatches(reader), inputs)
    for file, first, second in zip(_FILES, _files(built), _files(again), strict=True):
        if first != second:
            raise ContractError(
                f"{manifest.name}: {file} is another the second time; rules see nothing but rows, config and inputs"
            )
    graph, declaration, _ = _files(built)
    if read_graph([graph], declaration=read_declaration(declaration)) != built.graph:
        raise ContractError(f"{manifest.name}: graph.json is read back as another graph")
    return built


_FILES = ("graph.json", "declaration.json", "identityProposals.json")


def _files(built: PublishedGraph) -> tuple[bytes, bytes, bytes]:
    if built.declaration is None:
        raise ContractError("a rule set's graph has a declaration")
    graph = b"".join(write_graph(built.graph))
    return graph, write_declaration(built.declaration), write_identities(built.identities)


class _InSmallBatches(ArchiveReader):
    """The same archive, two rows at a time."""

    def __init__(self, archive: ArchiveReader) -> None:
        self._archive = archive
        self.provider, self.community, self.snapshot = archive.provider, archive.community, archive.snapshot

    def tables(self) -> Sequence[ArchivedTable]:
        return self._archive.tables()

    async def batches(
        self, table: ArchivedTable, *, partition: str | None = None, since: datetime | None = None
    ) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
        async for batch in self._archive.batches(table, partition=partition, since=since):
            for start in range(0, len(batch), 2):
                yield batch[start : start + 2]
