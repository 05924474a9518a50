"""Finding plugins: every entry point in the group `metagov.plugins`, loaded once at start.

A plugin that cannot be loaded is named with its reason and stops nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType

from pydantic import ValidationError

from app.core.errors import pointer
from metagov_sdk import Manifest, Settings

GROUP = "metagov.plugins"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A usable plugin: its manifest, the package it came in, and the operator's settings for it."""

    manifest: Manifest
    distribution: str
    version: str
    settings: Settings


@dataclass(frozen=True, slots=True)
class Broken:
    """A plugin that could not be loaded, and why."""

    name: str
    distribution: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plugins:
    """What discovery found. `digest` is equal in all processes that found the same."""

    loaded: Mapping[str, Loaded]
    broken: tuple[Broken, ...]
    digest: str


def discover(environment: Mapping[str, str] | None = None, found: Iterable[EntryPoint] | None = None) -> Plugins:
    """Load every installed plugin. `environment` (os.environ) holds the plugins' settings."""
    environment = os.environ if environment is None else environment
    loaded: dict[str, Loaded] = {}
    broken: list[Broken] = []
    for entry in sorted(entry_points(group=GROUP) if found is None else found, key=lambda entry: entry.name):
        distribution, version = (entry.dist.name, entry.dist.version) if entry.dist else ("?", "?")
        try:
            manifest = entry.load()
            if not isinstance(manifest, Manifest):
                raise TypeError(f"{entry.value} is a {type(manifest).__name__}, not a metagov_sdk.Manifest")
            if manifest.name != entry.name:
                raise ValueError(
                    f"the entry point is named {entry.name!r}, the plugin {manifest.name!r}; make them equal"
                )
            if entry.name in loaded:
                raise ValueError(f"the name is taken by {loaded[entry.name].distribution}")
            settings = plugin_settings(manifest, environment)
        except (Exception, SystemExit) as error:
            # A foreign package's import can raise anything; whatever it is, the rest must run.
            broken.append(Broken(entry.name, distribution, f"{type(error).__name__}: {error}"))
        else:
            loaded[entry.name] = Loaded(manifest, distribution, version, settings)
    return Plugins(MappingProxyType(loaded), tuple(broken), _digest(loaded))


def plugin_settings(manifest: Manifest, environment: Mapping[str, str]) -> Settings:
    """The plugin's METAGOV_<PLUGIN>_<FIELD> variables. Raises ValueError naming the variable, never its value."""
    prefix = f"METAGOV_{manifest.name.replace('-', '_').upper()}_"
    values = {
        name: environment[prefix + name.upper()]
        for name in manifest.settings.model_fields
        if environment.get(prefix + name.upper())
    }
    try:
        return manifest.settings.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        variable = prefix + pointer(first["loc"]).strip("/").upper()
        raise ValueError(f"{variable}: {first['msg']}") from None


def _digest(loaded: Mapping[str, Loaded]) -> str:
    description = [
        [
            plugin.manifest.name,
            plugin.version,
            sorted(plugin.manifest.actions),
            sorted(plugin.manifest.webhooks),
            sorted(plugin.manifest.polls),
            sorted(
                (name, process.cls.version, process.state.version)
                for name, process in plugin.manifest.processes.items()
            ),
            plugin.manifest.config.model_json_schema(),
        ]
        for plugin in loaded.values()
    ]
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:16]
