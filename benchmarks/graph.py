"""An archive of a Discord server becomes a graph's three files, beside the real SourceCred with the same server.

Both are whole processes, timed from their start on: `python -m app.graphs.child`, which the gateway's worker starts for
each build, until the three files are in place, and `sourcecred graph`, whose mirror has the same rows, until its end.
Both graphs are then read and compared.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from operator import eq
from pathlib import Path
from typing import Any

from app.archives.snapshot import write_snapshot
from app.archives.stores import Deployment, open_store
from app.graphs.child import Job
from app.graphs.files import GraphFiles
from benchmarks.graph_server import CONFIG, GUILD, Server
from benchmarks.report import Run
from metagov_sdk.graph import WeightedGraph, read_graph
from plugins.discord_graph.kinds import DECLARATION
from tests.graphs.sourcecred.install import tree

_MESSAGES, _MANY = 100_000, 1_000_000
_TIMES_FASTER, _MOST_OF_ITS_MEMORY = 5.0, 1 / 3
_MOST_MB = 1500.0
_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Ran:
    """What a process took. `mb`: its memory at its largest; `files`: seconds until the three files were there."""

    seconds: float
    mb: float
    files: float
    said: Sequence[dict[str, Any]]


def measure(run: Run) -> None:
    """Build, side by side where there is a SourceCred; then one large server alone."""
    messages, many = (max(200, round(count * run.scale)) for count in (_MESSAGES, _MANY))
    with tempfile.TemporaryDirectory(prefix="metagov-bench-graph-") as name:
        folder = Path(name)
        run.say(f"archiving {messages:,} messages")
        job = _archive(Server(messages), folder)
        ours = _rounds(run, job, messages, folder / "sourcecred")
        run.say(f"archiving {many:,} messages")
        job = _archive(Server(many), folder / "many")
        run.say(f"graph of {many:,} messages")
        largest = _build(job)
    memory = f"memory, graph of {many:,} messages"
    run.report.budget(memory, [largest.mb], "MB", _MOST_MB, at_most=True)
    run.report.series["graphs"] = [
        {
            "messages": count,
            "seconds to the files": round(each.files, 2),
            "seconds with the index": round(each.seconds, 2),
            "MB": round(each.mb),
        }
        for count, each in ((messages, ours), (many, largest))
    ]


def _rounds(run: Run, job: Job, messages: int, folder: Path) -> Ran:
    """Returns the last build."""
    try:
        cli = tree(native=True) / "node_modules" / "sourcecred" / "bin" / "sourcecred.js"
    except (OSError, RuntimeError) as error:
        run.say(f"there is no SourceCred here to compare with: {error}")
        return _build(job)
    run.say(f"filling SourceCred's mirror with {messages:,} messages")
    instance = _instance(Server(messages), folder, cli)
    ours, theirs = [], []
    for number in range(run.rounds):
        run.say(f"graph of {messages:,} messages, round {number + 1} of {run.rounds}")
        ours.append(_build(job))
        run.say(f"the same by SourceCred, round {number + 1} of {run.rounds}")
        theirs.append(_run(["node", str(cli), "graph"], cwd=instance))
    different = _different(job, ours[-1], instance)
    run.report.fail("graph: equal to SourceCred's", len(different), ", ".join(different))
    mine, its = [1 / each.files for each in ours], [1 / each.seconds for each in theirs]
    run.report.add("graphs built beside SourceCred", mine, "graphs/s", "SourceCred", its, _TIMES_FASTER)
    sizes, its = [each.mb for each in ours], [each.mb for each in theirs]
    target = _MOST_OF_ITS_MEMORY
    run.report.add("memory beside SourceCred", sizes, "MB", "SourceCred", its, target, at_most=True)
    return ours[-1]


def _archive(server: Server, folder: Path) -> Job:
    url = f"file://{folder / 'archive'}"

    async def write() -> str:
        async with open_store(url, server.community, server.provider, Deployment({})) as store:
            return (await write_snapshot(store, server)).head.snapshot

    return Job(
        rules="plugins.discord_graph.rules:DiscordGraph",
        config_type="plugins.discord_graph.config:DiscordGraphConfig",
        config={"source": "discord", "config": CONFIG},
        url=url,
        archive=server.provider,
        provider=server.provider,
        community=server.community,
        snapshot=asyncio.run(write()),
        trusted=[],
        environment={},
        inputs={},
        folder=str(folder / "graphs"),
    )


def _instance(server: Server, folder: Path, cli: Path) -> Path:
    """An instance whose Discord plugin has mirrored the server."""
    plugin = folder / "config" / "plugins" / "sourcecred" / "discord"
    plugin.mkdir(parents=True)
    (plugin / "config.json").write_text(json.dumps([CONFIG]))
    (folder / "sourcecred.json").write_text(json.dumps({"bundledPlugins": ["sourcecred/discord"]}))
    (folder / "data").mkdir()
    (folder / "data" / "ledger.json").write_text("")
    # It makes its database itself when there is none.
    _run(["node", str(cli), "graph"], cwd=folder)
    server.fill(folder / "cache" / "sourcecred" / "discord" / f"discordMirror-{GUILD}.db")
    return folder


def _build(job: Job) -> Ran:
    """Build as if for the first time."""
    for file in Path(job["folder"]).glob("*/*"):
        file.unlink()
    return _run([sys.executable, "-m", "app.graphs.child"], line=json.dumps(job))


def _run(command: Sequence[str], *, cwd: Path | None = None, line: str | None = None) -> Ran:
    """Run it, give it a line, and read the lines of JSON that it says then. Raises RuntimeError when it fails."""
    begun = time.perf_counter()
    said: list[dict[str, Any]] = []
    files = 0.0
    with tempfile.TemporaryFile() as other:
        pipe, out = subprocess.PIPE, subprocess.PIPE if line else other
        process = subprocess.Popen(command, cwd=cwd, stdin=pipe, stdout=out, stderr=other, text=True)
        timer = threading.Timer(_SECONDS, process.kill)
        timer.start()
        assert process.stdin is not None
        if line is not None:
            assert process.stdout is not None
            # It would end with its standard input, so that stays open.
            process.stdin.write(line + "\n")
            process.stdin.flush()
            for each in process.stdout:
                said.append(json.loads(each))
                if not files and said[-1].get("progress", {}).get("step") == "indexing":
                    files = time.perf_counter() - begun
        # Of one process alone, this tells what it used; memory in KiB, as Linux has it.
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stdin.close()
        other.seek(0)
        if process.returncode or (line is not None and "built" not in said[-1]):
            raise RuntimeError(f"{' '.join(command)}: {said[-1:]} {other.read()[-2000:].decode(errors='replace')}")
    return Ran(seconds, used.ru_maxrss * 1024 / 1e6, files, said)


def _different(job: Job, ours: Ran, instance: Path) -> list[str]:
    """What differs between the two graphs. Theirs repeats the weights of the declaration; ours leaves them to it."""
    sha256 = ours.said[-1]["built"]["files"]["graph"]["sha256"]
    mine = read_graph([GraphFiles(Path(job["folder"])).path(f"{sha256}.gz").read_bytes()])
    [file] = (instance / "output" / "graphs" / "sourcecred" / "discord").glob("graph*")
    its = read_graph([file.read_bytes()])
    return [name for name, equal in _compared(mine, its).items() if not equal]


def _compared(mine: WeightedGraph, its: WeightedGraph) -> dict[str, bool]:
    types = {kind.prefix: kind.default_weight for kind in DECLARATION.node_types}
    edge_types = {kind.prefix: kind.default_weight for kind in DECLARATION.edge_types}
    return {
        "nodes": mine.node_count == its.node_count > 0 and all(map(eq, mine.nodes(), its.nodes())),
        "edges": mine.edge_count == its.edge_count > 0 and all(map(eq, mine.edges(), its.edges())),
        "node weights": dict(mine.node_weights()) | types == dict(its.node_weights()),
        "edge weights": dict(mine.edge_weights()) | edge_types == dict(its.edge_weights()),
    }
