"""A bound plugin object for a test, and what the gateway would do with the state changes it asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TypedDict, TypeVar, Unpack, overload

import httpx
from pydantic import BaseModel, ValidationError

from metagov_sdk.credentials import Mint, Token, UsedCredential
from metagov_sdk.errors import Unauthorized
from metagov_sdk.manifest import Manifest
from metagov_sdk.models import Config, Settings, State
from metagov_sdk.oauth import OAuth
from metagov_sdk.plugin import Call, Plugin
from metagov_sdk.processes import Processes

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
"""The time in a test that names no other."""

ModelT = TypeVar("ModelT", bound=BaseModel)
PluginT = TypeVar("PluginT", bound=Plugin[Any, Any, Any])


class ContractError(AssertionError):
    """The plugin did what the gateway does not take; the message says what, and the mend."""


class Binding(TypedDict, total=False):
    """What a test may say about the instance. Everything has a default.

    config, state, settings  JSON objects as a driver, the store or the operator would give them, or ready-made values.
    now                      the database's time during the call (NOW).
    transport                what answers `self.http`, usually an httpx.MockTransport. Without one, every request fails.
    community_platform_id    the platform id the instance is bound to; by default what its config names.
    processes                what `self.processes` of an action finds, usually a ProcessesInMemory.
    credentials              what `self.credential` finds, by name: a token, or its text.
    """

    config: Config | Mapping[str, Any]
    state: State | Mapping[str, Any] | None
    settings: Settings | Mapping[str, Any]
    now: datetime
    transport: httpx.AsyncBaseTransport
    community: str
    community_platform_id: str | None
    idempotency_key: str
    processes: Processes
    credentials: Mapping[str, str | Token]


@overload
def bind(plugin: type[PluginT], **binding: Unpack[Binding]) -> PluginT: ...
@overload
def bind(plugin: Manifest, **binding: Unpack[Binding]) -> Plugin[Any, Any, Any]: ...
def bind(plugin: type[Plugin[Any, Any, Any]] | Manifest, **binding: Unpack[Binding]) -> Plugin[Any, Any, Any]:
    """A plugin object as the gateway hands it to one call.

    Raises pydantic.ValidationError where the gateway would answer 422 (config) or refuse to start (settings).
    """
    return bind_call(plugin if isinstance(plugin, Manifest) else Manifest(plugin), binding, may_emit=True)


def bind_call(manifest: Manifest, binding: Binding, *, may_emit: bool) -> Plugin[Any, Any, Any]:
    """`bind`, for a call that may or may not emit."""
    config = typed(manifest.config, binding.get("config", {}))
    transport = binding.get("transport")
    call: Call[Any, Any, Any] = Call(
        instance_id="ins_test",
        community=binding.get("community", "test-community"),
        community_platform_id=platform_id(manifest, binding),
        config=config,
        state=typed(manifest.state, binding.get("state") or {}),
        settings=typed(manifest.settings, binding.get("settings", {})),
        now=binding.get("now", NOW),
        idempotency_key=binding.get("idempotency_key", "key_test"),
        log=_Silence(),
        connect=lambda plugin: httpx.AsyncClient(transport=_NoNetwork() if transport is None else _Shared(transport)),
        hook_url=f"https://gateway.example/api/hooks/{binding.get('community', 'test-community')}/{manifest.name}",
        may_emit=may_emit,
        processes=binding.get("processes"),
        credentials=_CredentialsInMemory(binding.get("credentials", {})),
    )
    return manifest.plugin(call)


def bind_oauth(
    manifest: Manifest,
    *,
    settings: Settings | Mapping[str, Any] | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> OAuth[Any]:
    """The plugin's OAuth object as the gateway makes it for one return. Raises LookupError for a plugin without."""
    if manifest.oauth is None:
        raise LookupError(f"the plugin {manifest.name!r} declares no OAuth: Manifest(…, oauth=…)")
    http = httpx.AsyncClient(transport=_NoNetwork() if transport is None else _Shared(transport))
    return manifest.oauth(typed(manifest.settings, settings or {}), http, _Silence())


def platform_id(manifest: Manifest, binding: Binding) -> str | None:
    """The platform id the instance is bound to: the test's word, else what the config names."""
    if "community_platform_id" in binding:
        return binding["community_platform_id"]
    named: str | None = manifest.plugin.platform_id(typed(manifest.config, binding.get("config", {})))
    return named


def typed(kind: type[ModelT], value: BaseModel | Mapping[str, Any]) -> ModelT:
    """`value` as `kind`; a ready-made value is taken as it is. Raises pydantic.ValidationError."""
    return value if isinstance(value, kind) else kind.model_validate(value)


def kept(value: ModelT, what: str) -> ModelT:
    """`value` after the store has had it as JSON. Raises ContractError when it does not come back the same."""
    try:
        again = type(value).model_validate(value.model_dump(mode="json"))
    except ValidationError as error:
        raise ContractError(f"{what} cannot be read back from its JSON: {error}") from error
    if again != value:
        raise ContractError(f"{what} is not the same after being kept as JSON; give its fields types that JSON has")
    return again


def apply_changes(kind: type[State], state: State, changes: Iterable[Callable[[Any], Any]]) -> State:
    """The state after the changes, in order. Raises ContractError when one returns something else than a state."""
    for change in changes:
        state = change(state)
        if not isinstance(state, kind):
            raise ContractError(f"a change of the state returned {type(state).__name__}; return a {kind.__name__}")
    return kept(state, "the state")


class _CredentialsInMemory:
    """Credentials for the length of one call. Minted ones are kept, and void ones minted anew."""

    def __init__(self, given: Mapping[str, str | Token]) -> None:
        self._tokens = {name: Token(token) if isinstance(token, str) else token for name, token in given.items()}

    async def read(self, name: str, mint: Mint | None) -> str:
        token = self._tokens.get(name)
        if token is None or (token.expires_in is not None and token.expires_in <= 0):
            if mint is None:
                raise Unauthorized(f"there is no credential named {name!r} that is still good")
            token = self._tokens[name] = await mint()
        return token.access_token

    async def invalidate(self, used: UsedCredential) -> bool:
        token = self._tokens.get(used.name)
        if token is not None and token.access_token == used.secret and used.minted:
            del self._tokens[used.name]
        return used.minted


class _Silence:
    """A log nobody reads."""

    def debug(self, event: str, **fields: object) -> None: ...
    def info(self, event: str, **fields: object) -> None: ...
    def warning(self, event: str, **fields: object) -> None: ...
    def error(self, event: str, **fields: object) -> None: ...


class _NoNetwork(httpx.AsyncBaseTransport):
    """Tests name what answers them; nothing leaves the machine by accident."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise ContractError(
            f"the plugin asked for {request.method} {request.url}, and the test has nothing that answers: "
            "pass transport=httpx.MockTransport(…)"
        )


class _Shared(httpx.AsyncBaseTransport):
    """The test's transport; it outlives the client of one call, as the gateway's connections do."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._transport.handle_async_request(request)
