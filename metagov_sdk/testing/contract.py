"""What every plugin keeps to, whoever wrote it. `check_manifest` finds all that is wrong at once."""

from __future__ import annotations

import inspect
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema

from metagov_sdk.errors import PluginError
from metagov_sdk.events import Event
from metagov_sdk.headers import Headers
from metagov_sdk.manifest import Manifest
from metagov_sdk.models import Versioned
from metagov_sdk.process import Process
from metagov_sdk.testing.binding import NOW, ContractError, kept
from metagov_sdk.verify import Unsigned, Verifier
from metagov_sdk.webhook import HookRequest, WebhookSpec

# What strangers post. Nothing here is signed.
_HOSTILE_BODIES = (
    b"",
    b"\xff\x00",
    b"null",
    b"[]",
    b"{}",
    b'"text"',
    b'{"id":NaN,"type":null,"action":[],"installation":{"id":{}},"team_id":7}',
    b'{"installation":[],"payload":"\\ud800","event":{"type":{}}}',
    b"[" * 50_000,
    b"payload=",
    b"payload=%7B%22",
    b"payload=%FF%00&payload=[]",
    b"a=1&" * 5000,
)
_HOSTILE_HEADERS = (
    (),
    (("Content-Type", "application/json"),),
    (("Content-Type", "application/x-www-form-urlencoded"), ("X-Hub-Signature-256", "sha256=")),
)


def check_manifest(manifest: Manifest) -> None:
    """Hold a plugin to the rules below. Raises ContractError that lists every breach, one a line.

    - the plugin's module, its events, webhooks and polls have docstrings (the manifest sees to actions and processes);
      every field that a driver or the operator fills in has a description;
    - JSON schemas can be built from all types, and parameters are JSON objects;
    - state and settings have defaults for every field;
    - no signed webhook accepts a request that is not signed, whatever it holds, and the pure functions beside it
      (dedupe, locate, reply) take any bytes: they answer, or raise Rejected;
    - the settings that OAuth misses are settings of the plugin.
    """
    problems = [
        *_documentation(manifest),
        *_schemas(manifest),
        *_defaults(manifest),
        *(problem for hook in manifest.webhooks.values() for problem in _webhook(hook)),
        *_oauth(manifest),
    ]
    if problems:
        raise ContractError("\n".join(f"{manifest.name}: {problem}" for problem in problems))


def _documentation(manifest: Manifest) -> Iterator[str]:
    package = manifest.plugin.__module__.removesuffix(".plugin")
    if not inspect.getdoc(sys.modules.get(package, sys.modules[manifest.plugin.__module__])):
        yield f"the module {package} has no docstring: say what the plugin is for"
    for event in manifest.events:
        if not event.__dict__.get("__doc__"):
            yield f"event {event.__name__} has no docstring: say when it happens"
    for name in [*(hook.method for hook in manifest.webhooks.values()), *manifest.polls]:
        if not getattr(manifest.plugin, name).__doc__:
            yield f"{manifest.plugin.__name__}.{name} has no docstring: say what it takes in"
    for what, kind in _filled_in(manifest):
        for name, field in kind.model_fields.items():
            if not field.description:
                yield f"{what}: field {name} has no description: write a docstring under it, or Field(description=…)"


def _filled_in(manifest: Manifest) -> Iterator[tuple[str, type[BaseModel]]]:
    """The models whose values a driver or the operator writes."""
    yield "config", manifest.config
    yield "settings", manifest.settings
    for action in manifest.actions.values():
        kind = action.params._type
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield f"parameters of action {action.slug}", kind
    for process in manifest.processes.values():
        yield f"parameters of process {process.name}", process.params


def _schemas(manifest: Manifest) -> Iterator[str]:
    yield from _schema("config", TypeAdapter(manifest.config), parameters=True)
    for action in manifest.actions.values():
        yield from _schema(f"parameters of action {action.slug}", action.params, parameters=True)
        yield from _schema(f"result of action {action.slug}", action.result)
    for process in manifest.processes.values():
        yield from _schema(f"parameters of process {process.name}", TypeAdapter(process.params), parameters=True)
        yield from _schema(f"outcome of process {process.name}", TypeAdapter(process.outcome))
    for event in manifest.events:
        yield from _schema(f"event {event.__name__}", TypeAdapter[Event](event))


def _schema(what: str, adapter: TypeAdapter[Any], *, parameters: bool = False) -> Iterator[str]:
    try:
        schema = adapter.json_schema(mode="validation" if parameters else "serialization")
        json.dumps(schema, allow_nan=False)
    except (PydanticInvalidForJsonSchema, PydanticUserError, TypeError, ValueError) as error:
        yield f"{what}: no JSON schema can be made of it: {error}"
        return
    if parameters and not ({"properties", "$ref", "anyOf", "oneOf"} & schema.keys() or schema.get("type") == "object"):
        yield f"{what}: should be an object with named fields, not {schema.get('type')}"


def _defaults(manifest: Manifest) -> Iterator[str]:
    try:
        kept(manifest.state(), "the default state")
    except ContractError as error:
        yield str(error)
    try:
        manifest.settings()
    except ValidationError:
        yield "settings: every field needs a default; a deployment without the setting still starts"
    stored: list[tuple[str, int, Any, Any]] = [
        ("config", manifest.config.version, manifest.config.upgrade, Versioned.upgrade),
        ("state", manifest.state.version, manifest.state.upgrade, Versioned.upgrade),
        *(
            (f"process {process.name}", process.cls.version, process.cls.upgrade, Process.upgrade)
            for process in manifest.processes.values()
        ),
    ]
    for what, version, upgrade, inherited in stored:
        if version > 1 and upgrade.__func__ is inherited.__func__:
            yield f"{what}: version {version} needs upgrade() for what is stored already"


def _oauth(manifest: Manifest) -> Iterator[str]:
    if manifest.oauth is None:
        return
    try:
        missing = manifest.oauth.missing(manifest.settings())
    except ValidationError:
        return  # said above
    for name in missing:
        if name not in manifest.settings.model_fields:
            yield f"OAuth.missing names {name!r}, and the settings have no such field"


def _webhook(hook: WebhookSpec) -> Iterator[str]:
    what = f"webhook {hook.slug!r}"
    requests = [
        HookRequest(body, Headers(headers), hook.slug) for body in _HOSTILE_BODIES for headers in _HOSTILE_HEADERS
    ]
    if not isinstance(hook.verify, Unsigned):
        believed = next((request for request in requests if _accepts(hook.verify, request)), None)
        if believed is not None:
            yield f"{what}: takes an unsigned request for genuine: {believed.body[:60]!r}"
    functions = {"dedupe": hook.dedupe, "locate": hook.locate, "reply": hook.reply}
    for name, function in functions.items():
        if function is not None:
            yield from itertools.islice(_crashes(f"{what}: {name}", function, requests), 1)


def _accepts(verify: Verifier, request: HookRequest) -> bool:
    secrets = ("", "secret", "whsec_c2VjcmV0", "00" * 32)
    return any(verify(secret, request.headers, request.body, NOW.timestamp()) for secret in secrets)


def _crashes(what: str, function: Callable[[HookRequest], Any], requests: list[HookRequest]) -> Iterator[str]:
    for request in requests:
        try:
            function(request)
        except PluginError:
            continue
        except Exception as error:  # A plugin's function can raise anything, and all of it is a breach.
            yield f"{what} raises {type(error).__name__} on {request.body[:60]!r}"
