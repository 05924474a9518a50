"""Archives in a Git repository on GitHub: `github://owner/repo/path@branch`, by the Git Data API alone.

Objects become Git blobs when they are added, and one commit makes them visible together with HEAD. `force: false`
lets the branch move only to a descendant of what it was, which is the compare-and-swap
(https://docs.github.com/en/rest/git). GitHub takes about 80 requests a minute that create content
(https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api#about-secondary-rate-limits).
Settings, after METAGOV_ARCHIVE_GITHUB_: TOKEN (contents: read and write), API_URL.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import httpx
import orjson

from app.archives.format import LARGEST_HEAD
from metagov_sdk.archive import (
    ArchiveAway,
    ArchiveSettings,
    BadDigest,
    DataArchive,
    Head,
    HeadMoved,
    MissingObject,
    TooLarge,
)

_API_URL = "https://api.github.com"
_PART = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_BRANCH = re.compile(r"(?!.*(\.\.|//|@\{|\.lock$))[A-Za-z0-9_][A-Za-z0-9_./-]{0,199}(?<![/.])")
_SHA = re.compile(r"[0-9a-f]{40}")
_NOTHING = "none"
_MOVES = 10
_TRIES = 6
_LONGEST_WAIT = 900.0
_ENTRIES = 500
"""Paths in one request for a tree."""


class Pace:
    """At most so many in any `seconds`: waits until one more is due."""

    def __init__(self, most: int = 80, seconds: float = 60.0) -> None:
        self._most = most
        self._seconds = seconds
        self._times: deque[float] = deque()
        self._turn = asyncio.Lock()

    async def wait(self) -> None:
        """Until the next may go."""
        async with self._turn:
            now = time.monotonic()
            while self._times and self._times[0] <= now - self._seconds:
                self._times.popleft()
            if len(self._times) >= self._most:
                await asyncio.sleep(self._times.popleft() + self._seconds - now)
            self._times.append(time.monotonic())


class GitHubArchive(DataArchive):
    """A folder on a branch. The version of HEAD is the Git id of its file."""

    def __init__(self, http: httpx.AsyncClient, repository: str, branch: str, folder: str, pace: Pace) -> None:
        self._http = http
        self._repository = repository
        self._branch = branch
        self._folder = folder
        self._pace = pace
        self._files: dict[str, str] | None = None
        self._staged: dict[str, str] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, below: str, settings: ArchiveSettings) -> AsyncIterator[GitHubArchive]:
        """A folder of a repository. Raises ValueError for a URL that names none."""
        parts = urlsplit(url)
        path, _, branch = unquote(parts.path).strip("/").rpartition("@") if "@" in parts.path else (parts.path, "", "")
        repository, *folder = [part for part in path.split("/") if part] or [""]
        branch = branch or "main"
        named = [parts.netloc, repository, *folder]
        if parts.query or parts.fragment or not all(map(_PART.fullmatch, named)) or {".", ".."} & set(named):
            raise ValueError(
                "a GitHub archive's URL is github://owner/repo/path@branch (path and branch may be absent)"
            )
        if not _BRANCH.fullmatch(branch):
            raise ValueError(f"{branch[:80]!r} cannot be the name of a branch")
        environment = settings.environment
        http = settings.client((environment.get("GITHUB_API_URL") or _API_URL).rstrip("/"))
        http.headers["Accept"] = "application/vnd.github+json"
        http.headers["X-GitHub-Api-Version"] = "2022-11-28"
        http.headers["User-Agent"] = "metagov-gateway"
        if token := environment.get("GITHUB_TOKEN"):
            http.headers["Authorization"] = f"Bearer {token}"
        async with http:
            yield cls(http, f"{parts.netloc}/{repository}", branch, "/".join([*folder, below]), Pace())

    async def head(self) -> Head:
        """HEAD as it is on the branch now."""
        return await self._head_at(await self._commit())

    async def read(self, name: str, most: int) -> bytes:
        """A file's bytes. Raises MissingObject, TooLarge, BadDigest, ArchiveAway."""
        if self._files is None:
            await self._list(await self._commit())
        sha = self._staged.get(name) or (self._files or {}).get(name)
        if sha is None:
            raise MissingObject(f"{name} is not there")
        return await self._blob(sha, name, most)

    async def missing(self, names: Collection[str]) -> set[str]:
        """Those that are not on the branch, as it was when it was last looked at, and were not added."""
        if self._files is None:
            await self._list(await self._commit())
        there = (self._files or {}).keys() | self._staged.keys()
        return {name for name in names if name not in there}

    async def add(self, name: str, data: bytes, *, replace: bool = False) -> bool:
        """Make a Git blob of it, unless the branch has the name already; `move_head` gives it its name."""
        if not replace and not await self.missing([name]):
            return False
        sha = git_id(b"blob", data)
        if (self._files or {}).get(name) != sha:
            await self._make_blob(data, sha)
        self._staged[name] = sha
        return True

    async def move_head(self, data: bytes, expected: Head) -> None:
        """Commit what was added together with HEAD. Raises HeadMoved, ArchiveAway."""
        sha = git_id(b"blob", data)
        await self._make_blob(data, sha)
        for _ in range(_MOVES):
            commit = await self._commit()
            now = await self._head_at(commit)
            if now.version != expected.version:
                raise HeadMoved("another writer has set HEAD")
            new = await self._make_commit(commit, {**self._staged, "HEAD": sha})
            if await self._move_branch(commit, new):
                self._staged.clear()
                self._files = None
                return
            # The branch moved, which need not have been HEAD: other archives may lie on it.
        raise HeadMoved(f"the branch {self._branch} moved {_MOVES} times meanwhile")

    async def _commit(self) -> str | None:
        """The branch's newest commit; None where there is no branch yet."""
        found = await self._ask("GET", f"git/ref/heads/{quote(self._branch)}", absent=True)
        return None if found is None else _sha(found["object"]["sha"])

    async def _head_at(self, commit: str | None) -> Head:
        files = await self._list(commit)
        sha = files.get("HEAD")
        return Head(None, _NOTHING) if sha is None else Head(await self._blob(sha, "HEAD", LARGEST_HEAD), sha)

    async def _list(self, commit: str | None) -> dict[str, str]:
        """The folder's files and their Git ids."""
        self._files = {}
        if commit is None:
            return self._files
        tree: str | None = _sha((await self._get(f"git/commits/{commit}"))["tree"]["sha"])
        for part in self._folder.split("/"):
            entries = (await self._get(f"git/trees/{tree}"))["tree"]
            tree = next((_sha(each["sha"]) for each in entries if (each["path"], each["type"]) == (part, "tree")), None)
            if tree is None:
                return self._files
        await self._list_tree(str(tree), "", self._files)
        return self._files

    async def _list_tree(self, tree: str, prefix: str, files: dict[str, str]) -> None:
        found = await self._get(f"git/trees/{tree}", {"recursive": "1"})
        if found.get("truncated"):
            # Too large for one answer: level by level, then.
            found = await self._get(f"git/trees/{tree}")
            for each in found["tree"]:
                if each["type"] == "tree" and prefix.count("/") < 4:
                    await self._list_tree(_sha(each["sha"]), f"{prefix}{each['path']}/", files)
        files.update({prefix + each["path"]: _sha(each["sha"]) for each in found["tree"] if each["type"] == "blob"})

    async def _blob(self, sha: str, name: str, most: int) -> bytes:
        raw = {"Accept": "application/vnd.github.raw+json"}
        try:
            answer = await self._send("GET", f"git/blobs/{sha}", headers=raw)
        except MissingObject:
            raise MissingObject(f"{name} is not there") from None
        if len(answer.content) > most:
            raise TooLarge(f"{name} has {len(answer.content)} bytes, {most} is the most that is read")
        if git_id(b"blob", answer.content) != sha:
            raise BadDigest(f"{name} came with other bytes than its Git id names")
        return answer.content

    async def _make_blob(self, data: bytes, sha: str) -> None:
        body = {"content": base64.b64encode(data).decode(), "encoding": "base64"}
        made = await self._ask("POST", "git/blobs", body)
        if made is None or made.get("sha") != sha:
            raise BadDigest(f"GitHub has made the blob {str((made or {}).get('sha'))[:40]} of what is {sha}")

    async def _make_commit(self, parent: str | None, files: Mapping[str, str]) -> str:
        base = None if parent is None else _sha((await self._get(f"git/commits/{parent}"))["tree"]["sha"])
        entries = [
            {"path": f"{self._folder}/{name}", "mode": "100644", "type": "blob", "sha": sha}
            for name, sha in sorted(files.items())
        ]
        for start in range(0, len(entries), _ENTRIES):
            body: dict[str, Any] = {"tree": entries[start : start + _ENTRIES]}
            if base is not None:
                body["base_tree"] = base
            base = _sha((await self._ask("POST", "git/trees", body) or {}).get("sha"))
        message = f"Snapshot of {self._folder}"
        body = {"message": message, "tree": base, "parents": [] if parent is None else [parent]}
        return _sha((await self._ask("POST", "git/commits", body) or {}).get("sha"))

    async def _move_branch(self, old: str | None, new: str) -> bool:
        """False when the branch is no longer at `old`."""
        try:
            if old is None:
                await self._ask("POST", "git/refs", {"ref": f"refs/heads/{self._branch}", "sha": new})
            else:
                path = f"git/refs/heads/{quote(self._branch)}"
                await self._ask("PATCH", path, {"sha": new, "force": False})
        except (_Refused, ArchiveAway):
            # An answer that was lost may have moved it: what counts is where it is.
            return await self._commit() == new
        return True

    async def _get(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        return _object((await self._send("GET", path, query=query)).content)

    async def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, absent: bool = False
    ) -> dict[str, Any] | None:
        try:
            return _object((await self._send(method, path, body)).content)
        except MissingObject:
            if absent:
                return None
            raise

    async def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """A request, again where waiting helps. Raises MissingObject (404), _Refused (409, 422), ArchiveAway."""
        said = ""
        for attempt in range(_TRIES):
            if method != "GET":
                await self._pace.wait()
            try:
                answer = await self._http.request(
                    method, f"/repos/{self._repository}/{path}", json=body, params=query, headers=headers
                )
            except httpx.HTTPError as error:
                said, pause = f"{type(error).__name__}: {error}", 2.0**attempt / 2
            else:
                if answer.is_success:
                    return answer
                said = _said(answer)
                if answer.status_code == 404 and method == "GET":
                    raise MissingObject(said)
                wait = _wait(answer, attempt)
                if wait is None:
                    raise _Refused(said) if answer.status_code in (409, 422) else ArchiveAway(said)
                pause = wait
            if attempt + 1 < _TRIES:
                await asyncio.sleep(pause)
        raise ArchiveAway(f"GitHub did not do it in {_TRIES} tries: {said}")


