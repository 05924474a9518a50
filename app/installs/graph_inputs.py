"""Rule sets that take in each other's graphs: which read which, and whether any reads itself in the end. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import urlsplit

from app.core.errors import Invalid
from app.host.binding import Host
from metagov_sdk.graph import GraphConfig

MOST_INPUTS = 20


def find_cycle(reads: Mapping[str, Iterable[str]], start: str) -> Sequence[str]:
    """The plugins on a way from `start` back to it, both ends included; nothing if there is no such way."""
    ways: list[tuple[str, ...]] = [(start,)]
    seen = {start}
    while ways:
        way = ways.pop(0)
        for name in sorted(reads.get(way[-1], ())):
            if name == start:
                return (*way, name)
            if name not in seen:
                seen.add(name)
                ways.append((*way, name))
    return ()


def plugins_read(config: object) -> list[str]:
    """The rule sets whose graphs a configuration names."""
    inputs = config.inputs if isinstance(config, GraphConfig) else ()
    return [each.plugin for each in inputs if each.plugin is not None]


def check_inputs(
    host: Host, configs: Iterable[tuple[str, object]], changed: Iterable[tuple[str, object, tuple[str | int, ...]]]
) -> None:
    """Refuse what no schema can: archives of nothing, inputs of no rule set, too many, or in a circle.

    configs: every rule set's of the community as it will be. changed: those that are new, with where they stand in the
    request. Raises Invalid with pointers.
    """
    reads: dict[str, set[str]] = {}
    for plugin, config in configs:
        reads.setdefault(plugin, set()).update(plugins_read(config))
    for plugin, config, path in changed:
        if not isinstance(config, GraphConfig):
            continue
        problems = list(_problems(host, config))
        if cycle := find_cycle(reads, plugin):
            at = next((n for n, each in enumerate(config.inputs) if each.plugin == cycle[1]), 0)
            problems.append((("inputs", at, "plugin"), f"the graphs would read each other: {' → '.join(cycle)}"))
        if problems:
            raise Invalid.found([((*path, *below), text) for below, text in problems])


def _problems(host: Host, config: GraphConfig) -> Iterable[tuple[tuple[str | int, ...], str]]:
    # Of several instances, each has an archive of its own: `discord.<platform id>`.
    source = host.plugins.loaded.get(config.source.partition(".")[0])
    if source is None or source.manifest.provider is None:
        yield ("source",), f"there is no plugin {config.source!r} that mirrors its platform"
    if len(config.inputs) > MOST_INPUTS:
        yield ("inputs",), f"at most {MOST_INPUTS} inputs can be taken in"
        return
    for number, each in enumerate(config.inputs):
        if each.plugin is not None:
            loaded = host.plugins.loaded.get(each.plugin)
            if loaded is None or loaded.manifest.graph is None:
                yield ("inputs", number, "plugin"), f"there is no rule set named {each.plugin!r}"
        for field in ("graph_url", "declaration_url", "identity_proposals_url"):
            url = getattr(each, field)
            if url is not None and not _is_url(url):
                yield ("inputs", number, field), "should be an http:// or https:// URL of at most 2,000 characters"


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        # Reading a port checks it.
        return len(text) <= 2000 and parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
