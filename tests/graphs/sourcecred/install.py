"""The npm tree of SourceCred, kept outside the checkout: `python -m tests.graphs.sourcecred.install [--native]`.

Its install scripts stay unused: of all that they build, only the database of its Discord plugin is of use, and only for
making expected graphs (`--native`: needs g++ and node's headers).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def can_build() -> bool:
    """Whether there is what `--native` needs: a compiler, and the headers of this node."""
    return shutil.which("g++") is not None and _node_folder() is not None


def _node_folder() -> Path | None:
    """Where node lies with its headers, as in /usr; without them they would be fetched."""
    node = shutil.which("node")
    folder = Path(node).resolve().parents[1] if node else None
    return folder if folder and (folder / "include" / "node" / "node.h").exists() else None


def tree(*, native: bool = False) -> Path:
    """The folder with `node_modules`; installed if it is not there. Raises RuntimeError with what npm says."""
    files = [HERE / "package.json", HERE / "package-lock.json"]
    version = _run("node", "--version").split(".")[0]
    digest = hashlib.sha256(b"\0".join([version.encode(), *(file.read_bytes() for file in files)])).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metagov"
    folder = cache / f"sourcecred-{digest}"
    if not folder.exists():
        _install(folder, files)
    built = folder / "node_modules" / "better-sqlite3" / "build" / "Release" / "better_sqlite3.node"
    if native and not built.exists():
        if not can_build():
            raise RuntimeError("SourceCred's Discord plugin has a part to be built: install g++ and node's headers")
        _run("npm", "rebuild", "better-sqlite3", cwd=folder, npm_config_nodedir=str(_node_folder()))
    return folder


def _install(folder: Path, files: list[Path]) -> None:
    """Beside its place, and moved there when it is whole: another run may be doing the same."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="installing-") as name:
        whole = Path(name) / "tree"
        whole.mkdir()
        for file in files:
            shutil.copy(file, whole)
        _run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=whole)
        try:
            whole.rename(folder)
        except OSError:
            if not folder.exists():
                raise


def _run(*command: str, cwd: Path | None = None, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=540
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    print(tree(native="--native" in sys.argv))
