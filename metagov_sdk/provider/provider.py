"""The data provider: a platform's tables and how they are read."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Any, ClassVar, Generic

from typing_extensions import TypeVar

from metagov_sdk.errors import ManifestError
from metagov_sdk.plugin import Plugin
from metagov_sdk.provider.records import Record
from metagov_sdk.provider.walks import Walk

PluginT = TypeVar("PluginT", bound=Plugin[Any, Any, Any])


class DataProvider(Generic[PluginT]):
    """Keeps a mirror of a platform: `class DiscordMirror(DataProvider[Discord])`, with a docstring that describes it.

    `self.plugin` is the instance's plugin object, with its credentials, limits and `http`. An object serves one page.

    every        how often the gateway reads what is new, once an instance has been mirrored for the first time.
    sweep_every  how often it reads everything again.
    """

    every: ClassVar[timedelta] = timedelta(hours=1)
    sweep_every: ClassVar[timedelta] = timedelta(days=1)

    def __init__(self, plugin: PluginT) -> None:
        self.plugin = plugin

    @classmethod
    def names_of(cls, account: str) -> Sequence[str]:
        """How texts of the platform name an account, as in `<@123>`: `metagov mirror forget` takes them out. Pure."""
        return ()

    @classmethod
    def marks_of(cls, name: str) -> Sequence[str]:
        """How texts of the platform address somebody by a name that rows show (`Record.names`). Pure."""
        return (f"@{name}",)


class ProviderSpec:
    """A provider class with its walks and records. Raises ManifestError, in plain words, when they do not fit."""

    def __init__(self, provider: type[DataProvider[Any]], plugin: str) -> None:
        self.cls = provider
        self.name = plugin
        self._what = f"provider {provider.__name__}"
        if not provider.__doc__:
            raise ManifestError(f"{self._what} has no docstring")
        self.walks: Mapping[str, Walk] = MappingProxyType(
            {
                name: mark
                for name, member in inspect.getmembers(provider, callable)
                if isinstance(mark := getattr(member, "__metagov__", None), Walk)
            }
        )
        self.records: Mapping[str, type[Record]] = MappingProxyType(self._records())
        self._check_walks()

    @property
    def roots(self) -> Sequence[Walk]:
        """The walks that a run begins with: those without a parent, but for lookups."""
        return [walk for walk in self.walks.values() if walk.parent is None and walk.kind != "lookup"]

    def lookup_of(self, table: str) -> Walk | None:
        """The walk that looks up one row of a table."""
        found = (walk for walk in self.walks.values() if walk.kind == "lookup" and walk.records[0].table == table)
        return next(found, None)

    def full_name(self, record: type[Record]) -> str:
        """The table's name beyond the provider: "discord.message"."""
        return f"{self.name}.{record.table}"

    def _records(self) -> dict[str, type[Record]]:
        found: dict[str, type[Record]] = {}
        for walk in self.walks.values():
            for record in walk.records:
                if found.setdefault(record.table, record) is not record:
                    raise ManifestError(f"{self._what}: two records have the table {record.table!r}")
                if not record.__dict__.get("__doc__"):
                    raise ManifestError(f"record {record.__name__} has no docstring")
        return dict(sorted(found.items()))

    def _check_walks(self) -> None:
        if not self.roots:
            raise ManifestError(f"{self._what}: it has no @listing or @log without a parent to begin with")
        for walk in self.walks.values():
            what = f"{self._what}: {walk.name}"
            if not inspect.iscoroutinefunction(getattr(self.cls, walk.name)):
                raise ManifestError(f"{what} should be `async def {walk.name}(self, place: Place) -> Page`")
            parent = walk.parent and self.walks.get(walk.parent)
            if walk.parent is not None and (not parent or parent.kind == "lookup"):
                raise ManifestError(f"{what}: its parent {walk.parent!r} is no walk with pages")
            if walk.missing == "look" and self.lookup_of(walk.records[0].table) is None:
                raise ManifestError(f'{what}: missing="look" needs a @lookup({walk.records[0].__name__})')
            seen = {walk.name}
            while parent:
                if parent.name in seen:
                    raise ManifestError(f"{what}: it is its own parent")
                seen.add(parent.name)
                parent = parent.parent and self.walks[parent.parent]
