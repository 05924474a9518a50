"""An instance of the real SourceCred that takes graphs by URL, as anybody's would."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from metagov_sdk.graph import PublishedGraph, write_declaration, write_graph, write_identities

COMMANDS = ("load", "graph", "contributions", "credrank", "analysis")
_PATIENCE = 120


@contextlib.contextmanager
def serving(files: Mapping[str, bytes]) -> Iterator[str]:
    """Serves bytes by path over loopback; yields the address that the paths come after."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = files.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("content-length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def files_of(name: str, published: PublishedGraph) -> dict[str, bytes]:
    """The three files of a graph, by path."""
    assert published.declaration is not None
    return {
        f"/{name}/graph.json": b"".join(write_graph(published.graph)),
        f"/{name}/declaration.json": write_declaration(published.declaration),
        f"/{name}/identityProposals.json": write_identities(published.identities),
    }


@dataclass(frozen=True, slots=True)
class Scored:
    """A participant as the instance's output has it: its scores are None where they are no numbers."""

    name: str
    addresses: tuple[str, ...]
    total: float | None
    weekly: tuple[float | None, ...]


def run_instance(folder: Path, modules: Path, files: Mapping[str, bytes]) -> list[Scored]:
    """Make an instance in a folder, run all of it, and read its participants. Raises RuntimeError with what it says."""
    names = sorted({path.split("/")[1] for path in files})
    with serving(files) as base:
        urls = {
            name: {
                "graphUrl": f"{base}/{name}/graph.json",
                "declarationUrl": f"{base}/{name}/declaration.json",
                "identityProposalsUrl": f"{base}/{name}/identityProposals.json",
            }
            for name in names
        }
        return run_by_urls(folder, modules, urls)


def run_by_urls(folder: Path, modules: Path, urls: Mapping[str, Mapping[str, str]]) -> list[Scored]:
    """The same with an external plugin for each name, of this configuration."""
    for name, config in urls.items():
        plugin = folder / "config" / "plugins" / "external" / name
        plugin.mkdir(parents=True)
        (plugin / "config.json").write_text(json.dumps(config))
    (folder / "sourcecred.json").write_text(json.dumps({"bundledPlugins": [f"external/{name}" for name in urls]}))
    (folder / "data").mkdir()
    (folder / "data" / "ledger.json").write_text("")
    for command in COMMANDS:
        cli = modules / "node_modules" / "sourcecred" / "bin" / "sourcecred.js"
        done = subprocess.run(
            ["node", str(cli), command], cwd=folder, capture_output=True, text=True, timeout=_PATIENCE
        )
        if done.returncode:
            raise RuntimeError(f"sourcecred {command}: {(done.stdout + done.stderr)[-3000:]}")
    return read_scores(folder)


def read_scores(folder: Path) -> list[Scored]:
    """The participants of `output/accounts.json`."""
    found: dict[str, Any] = json.loads((folder / "output" / "accounts.json").read_text())
    return [
        Scored(
            each["account"]["identity"]["name"],
            tuple(alias["address"] for alias in each["account"]["identity"]["aliases"]),
            each["totalCred"],
            tuple(each["cred"]),
        )
        for each in found["accounts"]
    ]
