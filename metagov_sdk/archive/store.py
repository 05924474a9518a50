"""What a place that keeps archives has to do: an entry point in the group `metagov.archives`, named by URL scheme.

```toml
[project.entry-points."metagov.archives"]
ipfs = "my_package:IpfsArchive"
```
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import httpx


@dataclass(frozen=True, slots=True)
class Head:
    """HEAD as it was read: its bytes (None: there is none yet), and the store's own word for that state of it."""

    data: bytes | None
    version: str


class ArchiveSettings(Protocol):
    """What the deployment hands to a store when it opens one."""

    @property
    def environment(self) -> Mapping[str, str]:
        """The METAGOV_ARCHIVE_* variables, without that prefix. They hold credentials: never log them."""

    def client(self, base_url: str) -> httpx.AsyncClient:
        """An HTTP client for a base URL that the operator chose; bounded in time and size, follows no redirects."""


@runtime_checkable
class DataArchive(Protocol):
    """Keeps the objects of one provider's archive for one community, by name.

    Names are relative paths such as `blobs/ab/abcd….zst`, `manifests/….json`; they are made of `[a-z0-9./]`. Only
    HEAD ever changes, and only by `move_head`. Everything raises ArchiveAway when the place does not answer.
    """

    @classmethod
    def open(cls, url: str, below: str, settings: ArchiveSettings) -> AbstractAsyncContextManager[DataArchive]:
        """The archive at `url`, in the folder `below` of it. Raises ValueError for a URL it cannot use."""

    async def head(self) -> Head:
        """HEAD as it is now."""

    async def read(self, name: str, most: int) -> bytes:
        """An object's bytes. Raises MissingObject, and TooLarge instead of reading more than `most`."""

    async def missing(self, names: Collection[str]) -> set[str]:
        """Those of `names` that are not there."""

    async def add(self, name: str, data: bytes, *, replace: bool = False) -> bool:
        """Keep an object, whole or not at all; False if there is one already, which is left alone unless `replace`.

        It may become visible to others only with the next `move_head`.
        """

    async def move_head(self, data: bytes, expected: Head) -> None:
        """Set HEAD, if it is still what was `expected`; all that was added is there before it is.

        Raises HeadMoved when it is not.
        """
