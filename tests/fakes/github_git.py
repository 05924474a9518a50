"""GitHub's Git Data API over a real Git repository: what it stores can be cloned and checked with plain `git`."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

_IDENTITY = {
    "GIT_AUTHOR_NAME": "fake",
    "GIT_AUTHOR_EMAIL": "fake@example.org",
    "GIT_COMMITTER_NAME": "fake",
    "GIT_COMMITTER_EMAIL": "fake@example.org",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
}


class FakeGitHub:
    """One repository, `owner/repo`. `interfere` is called with each request's method and path; an answer is sent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self.counts: Counter[str] = Counter()
        self.interfere: Callable[[str, str], Response | None] = lambda method, path: None
        self.token = "ghs_secret"
        self.truncate = False
        self.git("init", "--bare", "--quiet", "--initial-branch=main", str(folder))

    def git(self, *arguments: str, data: bytes = b"", index: Path | None = None) -> str:
        """Run git in the repository. Raises CalledProcessError."""
        environment = {**os.environ, **_IDENTITY, "GIT_DIR": str(self.folder)}
        if index is not None:
            environment["GIT_INDEX_FILE"] = str(index)
        done = subprocess.run(["git", *arguments], input=data, capture_output=True, check=True, env=environment)
        return done.stdout.decode().strip()

    def first_commit(self, branch: str = "main") -> str:
        """An empty first commit, as "add a README" makes it."""
        blob = self.git("hash-object", "-w", "--stdin", data=b"# Archive\n")
        tree = self.git("mktree", data=f"100644 blob {blob}\tREADME.md\n".encode())
        commit = self.git("commit-tree", tree, "-m", "first")
        self.git("update-ref", f"refs/heads/{branch}", commit)
        return commit

    def app(self) -> Starlette:
        """The API."""
        base = "/repos/owner/repo/git"
        return Starlette(
            routes=[
                Route(base + "/ref/heads/{branch:path}", self._around(self._ref)),
                Route(base + "/refs", self._around(self._make_ref), methods=["POST"]),
                Route(base + "/refs/heads/{branch:path}", self._around(self._move_ref), methods=["PATCH"]),
                Route(base + "/commits/{sha}", self._around(self._commit)),
                Route(base + "/commits", self._around(self._make_commit), methods=["POST"]),
                Route(base + "/trees/{sha}", self._around(self._tree)),
                Route(base + "/trees", self._around(self._make_tree), methods=["POST"]),
                Route(base + "/blobs/{sha}", self._around(self._blob)),
                Route(base + "/blobs", self._around(self._make_blob), methods=["POST"]),
                Route("/{path:path}", lambda _: _problem(404, "Not Found")),
            ]
        )

    def _around(self, answer: Callable[[Request, Any], Response]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            kind = f"{request.method} {request.url.path.split('/git/')[1].split('/')[0]}"
            self.counts[kind] += 1
            if request.headers.get("authorization") != f"Bearer {self.token}":
                return _problem(401, "Bad credentials")
            if (made := self.interfere(request.method, request.url.path)) is not None:
                return made
            body = await request.body()
            try:
                return await asyncio.to_thread(answer, request, json.loads(body) if body else None)
            except subprocess.CalledProcessError as error:
                return _problem(404 if request.method == "GET" else 422, error.stderr.decode()[:200])

        return endpoint

    def _ref(self, request: Request, _: Any) -> Response:
        ref = f"refs/heads/{request.path_params['branch']}"
        return JSONResponse({"ref": ref, "object": {"type": "commit", "sha": self.git("rev-parse", "--verify", ref)}})

    def _make_ref(self, request: Request, body: Any) -> Response:
        self.git("update-ref", body["ref"], body["sha"], "0" * 40)
        return JSONResponse({"ref": body["ref"]}, 201)

    def _move_ref(self, request: Request, body: Any) -> Response:
        ref = f"refs/heads/{request.path_params['branch']}"
        old = self.git("rev-parse", "--verify", ref)
        if not body["force"]:
            try:
                self.git("merge-base", "--is-ancestor", old, body["sha"])
            except subprocess.CalledProcessError:
                return _problem(422, "Update is not a fast forward")
        self.git("update-ref", ref, body["sha"], old)
        return JSONResponse({"ref": ref, "object": {"type": "commit", "sha": body["sha"]}})

    def _commit(self, request: Request, _: Any) -> Response:
        sha = request.path_params["sha"]
        return JSONResponse({"sha": sha, "tree": {"sha": self.git("rev-parse", "--verify", f"{sha}^{{tree}}")}})

    def _make_commit(self, request: Request, body: Any) -> Response:
        parents = [word for parent in body["parents"] for word in ("-p", parent)]
        return JSONResponse({"sha": self.git("commit-tree", body["tree"], *parents, "-m", body["message"])}, 201)

    def _tree(self, request: Request, _: Any) -> Response:
        sha, recursive = request.path_params["sha"], "recursive" in request.query_params
        if recursive and self.truncate:
            return JSONResponse({"sha": sha, "tree": [], "truncated": True})
        listed = self.git("ls-tree", "-z", *(["-r", "-t"] if recursive else []), sha)
        entries = []
        for line in filter(None, listed.split("\0")):
            (mode, kind, entry), path = line.split("\t")[0].split(), line.split("\t")[1]
            entries.append({"path": path, "mode": mode, "type": kind, "sha": entry})
        return JSONResponse({"sha": sha, "tree": entries, "truncated": False})

    def _make_tree(self, request: Request, body: Any) -> Response:
        index = self.folder / f"index-{os.urandom(6).hex()}"
        try:
            if base := body.get("base_tree"):
                self.git("read-tree", base, index=index)
            lines = "".join(f"{each['mode']} {each['sha']}\t{each['path']}\n" for each in body["tree"])
            self.git("update-index", "--add", "--index-info", data=lines.encode(), index=index)
            return JSONResponse({"sha": self.git("write-tree", index=index)}, 201)
        finally:
            index.unlink(missing_ok=True)

    def _blob(self, request: Request, _: Any) -> Response:
        sha = request.path_params["sha"]
        environment = {**os.environ, **_IDENTITY, "GIT_DIR": str(self.folder)}
        done = subprocess.run(["git", "cat-file", "blob", sha], capture_output=True, check=True, env=environment)
        assert request.headers["accept"] == "application/vnd.github.raw+json"
        return Response(done.stdout)

    def _make_blob(self, request: Request, body: Any) -> Response:
        assert body["encoding"] == "base64"
        data = base64.b64decode(body["content"], validate=True)
        return JSONResponse({"sha": self.git("hash-object", "-w", "--stdin", data=data)}, 201)


def _problem(status: int, message: str) -> Response:
    return JSONResponse({"message": message, "status": str(status)}, status)


@contextlib.asynccontextmanager
async def open_github(folder: Path) -> AsyncIterator[FakeGitHub]:
    """The API on loopback."""
    fake = FakeGitHub(folder)
    async with serve(fake.app()) as url:
        fake.url = url
        yield fake


@contextlib.asynccontextmanager
async def serve(app: Starlette) -> AsyncIterator[str]:
    """An application on a free port of loopback; its URL."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    server.config.load()
    running = asyncio.create_task(server.serve())
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await running
