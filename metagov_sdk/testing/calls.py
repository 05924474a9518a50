"""One action, one webhook or one poll, run as the gateway runs it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Unpack

from pydantic import JsonValue, SecretStr
from pydantic_core import PydanticSerializationError

from metagov_sdk.accounts import AccountLink
from metagov_sdk.credentials import Token
from metagov_sdk.errors import PluginError
from metagov_sdk.manifest import Manifest
from metagov_sdk.models import State
from metagov_sdk.plugin import Emitted, EmittedEvent, Plugin
from metagov_sdk.process import Signal
from metagov_sdk.testing.binding import NOW, Binding, ContractError, apply_changes, bind_call, platform_id, typed
from metagov_sdk.verify import SecretRef, Unsigned
from metagov_sdk.webhook import HookRequest, Reply, Wake, WebhookSpec

_REFUSED = Reply.json({"title": "the webhook's signature does not verify"}, status=401)
_UNREADABLE = Reply.json({"title": "the webhook cannot be read"}, status=400)
_STORED = Reply.json({"status": "stored"}, status=202)
_REPEATED = Reply.json({"status": "duplicate"}, status=200)
_NOTED = Reply.json({"status": "noted"}, status=202)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What a call asked for; `state` is the instance's state once it is committed."""

    state: State
    events: list[EmittedEvent] = field(default_factory=list)
    signals: list[Signal] = field(default_factory=list)
    links: list[AccountLink] = field(default_factory=list)
    credentials: dict[str, Token] = field(default_factory=dict)
    disabled: str | None = None
    """Why the instance is taken out of use, if it is."""

    @property
    def wire_events(self) -> list[dict[str, Any]]:
        """The events as drivers get them: `event_type`, `data`, `initiator`."""
        return [
            {
                "event_type": item.event.wire_type(),
                "data": item.event.wire_data(),
                "initiator": None if item.initiator is None else item.initiator.model_dump(mode="json"),
            }
            for item in self.events
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran(Outgoing):
    """An action that has run; `result` is the JSON a driver gets."""

    result: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class HookResult(Outgoing):
    """What became of a webhook.

    verified  the signature holds, and the webhook is for this instance.
    reply     what the platform is answered.
    key       what repeats are recognised by.
    handled   whether the plugin's method ran (not for a repeat, nor after a reply with `store=False`).
    wakes     what an unsigned hook asks to look at again.
    """

    verified: bool
    reply: Reply
    key: str | None = None
    handled: bool = False
    wakes: tuple[Wake, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Polled(Outgoing):
    """A poll that has run to its end; `cursor` is where the next one goes on from."""

    cursor: JsonValue = None


async def perform(manifest: Manifest, slug: str, params: Any = None, **binding: Unpack[Binding]) -> Ran:
    """Perform an action with JSON parameters.

    Raises pydantic.ValidationError where the gateway answers 422, LookupError for an unknown slug, ContractError, and
    what the plugin raises.
    """
    spec = _named(manifest.actions, slug, "action")
    values = spec.params.validate_python({} if params is None else params)
    plugin = bind_call(manifest, binding, may_emit=True)
    result = await getattr(plugin, spec.method)(values)
    try:
        encoded = spec.result.dump_json(result, by_alias=True, warnings="error")
    except PydanticSerializationError as error:
        raise ContractError(f"action {slug}: the result does not fit its return annotation: {error}") from error
    return Ran(result=_finite_json(encoded, f"action {slug}: the result"), **_commit(manifest, plugin))


async def receive(
    manifest: Manifest,
    request: HookRequest,
    *,
    shared: bool = False,
    seen: set[str] | None = None,
    **binding: Unpack[Binding],
) -> HookResult:
    """Let a webhook in: verify, reply, deduplicate, then run the plugin's method.

    shared  it came to the plugin's one URL, not to the instance's.
    seen    keys of earlier webhooks; this one's is added. Pass the same set again to see a repeat dropped.

    Raises LookupError for an unknown hook, ContractError, and what the plugin's method raises.
    """
    spec = _named(manifest.webhooks, request.hook, "webhook")
    if shared and not spec.shared:
        raise LookupError(f"the webhook {request.hook!r} is not shared: there is no such URL")
    before = typed(manifest.state, binding.get("state") or {})
    if isinstance(spec.verify, Unsigned):
        return HookResult(
            state=before, verified=False, reply=_NOTED, handled=True, wakes=_wakes(manifest, spec, request, binding)
        )
    try:
        ids = None if spec.locate is None else list(spec.locate(request))
    except PluginError:
        return HookResult(state=before, verified=False, reply=_UNREADABLE)
    if not _is_genuine(manifest, spec, request, ids, shared=shared, binding=binding):
        if not _is_known(manifest, spec, request, ids, shared=shared, binding=binding):
            return HookResult(state=before, verified=False, reply=_REFUSED)
        # What the operator's secret signs on the shared URL is answered, whether or not there is anybody it is for; on
        # the instance's own URL, what names nobody and asks for an answer alone: the URL is being set up.
        answer = spec.reply(request) if spec.reply else None
        return HookResult(state=before, verified=False, reply=answer or _REPEATED)
    reply = spec.reply(request) if spec.reply else None
    if reply is not None and not reply.store:
        return HookResult(state=before, verified=True, reply=reply)
    key = spec.dedupe(request) if spec.dedupe else None
    if key is not None and seen is not None:
        if key in seen:
            return HookResult(state=before, verified=True, reply=reply or _REPEATED, key=key)
        seen.add(key)
    plugin = bind_call(manifest, binding, may_emit=True)
    await getattr(plugin, spec.method)(request)
    return HookResult(verified=True, reply=reply or _STORED, key=key, handled=True, **_commit(manifest, plugin))


async def run_poll(manifest: Manifest, name: str, cursor: JsonValue = None, **binding: Unpack[Binding]) -> Polled:
    """Run a poll from `cursor` to its end. Raises LookupError, ContractError, and what the plugin raises."""
    spec = _named(manifest.polls, name, "poll")
    plugin = bind_call(manifest, binding, may_emit=True)
    async for checkpoint in getattr(plugin, spec.name)(cursor):
        cursor = _finite_json(json.dumps(checkpoint.cursor), f"poll {name}: the cursor")
    return Polled(cursor=cursor, **_commit(manifest, plugin))


def _named(specs: Any, name: str, kind: str) -> Any:
    try:
        return specs[name]
    except KeyError:
        raise LookupError(f"the plugin has no {kind} {name!r}; it has {sorted(specs)}") from None


def _commit(manifest: Manifest, plugin: Plugin[Any, Any, Any]) -> dict[str, Any]:
    """What the call emitted, checked as the gateway's tables would."""
    emitted: Emitted = plugin.emitted
    for item in emitted.events:
        _finite_json(json.dumps(item.event.wire_data()), f"event {item.event.wire_type()}: its data")
    for signal in emitted.signals:
        if signal.process not in manifest.processes:
            raise ContractError(f"a signal is addressed to the process {signal.process!r}, which the manifest lacks")
    state = apply_changes(manifest.state, plugin.state, emitted.changes)
    return {
        "state": state,
        "events": list(emitted.events),
        "signals": list(emitted.signals),
        "links": list(emitted.links),
        "credentials": dict(emitted.credentials),
        "disabled": emitted.disabled,
    }


def _finite_json(encoded: str | bytes, what: str) -> Any:
    def refuse(constant: str) -> float:
        raise ContractError(f"{what} holds {constant}, which JSON has not")

    return json.loads(encoded, parse_constant=refuse)


def _wakes(manifest: Manifest, spec: WebhookSpec, request: HookRequest, binding: Binding) -> tuple[Wake, ...]:
    plugin = bind_call(manifest, binding, may_emit=False)
    wakes: Sequence[Wake] = getattr(plugin, spec.method)(request)
    for wake in wakes:
        if wake.poll is not None and wake.poll not in manifest.polls:
            raise ContractError(f"a Wake names the poll {wake.poll!r}, which the plugin lacks")
        if wake.process is not None and wake.process not in manifest.processes:
            raise ContractError(f"a Wake names the process {wake.process!r}, which the manifest lacks")
    return tuple(wakes)


def _is_genuine(
    manifest: Manifest,
    spec: WebhookSpec,
    request: HookRequest,
    ids: list[str] | None,
    *,
    shared: bool,
    binding: Binding,
) -> bool:
    """Whether the webhook is signed, and for this instance."""
    if isinstance(spec.verify, Unsigned):
        return False
    config = typed(manifest.config, binding.get("config", {}))
    settings = typed(manifest.settings, binding.get("settings", {}))
    own = _secret(spec.verify.secret, "config", config)
    secret = own or _secret(spec.verify.secret, "setting", settings)
    now = binding.get("now", NOW).timestamp()
    if not spec.verify(secret, request.headers, request.body, now):
        return False
    bound_to = platform_id(manifest, binding)
    if ids is None or bound_to in ids:
        return True
    # On its own URL, with a secret of its own and no platform id, whatever is signed is the instance's.
    return not shared and bound_to is None and bool(own)


def _is_known(
    manifest: Manifest,
    spec: WebhookSpec,
    request: HookRequest,
    ids: list[str] | None,
    *,
    shared: bool,
    binding: Binding,
) -> bool:
    """Whether the webhook is signed, though it is not for this instance."""
    if isinstance(spec.verify, Unsigned):
        return False
    if shared:
        secret = _secret(spec.verify.secret, "setting", typed(manifest.settings, binding.get("settings", {})))
    else:
        reply = spec.reply(request) if spec.reply and not ids else None
        if reply is None or reply.store:
            return False
        secret = _secret(spec.verify.secret, "config", typed(manifest.config, binding.get("config", {})))
    return spec.verify(secret, request.headers, request.body, binding.get("now", NOW).timestamp())


def _secret(ref: SecretRef, where: str, values: object) -> str:
    return _first(getattr(values, name, None) for source, name in ref.sources if source == where)


def _first(values: Iterable[object]) -> str:
    for value in values:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if text:
            return str(text)
    return ""
