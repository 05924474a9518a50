"""Binding: a manifest and an instance's stored values become a live plugin object for one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Protocol

import httpx
import structlog
from pydantic import SecretStr

from app.core.crypto import Vault
from app.core.errors import NotFound
from app.host.discovery import Loaded, Plugins
from metagov_sdk import Call, Config, Credentials, OAuth, Plugin, SecretRef, State
from metagov_sdk.graph import GraphReader
from metagov_sdk.models import Versioned
from metagov_sdk.processes import Processes


@dataclass(frozen=True, slots=True)
class InstanceData:
    """An instance as stored, secrets decrypted. `state` is None until something was changed."""

    id: str
    plugin: str
    community_id: str
    community: str
    driver_id: str
    community_platform_id: str
    generation: int
    status: str
    plain: Mapping[str, Any]
    secrets: Mapping[str, Any] = field(repr=False)
    config_version: int
    state: Mapping[str, Any] | None
    state_version: int
    deleted: bool = False


class UnreadableInstance(Exception):
    """What is stored was written by a version of the plugin that this one cannot read."""


class Connect(Protocol):
    """Makes HTTP clients, which all share their connections."""

    def __call__(self, plugin: Plugin[Any, Any, Any] | None = None) -> httpx.AsyncClient:
        """A client that keeps to what `plugin` says of its platform's limits; for no plugin, to none."""
        ...


class CredentialSource(Protocol):
    """Where instances' credentials are."""

    def of(self, instance: InstanceData, oauth: Callable[[], OAuth[Any]] | None) -> Credentials:
        """An instance's, for one call; `oauth` makes what refreshes them (None: nothing does)."""
        ...


class Host:
    """The plugins of this process and what binds them: HTTP connections, credentials, keys and the public URL."""

    def __init__(
        self, plugins: Plugins, *, public_url: str, connect: Connect, vault: Vault, credentials: CredentialSource
    ) -> None:
        self.plugins = plugins
        self.vault = vault
        self._public_url = public_url
        self._connect = connect
        self._credentials = credentials

    def loaded(self, name: str) -> Loaded:
        """The plugin of this name. Raises NotFound."""
        try:
            return self.plugins.loaded[name]
        except KeyError:
            raise NotFound(f"there is no plugin named {name!r}; `metagov plugins` lists them") from None

    def bind(
        self,
        instance: InstanceData,
        *,
        now: datetime,
        idempotency_key: str,
        may_emit: bool = True,
        processes: Processes | None = None,
        credentials: Credentials | None = None,
        graph: GraphReader | None = None,
    ) -> Plugin[Any, Any, Any]:
        """A fresh plugin object; `processes` are its instance's, for actions, as is its graph;

        `credentials` if not the stored ones.
        Raises UnreadableInstance when config or state have a version it cannot read.
        """
        plugin = self.loaded(instance.plugin)
        manifest = plugin.manifest
        log = structlog.get_logger(f"plugins.{manifest.name}").bind(
            community=instance.community, plugin=manifest.name, instance=instance.id
        )
        call: Call[Any, Any, Any] = Call(
            instance_id=instance.id,
            community=instance.community,
            community_platform_id=instance.community_platform_id or None,
            config=self.read_config(instance),
            state=read_state(manifest.state, instance.state, instance.state_version),
            settings=plugin.settings,
            now=now,
            idempotency_key=idempotency_key,
            log=log,
            connect=self._connect,
            hook_url=f"{self._public_url}/api/hooks/{instance.community}/{manifest.name}",
            may_emit=may_emit,
            processes=processes,
            credentials=credentials or self.credentials(instance),
            graph=graph,
        )
        return manifest.plugin(call)

    def credentials(self, instance: InstanceData) -> Credentials:
        """The stored credentials of an instance, for one call."""
        declared = self.loaded(instance.plugin).manifest.oauth is not None
        return self._credentials.of(instance, partial(self.oauth, instance.plugin) if declared else None)

    def oauth(self, name: str) -> OAuth[Any]:
        """A fresh object of the plugin's OAuth. Raises NotFound when it declares none."""
        plugin = self.loaded(name)
        if plugin.manifest.oauth is None:
            raise NotFound(f"the plugin {name!r} has no OAuth")
        return plugin.manifest.oauth(plugin.settings, self._connect(), structlog.get_logger(f"plugins.{name}"))

    def callback_url(self, plugin: str) -> str:
        """Where the platform sends people back to after OAuth; it has to be registered there."""
        return f"{self._public_url}/auth/{plugin}/callback"

    def read_config(self, instance: InstanceData) -> Config:
        """The instance's typed config, upgraded where an older version stored it."""
        kind = self.loaded(instance.plugin).manifest.config
        config: Config = _read(kind, {**instance.plain, **instance.secrets}, instance.config_version)
        return config

    def read_secret(self, instance: InstanceData, ref: SecretRef) -> str:
        """The secret a verifier names: the first of its sources that is set, "" when none is."""
        return self._own_secret(instance, ref) or self.read_setting(instance.plugin, ref)

    def read_setting(self, plugin: str, ref: SecretRef) -> str:
        """The operator's secret that a verifier names, "" when none is set."""
        settings = self.loaded(plugin).settings
        for source, name in ref.sources:
            value = getattr(settings, name, None) if source == "setting" else None
            if text := value.get_secret_value() if isinstance(value, SecretStr) else value:
                return str(text)
        return ""

    def owns_secret(self, instance: InstanceData, ref: SecretRef) -> bool:
        """Whether the instance has a secret of its own, rather than the whole deployment's."""
        return bool(self._own_secret(instance, ref))

    def _own_secret(self, instance: InstanceData, ref: SecretRef) -> str:
        for source, name in ref.sources:
            if source == "config" and (value := instance.secrets.get(name) or instance.plain.get(name)):
                return str(value)
        return ""


def read_state(kind: type[State], stored: Mapping[str, Any] | None, version: int) -> State:
    """The typed state; the defaults when nothing is stored. Raises UnreadableInstance."""
    return kind() if stored is None else _read(kind, stored, version)


def upgraded(kind: type[Versioned], stored: Mapping[str, Any], version: int) -> dict[str, Any]:
    """What was stored, in the shape the plugin's code has now. Raises UnreadableInstance."""
    try:
        return dict(stored) if version == kind.version else kind.upgrade(dict(stored), version)
    except ValueError as error:
        raise _unreadable(kind, version) from error


def _read(kind: type[Any], stored: Mapping[str, Any], version: int) -> Any:
    try:
        return kind.model_validate(upgraded(kind, stored, version))
    except ValueError as error:
        raise _unreadable(kind, version) from error


def _unreadable(kind: type[Versioned], version: int) -> UnreadableInstance:
    return UnreadableInstance(f"{kind.__name__}: stored as version {version}, the plugin has {kind.version}")
