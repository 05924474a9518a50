"""The process in which a graph is built: `python -m app.graphs.child`, a job on its standard input.

A process of its own, so that the worker's loop goes on and the memory of a large graph is given back. It says how far
it is, and what came of it, as lines of JSON on its standard output. When its standard input ends, whoever asked for
the graph is gone, and so is it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sqlite3
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, TypedDict

from app.archives.read import open_archive
from app.archives.stores import Deployment, open_store
from app.graphs.files import PIECE, GraphFiles, Kept
from app.graphs.index import index_name, write_index
from metagov_sdk.archive import ArchiveAway, ArchivedTable, ArchiveError, ArchiveReader
from metagov_sdk.graph import (
    GraphError,
    GraphRules,
    PublishedGraph,
    UnreadableGraph,
    build_graph,
    read_declaration,
    read_graph,
    read_identities,
    write_declaration,
    write_graph,
    write_identities,
)

_SAY_SECONDS = 0.5
_LONGEST_REASON = 10_000
"""Characters: places in foreign files can be of any length, and a line is read as a whole."""


class InputFiles(TypedDict):
    """Where an input's files are; packed or not."""

    graph: str
    declaration: str | None
    identities: str | None


class Job(TypedDict):
    """What is to be built."""

    rules: str
    """`module:Class`, as is"""
    config_type: str
    config: dict[str, Any]
    url: str
    archive: str
    """Its name: the provider's, or one of several."""
    provider: str
    community: str
    snapshot: str
    trusted: list[str]
    environment: dict[str, str]
    inputs: dict[str, InputFiles]
    folder: str


class Built(TypedDict):
    """What was built."""

    nodes: int
    edges: int
    files: dict[str, Any]


class _Output:
    """Lines of JSON. Progress is not said more often than anybody looks."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._last = 0.0

    def say(self, **line: Any) -> None:
        self._out.write(json.dumps(line).encode() + b"\n")
        self._out.flush()

    def progress(self, step: str, done: int, total: int) -> None:
        if time.monotonic() - self._last >= _SAY_SECONDS:
            self._last = time.monotonic()
            self.say(progress={"step": step, "done": done, "total": total})


class _Counted(ArchiveReader):
    """A reader that says how many rows it has given."""

    def __init__(self, reader: ArchiveReader, output: _Output) -> None:
        self._reader = reader
        self._output = output
        self._done = 0
        self._total = sum(table.rows for table in reader.tables())
        self.provider, self.community, self.snapshot = reader.provider, reader.community, reader.snapshot

    def tables(self) -> Sequence[ArchivedTable]:
        return self._reader.tables()

    async def batches(
        self, table: ArchivedTable, *, partition: str | None = None, since: datetime | None = None
    ) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
        async for rows in self._reader.batches(table, partition=partition, since=since):
            self._done += len(rows)
            self._output.progress("reading", self._done, max(self._done, self._total))
            yield rows


async def build(job: Job, output: _Output) -> Built:
    """Read, build and write the files. Raises GraphError, ArchiveError, OSError."""
    kind: type[GraphRules[Any]] = _find(job["rules"])
    rules = kind(_find(job["config_type"]).model_validate(job["config"]))
    inputs = {name: _read_input(name, files) for name, files in job["inputs"].items()}
    async with open_store(job["url"], job["community"], job["archive"], Deployment(job["environment"])) as store:
        reader = await open_archive(
            store, job["provider"], job["community"], snapshot=job["snapshot"], trusted=job["trusted"]
        )
        published = await build_graph(rules, _Counted(reader, output), inputs)
    inputs.clear()
    return write_files(published, GraphFiles(Path(job["folder"])), output)


def write_files(published: PublishedGraph, files: GraphFiles, output: _Output) -> Built:
    """The three files, and the index beside them."""
    graph = published.graph
    total = graph.node_count + graph.edge_count

    def pieces() -> Iterator[bytes]:
        size = 0
        for piece in write_graph(graph):
            size += len(piece)
            output.progress("writing", size, max(size, 250 * total))
            yield piece

    if published.declaration is None:
        raise GraphError("a rule set's graph should have a declaration")
    kept: dict[str, Kept] = {
        "graph": files.write_packed(pieces()),
        "declaration": files.write_packed([write_declaration(published.declaration)]),
        "identities": files.write_packed([write_identities(published.identities)]),
    }
    output.say(progress={"step": "indexing", "done": 0, "total": total})
    index = index_name([each.sha256 for each in kept.values()])
    if not files.has(index):
        with files.writing() as fresh:
            write_index(published, fresh.path, lambda done, all: output.progress("indexing", done, all))
            fresh.keep(index)
    named: dict[str, Any] = {name: {"sha256": each.sha256, "size": each.size} for name, each in kept.items()}
    return Built(nodes=graph.node_count, edges=graph.edge_count, files={**named, "index": index})


def verdict(error: Exception) -> dict[str, str]:
    """What is said of a build that failed: `wrong`, as long as nothing changes, or `away`, for this time."""
    said = f"{error}"[:_LONGEST_REASON]
    match error:
        case ArchiveAway():
            return {"away": said}
        case GraphError() | ArchiveError():
            return {"wrong": said}
        case MemoryError():
            return {"wrong": "the graph is too large for this machine's memory"}
        case OSError():
            return {"away": f"{type(error).__name__}: {error.strerror or said}"}
        case sqlite3.Error():
            return {"away": f"the graph's index cannot be written: {said}"}
    traceback.print_exception(error)
    return {"away": f"building it failed unexpectedly ({type(error).__name__}); the log has more"}


def _find(named: str) -> Any:
    module, _, name = named.partition(":")
    return getattr(import_module(module), name)


def _read_input(name: str, files: InputFiles) -> PublishedGraph:
    """An input's files, believing nothing. Raises GraphError, naming the input, the file and the place in it."""
    what = "declaration"
    try:
        declared = files["declaration"] and read_declaration(Path(files["declaration"]).read_bytes())
        what = "identity proposals"
        people = read_identities(Path(files["identities"]).read_bytes()) if files["identities"] else ()
        what = "graph"
        with Path(files["graph"]).open("rb") as file:
            graph = read_graph(iter(lambda: file.read(PIECE), b""), declaration=declared or None)
    except UnreadableGraph as error:
        at = f" at {error.pointer}" if error.pointer else ""
        raise GraphError(f"the input {name!r} cannot be taken, its {what} is wrong{at}: {error.reason}") from None
    return PublishedGraph(graph, declared or None, people)


def _end_with(stdin: BinaryIO) -> None:
    stdin.read()
    os._exit(3)


def main() -> int:
    """Build what the first line of the standard input asks for."""
    # What is built lives until the end, and nothing of it goes round in circles: the collector would look in vain.
    gc.disable()
    output = _Output(sys.stdout.buffer)
    job: Job = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with, args=(sys.stdin.buffer,), daemon=True).start()
    try:
        output.say(built=asyncio.run(build(job, output)))
    except Exception as error:
        # Whatever a rule set of whoever's has done: the one who asked is told.
        output.say(**verdict(error))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    # Without waiting for the thread, which reads on.
    os._exit(0)


if __name__ == "__main__":
    main()
