"""Places where archives lie, found by their URL's scheme: entry points in the group `metagov.archives`."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Protocol, runtime_checkable
from urllib.parse import urlsplit

from metagov_sdk.archive import ArchiveError, DataArchive

if TYPE_CHECKING:
    import httpx

GROUP = "metagov.archives"
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
_LARGEST_ANSWER = 192 * 2**20
_SECONDS = 120.0


class UnusableArchive(ArchiveError, ValueError):
    """An archive's URL, or what a store needs besides, is not usable; the text has the mend."""


class NoArchives(UnusableArchive):
    """The deployment keeps no archives."""


@runtime_checkable
class KeepsScratch(Protocol):
    """A store in which a writer that is killed leaves something behind that nobody sees, and that takes room."""

    async def sweep_scratch(self, older_than: timedelta) -> int:
        """Remove it; returns how many there were."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """What a store is given by the deployment: its METAGOV_ARCHIVE_* variables, without that prefix."""

    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    def client(self, base_url: str) -> httpx.AsyncClient:
        """A client for one address that the operator chose: that host may be a private one, no other may."""
        # HTTP takes a third of a second to load, which a graph's build from a folder would wait for.
        from app.core.egress import EgressPolicy, plugin_client

        host = urlsplit(base_url).hostname
        if not host or urlsplit(base_url).scheme not in ("http", "https"):
            raise UnusableArchive(f"{base_url!r} should be an http:// or https:// URL")
        return plugin_client(
            EgressPolicy(False, (host,)), base_url=base_url, total_seconds=_SECONDS, max_body=_LARGEST_ANSWER
        )


@asynccontextmanager
async def open_store(url: str, community: str, provider: str, deployment: Deployment) -> AsyncIterator[DataArchive]:
    """The archive of one provider's data for one community, at a URL that the operator chose.

    Raises UnusableArchive for a URL without a store, or one that its store cannot use.
    """
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise UnusableArchive(
            f"the archive's URL should look like file:///…, not {url[:40]!r}; set METAGOV_ARCHIVE_URL"
        )
    if "@" in urlsplit(url).netloc:
        raise UnusableArchive("the archive's URL holds a user name or password; credentials have settings of their own")
    for part in (community, provider):
        if not _FOLDER.fullmatch(part):
            raise UnusableArchive(f"{part[:80]!r} cannot be the name of a folder")
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if scheme not in found:
        known = ", ".join(f"{name}://" for name in sorted(found))
        raise UnusableArchive(f"there is no store for {scheme}:// archives; there are {known}")
    try:
        store: type[DataArchive] = found[scheme].load()
    except ImportError as error:
        raise UnusableArchive(f"the store for {scheme}:// archives cannot be loaded: {error}") from error
    async with AsyncExitStack() as stack:
        try:
            archive = await stack.enter_async_context(store.open(url, f"{community}/{provider}", deployment))
        except ValueError as error:
            raise UnusableArchive(str(error)) from error
        yield archive