class _Refused(ArchiveAway):
    """GitHub says 409 or 422: not as things stand."""


def git_id(kind: bytes, data: bytes) -> str:
    """Git's name for an object: what `git hash-object` prints."""
    return hashlib.sha1(b"%s %d\0%s" % (kind, len(data), data), usedforsecurity=False).hexdigest()


def _wait(answer: httpx.Response, attempt: int) -> float | None:
    """Seconds after which to ask again; None when that is no use."""
    after = answer.headers.get("retry-after", "")
    if answer.status_code in (403, 429):
        if after.isdecimal():
            return min(float(after), _LONGEST_WAIT)
        if answer.headers.get("x-ratelimit-remaining") == "0":
            reset = answer.headers.get("x-ratelimit-reset", "")
            return min(max(float(reset) - time.time(), 1.0), _LONGEST_WAIT) if reset.isdecimal() else 60.0
        # Secondary limits come without a header now and then; GitHub's word is to wait a minute.
        return 60.0 if answer.status_code == 429 else None
    return 2.0**attempt / 2 if answer.status_code >= 500 else None


def _said(answer: httpx.Response) -> str:
    try:
        message = str(orjson.loads(answer.content)["message"])[:200]
    except (ValueError, TypeError, KeyError):
        message = "no reason given"
    mend = {
        401: " (check METAGOV_ARCHIVE_GITHUB_TOKEN)",
        403: " (the token needs `contents: read and write` for this repository)",
        404: " (no such repository, or the token may not see it)",
        409: " (an empty repository has to have a first commit, for example a README)",
    }.get(answer.status_code, "")
    return f"GitHub answered {answer.status_code}: {message}{mend}"


def _object(content: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ArchiveAway("GitHub's answer is not a JSON object")
    return found


def _sha(value: object) -> str:
    if not isinstance(value, str) or not _SHA.fullmatch(value):
        raise ArchiveAway("GitHub's answer has something else than a Git id in place of one")
    return value
