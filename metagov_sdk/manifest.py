"""The manifest: the explicit list of what a plugin offers, read once from its class."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter

from metagov_sdk.actions import ActionMark, ActionSpec
from metagov_sdk.errors import ManifestError
from metagov_sdk.events import Event
from metagov_sdk.graph.rules import GraphConfig, GraphRules
from metagov_sdk.models import Config, Model, NoSettings, NoState, Settings, State
from metagov_sdk.oauth import OAuth
from metagov_sdk.plugin import Plugin
from metagov_sdk.polls import PollSpec
from metagov_sdk.process import Process
from metagov_sdk.provider import DataProvider, ProviderSpec
from metagov_sdk.verify import Unsigned
from metagov_sdk.webhook import WebhookSpec

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_PLUGIN_NAME = re.compile(r"[A-Za-z0-9-]{1,20}")


class ProcessSpec:
    """A process class with its types resolved."""

    def __init__(self, process: type[Process[Any, Any, Any]]) -> None:
        self.cls = process
        self.name = _checked_name(process, "process")
        self.description = _docstring(process, f"process {self.name}")
        arguments = _type_arguments(process, Process)
        if len(arguments) != 3:
            raise ManifestError(f"process {self.name}: derive it from Process[Params, State, Outcome]")
        self.params, self.state, self.outcome = arguments
        _require(self.params, Model, f"process {self.name}: its params")
        _require(self.state, State, f"process {self.name}: its state")
        _require(self.outcome, Model, f"process {self.name}: its outcome")
        for method in ("start", "close"):
            if _function(process, method) is _function(Process, method):
                raise ManifestError(f"process {self.name}: define {method}")
        self.can_find_started = process.find_started is not Process.find_started
        self.observes = process.observe is not Process.observe
        self.renders = process.render is not Process.render


class Manifest:
    """What a plugin is made of: `manifest = Manifest(MyPlugin, processes=[…], events=[…])`.

    Raises ManifestError, in plain words, when the code does not fit.
    """

    def __init__(
        self,
        plugin: type[Plugin[Any, Any, Any]],
        *,
        processes: Sequence[type[Process[Any, Any, Any]]] = (),
        events: Sequence[type[Event]] = (),
        oauth: type[OAuth[Any]] | None = None,
        provider: type[DataProvider[Any]] | None = None,
        graph: type[GraphRules[Any]] | None = None,
    ) -> None:
        self.plugin = plugin
        self.name = _checked_name(plugin, "plugin")
        self.description = _docstring(plugin, f"plugin {self.name}")
        config, state, settings = _plugin_types(plugin)
        self.config: type[Config] = config
        self.state: type[State] = state
        self.settings: type[Settings] = settings
        members = list(_marked_members(plugin))
        self.actions: Mapping[str, ActionSpec] = _index(
            [_action(plugin, method, mark) for method, mark in members if isinstance(mark, ActionMark)],
            "slug",
            f"plugin {self.name}: two actions named",
        )
        self.webhooks: Mapping[str, WebhookSpec] = _index(
            [self._webhook(mark) for _, mark in members if isinstance(mark, WebhookSpec)],
            "slug",
            f"plugin {self.name}: two webhooks with the slug",
        )
        if sum(hook.shared for hook in self.webhooks.values()) > 1:
            raise ManifestError(f"plugin {self.name}: two webhooks with shared=True, and there is one shared URL")
        self.polls: Mapping[str, PollSpec] = _index(
            [_poll(plugin, mark) for _, mark in members if isinstance(mark, PollSpec)],
            "name",
            f"plugin {self.name}: two polls named",
        )
        self.processes: Mapping[str, ProcessSpec] = _index(
            [ProcessSpec(process) for process in processes], "name", f"plugin {self.name}: two processes named"
        )
        self.events: tuple[type[Event], ...] = tuple(events)
        for event in self.events:
            if not getattr(event, "event_type", None):
                raise ManifestError(f"event {event.__name__}: say its event_type")
        self.provider: ProviderSpec | None = None if provider is None else ProviderSpec(provider, self.name)
        self.graph: type[GraphRules[Any]] | None = graph
        if graph is not None:
            self._check_graph(graph)
        self.oauth: type[OAuth[Any]] | None = oauth
        if oauth is not None:
            self._check_oauth(oauth)

    @property
    def auth_type(self) -> str:
        """How an instance gets its credentials: none, api_key or oauth."""
        return self.plugin.auth_type

    @property
    def shared_webhook(self) -> WebhookSpec | None:
        """The hook that also serves `/api/hooks/<plugin>`, if there is one."""
        return next((hook for hook in self.webhooks.values() if hook.shared), None)

    def _check_graph(self, graph: type[GraphRules[Any]]) -> None:
        what = f"plugin {self.name}: its graph rules ({graph.__name__})"
        _docstring(graph, what)
        arguments = _type_arguments(graph, GraphRules)
        if not arguments or not isinstance(arguments[0], type) or not issubclass(arguments[0], GraphConfig):
            raise ManifestError(f"{what}: derive them from GraphRules[YourConfig], with a GraphConfig")
        if not issubclass(self.config, arguments[0]):
            given, own = arguments[0].__name__, self.config.__name__
            raise ManifestError(f"{what} take {given}, and the plugin's config is {own}: name one class")
        plugin_name = getattr(graph, "plugin_name", None)
        if not isinstance(plugin_name, str) or not _PLUGIN_NAME.fullmatch(plugin_name):
            raise ManifestError(f'{what}: say plugin_name = "…", of up to 20 letters, digits and hyphens')
        for method in ("declaration", "build"):
            if _function(graph, method) is _function(GraphRules, method):
                raise ManifestError(f"{what}: define {method}")

    def _check_oauth(self, oauth: type[OAuth[Any]]) -> None:
        what = f"plugin {self.name}: its OAuth ({oauth.__name__})"
        types = getattr(oauth, "types", None)
        if not types or not set(types) <= {"app", "user"}:
            raise ManifestError(f'{what}: say types = frozenset({{"app", "user"}}), or one of the two')
        for method in ("authorize_url", "exchange"):
            if _function(oauth, method) is _function(OAuth, method):
                raise ManifestError(f"{what}: define {method}")
        if "app" in types and self.auth_type != "oauth":
            raise ManifestError(f'{what}: an app install gives the credentials; say auth_type = "oauth" in the plugin')
        given = (_type_arguments(oauth, OAuth) or (NoSettings,))[0]
        if not issubclass(self.settings, given):
            raise ManifestError(
                f"{what} takes {given.__name__}, and the plugin's settings are {self.settings.__name__}: name one class"
            )

    def _webhook(self, spec: WebhookSpec) -> WebhookSpec:
        what = f"webhook {self.plugin.__name__}.{spec.method}"
        if spec.slug and not _NAME.fullmatch(spec.slug):
            raise ManifestError(f"{what}: the slug should be lower-case words joined by hyphens")
        asynchronous = inspect.iscoroutinefunction(getattr(self.plugin, spec.method))
        if isinstance(spec.verify, Unsigned):
            if asynchronous:
                raise ManifestError(f"{what}: an unsigned hook is a plain `def` that returns Wakes")
            return spec
        if not asynchronous:
            raise ManifestError(f"{what} should be `async def`")
        for source, field in spec.verify.secret.sources:
            if field not in (self.config if source == "config" else self.settings).model_fields:
                raise ManifestError(f"{what}: its secret is {source}({field!r}), and there is no such field")
        return spec


def _function(cls: type, name: str) -> object:
    """The plain function behind a method or a classmethod."""
    member = inspect.getattr_static(cls, name)
    return getattr(member, "__func__", member)


def _checked_name(cls: type, kind: str) -> str:
    name = cls.__dict__.get("name") or getattr(cls, "name", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > 64:
        raise ManifestError(f"{kind} {cls.__name__}: name = {name!r} should be lower-case words joined by hyphens")
    return name


def _docstring(item: object, what: str) -> str:
    own = item.__dict__.get("__doc__") if isinstance(item, type) else item.__doc__
    if not own:
        raise ManifestError(f"{what} has no docstring: it is what drivers read as the description")
    return inspect.cleandoc(own)


def _type_arguments(cls: type, generic: type) -> tuple[Any, ...]:
    """The arguments `cls` gives to `generic`, itself or through a generic class in between."""
    for parent in cls.__dict__.get("__orig_bases__", cls.__bases__):
        origin = typing.get_origin(parent) or parent
        if origin is generic:
            return typing.get_args(parent)
        if isinstance(origin, type) and issubclass(origin, generic):
            given = dict(zip(getattr(origin, "__parameters__", ()), typing.get_args(parent), strict=False))
            return tuple(_substituted(argument, given) for argument in _type_arguments(origin, generic))
    return ()


def _substituted(argument: Any, given: Mapping[Any, Any]) -> Any:
    """What a type variable was given, else its default; anything else as it is."""
    if not isinstance(argument, typing.TypeVar):
        return argument
    return given.get(argument, getattr(argument, "__default__", argument))


def _require(found: object, base: type, what: str) -> None:
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ManifestError(f"{what} should be a subclass of {base.__name__}, not {found!r}")


def _plugin_types(plugin: type[Plugin[Any, Any, Any]]) -> tuple[Any, Any, Any]:
    given = _type_arguments(plugin, Plugin)
    if not given:
        raise ManifestError(f"plugin {plugin.name}: derive it from Plugin[YourConfig]")
    filled = (*given, *(NoState, NoSettings)[len(given) - 1 :])
    for found, base in zip(filled, (Config, State, Settings), strict=True):
        _require(found, base, f"plugin {plugin.name}: its {base.__name__.lower()}")
    state = filled[1]
    required = [name for name, field in state.model_fields.items() if field.is_required()]
    if required:
        raise ManifestError(f"plugin {plugin.name}: state field {required[0]} needs a default")
    return filled[0], filled[1], filled[2]


def _marked_members(plugin: type) -> Iterator[tuple[str, object]]:
    for name, member in inspect.getmembers(plugin, callable):
        mark = getattr(member, "__metagov__", None)
        if mark is not None:
            yield name, mark


def _action(plugin: type, method: str, mark: ActionMark) -> ActionSpec:
    function = getattr(plugin, method)
    what = f"action {mark.slug} ({plugin.__name__}.{method})"
    if not _NAME.fullmatch(mark.slug):
        raise ManifestError(f"{what}: the slug should be lower-case words joined by hyphens")
    if not inspect.iscoroutinefunction(function):
        raise ManifestError(f"{what} should be `async def`")
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise ManifestError(f"{what}: {error}; import the type at module level") from error
    parameters = list(inspect.signature(function).parameters)[1:]
    if len(parameters) != 1 or parameters[0] not in hints or "return" not in hints:
        raise ManifestError(f"{what}: write it as `async def {method}(self, params: Params) -> Result`")
    return ActionSpec(
        slug=mark.slug,
        method=method,
        description=_docstring(function, what),
        public=mark.public,
        exclusive=mark.exclusive,
        params=TypeAdapter(hints[parameters[0]]),
        result=TypeAdapter(hints["return"]),
    )


def _poll(plugin: type, spec: PollSpec) -> PollSpec:
    if not inspect.isasyncgenfunction(getattr(plugin, spec.name)):
        raise ManifestError(f"poll {plugin.__name__}.{spec.name} should be an `async def` that yields Checkpoints")
    return spec


def _index(specs: Sequence[Any], attribute: str, clash: str) -> Mapping[str, Any]:
    index: dict[str, Any] = {}
    for spec in specs:
        key = getattr(spec, attribute)
        if key in index:
            raise ManifestError(f"{clash} {key!r}")
        index[key] = spec
    return MappingProxyType(index)
