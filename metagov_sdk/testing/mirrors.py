"""Run a plugin's data provider in a test: no database, the platform is whatever `transport` answers."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Unpack

import httpx

from metagov_sdk.manifest import Manifest
from metagov_sdk.provider import Child, Key, Page, ProviderSpec, Record, Walk
from metagov_sdk.provider.cursors import Cursor
from metagov_sdk.testing.binding import Binding, ContractError, bind_call

_MOST_PAGES = 100_000

_Place = tuple[str, str]
"""Walk and partition."""


@dataclass(slots=True)
class _Partition:
    data: Any = None
    wanted: str | None = None
    seen: str | None = None
    owner: tuple[str, Key] | None = None
    read_once: bool = False
    cursor: Cursor = field(default_factory=Cursor)
    rows: set[tuple[str, Key]] = field(default_factory=set)


@dataclass(slots=True)
class MirrorInMemory:
    """What a provider has read: `tables` by name, the rows of each by key; what is deleted is not in them.

    requests  how many the last run made, by "METHOD /path".
    """

    manifest: Manifest
    tables: dict[str, dict[Key, Record]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    _partitions: dict[_Place, _Partition] = field(default_factory=dict)
    _due: deque[_Place] = field(default_factory=deque)
    _done: set[_Place] = field(default_factory=set)

    async def sync(self, *, sweep: bool = False, **binding: Unpack[Binding]) -> None:
        """A run to its end, as the gateway would make it. Raises what the provider raises, and ContractError."""
        spec = self._spec()
        self.tables = {name: self.tables.get(name, {}) for name in spec.records}
        self.requests = []
        self._done.clear()
        self._due.extend((walk.name, "") for walk in spec.roots if sweep or not walk.sweep_only)
        pages = 0
        while self._due:
            place = self._due.popleft()
            if place not in self._done:
                self._done.add(place)
                pages += await self._read(spec, place, sweep, binding)
            if pages > _MOST_PAGES:
                raise ContractError(f"{place[0]} has not come to an end after {_MOST_PAGES:,} pages")

    def _spec(self) -> ProviderSpec:
        if self.manifest.provider is None:
            raise LookupError(f"the plugin {self.manifest.name!r} mirrors nothing: Manifest(…, provider=…)")
        return self.manifest.provider

    async def _read(self, spec: ProviderSpec, place: _Place, sweep: bool, binding: Binding) -> int:
        kind, _, table = place[0].partition(":")
        walk = spec.lookup_of(table) if kind == "lookup" and table else spec.walks[place[0]]
        if walk is None:
            raise ContractError(f"there is no lookup of {table}")
        partition = self._partitions.setdefault(place, _Partition())
        partition.cursor = partition.cursor.begin(walk, sweep=sweep)
        found: set[tuple[str, Key]] = set()
        pages = 0
        while partition.cursor.open is not None:
            page = await self._page(spec, walk, partition.cursor.place(walk, place[1], partition.data), binding)
            partition.cursor = Cursor.from_json(partition.cursor.advance(walk, page).to_json())
            for row in page.rows:
                if row.key_values is not None:
                    self.tables[row.table][row.key_values] = row
                    found.add((row.table, row.key_values))
            for record, key in page.gone:
                self._take_away({(record.table, key)})
            for child in page.children:
                self._add(spec, child, sweep)
            pages += 1
            if pages > _MOST_PAGES:
                raise ContractError(f"{walk.name} has not come to an end after {_MOST_PAGES:,} pages")
        whole = walk.kind in ("listing", "detail") or (walk.kind == "log" and sweep)
        if whole:
            self._settle(walk, partition.rows - found)
        partition.rows = found if whole else partition.rows | found
        partition.seen, partition.read_once = partition.wanted, True
        return pages

    async def _page(self, spec: ProviderSpec, walk: Walk, place: Any, binding: Binding) -> Page:
        plugin = bind_call(self.manifest, binding, may_emit=True)

        async def note(request: httpx.Request) -> None:
            self.requests.append(f"{request.method} {request.url.path}")

        hooks = plugin.http.event_hooks
        plugin.http.event_hooks = {**hooks, "request": [*hooks["request"], note]}
        page = await getattr(spec.cls(plugin), walk.name)(place)
        if not isinstance(page, Page):
            raise ContractError(f"{walk.name} returned {type(page).__name__}; return a Page")
        if strange := {type(row).__name__ for row in page.rows} - {each.__name__ for each in spec.records.values()}:
            raise ContractError(f"{walk.name} returned {sorted(strange)[0]}, which no walk declares")
        return page

    def _add(self, spec: ProviderSpec, child: Child, sweep: bool) -> None:
        walk = spec.walks.get(child.walk)
        if walk is None or walk.kind == "lookup":
            raise ContractError(f"a page names the walk {child.walk!r}; there is none that has partitions")
        place = (child.walk, child.key)
        known = self._partitions.get(place)
        if child.of.key_values is None or (child.fingerprint == "" and known is None):
            return
        if walk.sweep_only and not sweep:
            return
        partition = self._partitions.setdefault(place, _Partition())
        partition.data, partition.wanted = child.data, child.fingerprint
        partition.owner = (child.of.table, child.of.key_values)
        if sweep or not partition.read_once or child.fingerprint is None or child.fingerprint != partition.seen:
            self._due.append(place)

    def _settle(self, walk: Walk, missing: set[tuple[str, Key]]) -> None:
        if walk.missing == "look":
            main = walk.records[0].table
            for table, key in missing:
                if table == main:
                    self._due.append((f"lookup:{main}", "/".join(str(part) for part in key)))
            missing = {each for each in missing if each[0] != main}
        self._take_away(missing)

    def _take_away(self, rows: set[tuple[str, Key]]) -> None:
        """Rows, and with each of them what was read of the partitions that hang on it."""
        for table, key in rows:
            self.tables[table].pop(key, None)
        for place in [place for place, partition in self._partitions.items() if partition.owner in rows]:
            self._take_away(self._partitions.pop(place).rows)


async def read_mirror(manifest: Manifest, *, sweep: bool = False, **binding: Unpack[Binding]) -> MirrorInMemory:
    """A first run of a plugin's provider to its end; `await mirror.sync(…)` makes more."""
    mirror = MirrorInMemory(manifest)
    await mirror.sync(sweep=sweep, **binding)
    return mirror
