"""The manifest: what it reads from a plugin's class, and what it refuses, in words that name the member."""

from __future__ import annotations

import types
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from pydantic import JsonValue, SecretStr

from metagov_sdk import (
    Checkpoint,
    CloseReason,
    Completed,
    Config,
    Event,
    HookRequest,
    Manifest,
    ManifestError,
    Model,
    NoSettings,
    NoState,
    Pending,
    Plugin,
    Process,
    Rejected,
    Settings,
    State,
    Step,
    Wake,
    action,
    config,
    hmac_sha256,
    poll,
    setting,
    unsigned,
    webhook,
)


class BellConfig(Config):
    """Config."""

    secret: SecretStr = SecretStr("s")


class BellState(State):
    """State."""

    rung: int = 0


class BellSettings(Settings):
    """Settings."""

    secret: SecretStr | None = None


class Ring(Model):
    """Ring."""

    times: int = 1


class Rung(Event):
    """The bell was rung."""

    event_type: ClassVar[str] = "rung"


class Bell(Plugin[BellConfig, BellState, BellSettings]):
    """A bell to ring."""

    name = "bell"

    @action("ring", public=True, exclusive=True)
    async def ring(self, params: Ring) -> Ring:
        """Ring it."""
        return params

    @webhook(verify=hmac_sha256(config("secret") | setting("secret")), shared=True, locate=lambda request: [])
    async def hear(self, request: HookRequest) -> None:
        """Hear it."""

    @webhook("hints", verify=unsigned(reason="the platform signs nothing"))
    def hint(self, request: HookRequest) -> Sequence[Wake]:
        """A hint."""
        return [Wake(poll="listen")]

    @poll(every=timedelta(minutes=1))
    async def listen(self, cursor: JsonValue) -> AsyncIterator[Checkpoint]:
        """Listen."""
        yield Checkpoint(1)


class Wait(Process[Ring, BellState, Ring]):
    """Wait for the bell."""

    name = "wait"

    async def start(self, params: Ring) -> Step[BellState, Ring]:
        return Pending(BellState())

    @classmethod
    def close(cls, state: BellState, why: CloseReason) -> Completed[Ring]:
        return Completed(Ring())


def test_it_lists_what_the_class_declares() -> None:
    manifest = Manifest(Bell, processes=[Wait], events=[Rung])
    assert (manifest.name, manifest.description, manifest.auth_type) == ("bell", "A bell to ring.", "none")
    assert (manifest.config, manifest.state, manifest.settings) == (BellConfig, BellState, BellSettings)
    ring = manifest.actions["ring"]
    assert (ring.method, ring.description, ring.public, ring.exclusive) == ("ring", "Ring it.", True, True)
    assert ring.params.json_schema()["properties"].keys() == {"times"}
    assert set(manifest.webhooks) == {"", "hints"}
    assert manifest.shared_webhook is manifest.webhooks[""]
    assert manifest.polls["listen"].every == timedelta(minutes=1)
    wait = manifest.processes["wait"]
    assert (wait.description, wait.params, wait.state, wait.outcome) == ("Wait for the bell.", Ring, BellState, Ring)
    assert (wait.can_find_started, wait.observes, wait.renders) == (False, False, False)


def test_state_and_settings_may_be_left_out() -> None:
    class Plain(Plugin[BellConfig]):
        """Plain."""

        name = "plain"

    manifest = Manifest(Plain)
    assert (manifest.state, manifest.settings, manifest.shared_webhook) == (NoState, NoSettings, None)


def test_a_subclass_keeps_its_parents_types_and_actions() -> None:
    class Gong(Bell):
        """A deeper bell."""

        name = "gong"

    assert Manifest(Gong).config is BellConfig
    assert set(Manifest(Gong).actions) == {"ring"}


def _new_class(base: Any, members: dict[str, Any]) -> Any:
    return types.new_class("Odd", (base,), exec_body=lambda namespace: namespace.update(members))


def _plugin(**members: Any) -> type[Plugin[Any, Any, Any]]:
    """A plugin class with these members in the place of the usual ones."""
    plugin: type[Plugin[Any, Any, Any]] = _new_class(
        Plugin[BellConfig, BellState, BellSettings], {"name": "odd", "__doc__": "Odd.", **members}
    )
    return plugin


async def _ring(self: Any, params: Ring) -> Ring:
    """Ring."""
    return params


async def _no_docstring(self: Any, params: Ring) -> Ring:
    return params


async def _no_result(self: Any, params: Ring):  # type: ignore[no-untyped-def]
    """Ring."""


async def _two_parameters(self: Any, params: Ring, more: int) -> Ring:
    """Ring."""
    return params


def _not_async(self: Any, params: Ring) -> Ring:
    """Ring."""
    return params


async def _unknown_type(self: Any, params: Nowhere) -> Ring:  # type: ignore[name-defined]  # noqa: F821
    """Ring."""
    raise NotImplementedError


async def _hear(self: Any, request: HookRequest) -> None:
    """Hear."""


def _hint(self: Any, request: HookRequest) -> Sequence[Wake]:
    """Hint."""
    return []


async def _listen(self: Any, cursor: JsonValue) -> None:
    """Listen."""


def _copy(function: Any) -> Any:
    """The same function anew: decorators mark the function itself."""
    return type(function)(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )


def _marked(mark: Callable[[Any], Any], function: Any, name: str | None = None) -> Any:
    fresh = _copy(function)
    fresh.__name__ = name or function.__name__
    fresh.__doc__ = function.__doc__
    fresh.__annotations__ = function.__annotations__
    return mark(fresh)


class StateWithoutDefault(State):
    """State."""

    rung: int


