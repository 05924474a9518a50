"""Makes the expected graphs again: `python -m tests.graphs.sourcecred.expect`. Needs g++ and node's headers.

Each file of `tests/graphs/data/discord` holds a made-up server, a configuration, and what the Discord plugin of
SourceCred 0.11.2 made of them: its whole loader and its rules ran, against an API on this machine.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.graphs.servers import cases
from tests.graphs.sourcecred.install import HERE, tree

DATA = HERE.parent / "data" / "discord"


def expect(case: dict[str, Any], modules: Path) -> dict[str, Any]:
    """What SourceCred makes of a case: `{"graph", "declaration", "identities"}`."""
    with tempfile.TemporaryDirectory() as name:
        given, made = Path(name, "in.json"), Path(name, "out.json")
        given.write_text(json.dumps(case))
        done = subprocess.run(
            ["node", str(HERE / "discord.js"), str(modules), str(given), str(made)],
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-4000:])
        found: dict[str, Any] = json.loads(made.read_text())
        return found


def main() -> None:
    """Write all of them."""
    modules = tree(native=True)
    for name, case in cases().items():
        made = {**case, "sourcecred": expect(case, modules)}
        (DATA / f"{name}.json").write_text(json.dumps(made, ensure_ascii=True, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