class NeedsState(Plugin[BellConfig, StateWithoutDefault]):
    """Odd."""

    name = "odd"


class NoTypes(Plugin):  # type: ignore[type-arg]
    """Odd."""

    name = "odd"


class WrongTypes(Plugin[Ring]):  # type: ignore[type-var]
    """Odd."""

    name = "odd"


SIGNED = hmac_sha256(config("secret"))
SHARED: dict[str, Any] = {"verify": SIGNED, "shared": True, "locate": lambda request: []}


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        (_plugin(name="Odd One"), "should be lower-case words joined by hyphens"),
        (_plugin(name="a" * 65), "should be lower-case words joined by hyphens"),
        (_plugin(name=None), "should be lower-case words joined by hyphens"),
        (_plugin(__doc__=None), "plugin odd has no docstring"),
        (NoTypes, r"derive it from Plugin\[YourConfig\]"),
        (WrongTypes, "its config should be a subclass of Config"),
        (NeedsState, "state field rung needs a default"),
        (_plugin(a=_marked(action("Ring It"), _ring)), "the slug should be lower-case words"),
        (_plugin(a=_marked(action("ring"), _no_docstring)), "action ring .* has no docstring"),
        (_plugin(a=_marked(action("ring"), _no_result)), "write it as `async def"),
        (_plugin(a=_marked(action("ring"), _two_parameters)), "write it as `async def"),
        (_plugin(a=_marked(action("ring"), _not_async)), "should be `async def`"),
        (_plugin(a=_marked(action("ring"), _unknown_type)), "import the type at module level"),
        (_plugin(a=_marked(action("ring"), _ring), b=_marked(action("ring"), _ring)), "two actions named 'ring'"),
        (
            _plugin(a=_marked(webhook(verify=SIGNED), _hear, "a"), b=_marked(webhook(verify=SIGNED), _hear, "b")),
            "two webhooks with the slug ''",
        ),
        (
            _plugin(a=_marked(webhook(**SHARED), _hear, "a"), b=_marked(webhook("b", **SHARED), _hear, "b")),
            "two webhooks with shared=True",
        ),
        (_plugin(_hear=_marked(webhook("A/B", verify=SIGNED), _hear)), "the slug should be lower-case words"),
        (_plugin(_hint=_marked(webhook(verify=SIGNED), _hint)), "should be `async def`"),
        (_plugin(_hear=_marked(webhook(verify=unsigned("none")), _hear)), "an unsigned hook is a plain `def`"),
        (
            _plugin(_hear=_marked(webhook(verify=hmac_sha256(config("sekret"))), _hear)),
            r"its secret is config\('sekret'\), and there is no such field",
        ),
        (
            _plugin(_hear=_marked(webhook(verify=hmac_sha256(setting("key"))), _hear)),
            r"its secret is setting\('key'\), and there is no such field",
        ),
        (_plugin(_listen=_marked(poll(every=timedelta(minutes=1)), _listen)), "yields Checkpoints"),
    ],
)
def test_what_is_no_plugin_is_refused_in_plain_words(plugin: type[Plugin[Any, Any, Any]], words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        Manifest(plugin)


def _process(base: Any = Process[Ring, BellState, Ring], **members: Any) -> type[Process[Any, Any, Any]]:
    usual = {"name": "odd", "__doc__": "Odd.", "start": Wait.start, "close": Wait.__dict__["close"]}
    process: type[Process[Any, Any, Any]] = _new_class(base, {**usual, **members})
    return process


@pytest.mark.parametrize(
    ("process", "words"),
    [
        (_process(name="Odd"), "should be lower-case words"),
        (_process(__doc__=None), "process odd has no docstring"),
        (_process(base=Process), r"derive it from Process\[Params, State, Outcome\]"),
        (_process(base=Process[int, BellState, Ring]), "its params should be a subclass of Model"),  # type: ignore[type-var]
        (_process(base=Process[Ring, Ring, Ring]), "its state should be a subclass of State"),  # type: ignore[type-var]
        (_process(base=Process[Ring, BellState, int]), "its outcome should be a subclass of Model"),  # type: ignore[type-var]
        (_process(start=Process.start), "define start"),
        (_process(close=Process.__dict__["close"]), "define close"),
    ],
)
def test_what_is_no_process_is_refused_in_plain_words(process: type[Process[Any, Any, Any]], words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        Manifest(Bell, processes=[process])


def test_two_processes_of_one_name_are_refused() -> None:
    with pytest.raises(ManifestError, match="two processes named 'wait'"):
        Manifest(Bell, processes=[Wait, Wait])


def test_an_event_says_its_type() -> None:
    class Silent(Event):
        """Nothing."""

    with pytest.raises(ManifestError, match="event Silent: say its event_type"):
        Manifest(Bell, events=[Silent])


def test_a_shared_webhook_tells_whose_it_is() -> None:
    with pytest.raises(ManifestError, match="needs locate="):
        webhook(verify=SIGNED, shared=True)


def test_a_poll_is_no_busy_loop() -> None:
    with pytest.raises(ManifestError, match="at least a second"):
        poll(every=timedelta(milliseconds=999))


@pytest.mark.parametrize(
    "body", [b"", b"x", b"[]", b'"a"', b"\xff", b'{"a": NaN}', b'{"a": -Infinity}', b'{"a": 1e999}', b"[" * 100_000]
)
def test_a_webhooks_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(Rejected, match="the webhook's body is"):
        HookRequest(body).json()


def test_a_webhooks_numbers_are_kept_as_they_are() -> None:
    assert HookRequest(b'{"a": 9007199254740993, "b": 1.5e3}').json() == {"a": 9007199254740993, "b": 1500.0}
