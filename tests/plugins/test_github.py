"""The GitHub plugin: whose webhooks are believed, and which events they become."""

import json
from typing import Any
from urllib.parse import urlencode

import pytest
from pydantic import ValidationError

from metagov_sdk import Headers, HookRequest, OpenEvent, Rejected, Unsigned
from metagov_sdk.testing import NOW, HookResult, bind, hook_request, receive, sign_hmac_sha256
from plugins.github import manifest
from plugins.github.models import GithubConfig
from plugins.github.plugin import Github
from tests.plugins import github_payloads as payloads

SECRET = "It's a Secret to Everybody"
OWN = {"installation_id": payloads.INSTALLATION, "webhook_secret": SECRET}
BOUND = {"installation_id": payloads.INSTALLATION}
SETTINGS = {"webhook_secret": SECRET, "app_slug": "town-crier"}
HOOK = manifest.webhooks[""]


def delivery(
    event: str | None,
    payload: object,
    *,
    id: str = "72d3162e-cc78-11e3-81ab-4c9367dc0958",
    secret: str = SECRET,
    form: bool = False,
) -> HookRequest:
    body = payload if isinstance(payload, bytes) else json.dumps(payload, ensure_ascii=False).encode()
    if form:
        body = urlencode({"payload": body.decode()}).encode()
    headers = {
        "User-Agent": "GitHub-Hookshot/044aadd",
        "Content-Type": "application/x-www-form-urlencoded" if form else "application/json",
        "X-GitHub-Delivery": id,
        **({} if event is None else {"X-GitHub-Event": event}),
        **sign_hmac_sha256(secret, body),
    }
    return hook_request(body, headers)


async def hear(request: HookRequest, config: dict[str, Any] = OWN, **binding: Any) -> HookResult:
    return await receive(manifest, request, config=config, **binding)


def test_githubs_own_example_verifies() -> None:
    """From https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries."""
    signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    headers = Headers([("X-Hub-Signature-256", signature)])
    verify = HOOK.verify
    assert not isinstance(verify, Unsigned)
    assert verify(SECRET, headers, b"Hello, World!", NOW.timestamp())
    assert not verify(SECRET, headers, b"Hello, World?", NOW.timestamp())


@pytest.mark.parametrize("form", [False, True], ids=["json", "form"])
@pytest.mark.parametrize(
    ("event", "payload", "kind"),
    [
        ("issues", payloads.issues_opened(), "issues.opened"),
        ("push", payloads.push(), "push"),
        ("installation", payloads.installation_deleted(), "installation.deleted"),
    ],
    ids=["issues", "push", "installation"],
)
async def test_a_webhook_becomes_one_event_with_the_whole_body(
    event: str, payload: dict[str, Any], kind: str, form: bool
) -> None:
    got = await hear(delivery(event, payload, form=form))
    assert got.reply.status == 202
    assert got.wire_events == [
        {
            "event_type": kind,
            "data": payload,
            "initiator": {"user_id": "1001", "provider": "github", "is_metagov_bot": False},
        }
    ]
    assert got.events[0].key == "72d3162e-cc78-11e3-81ab-4c9367dc0958"


@pytest.mark.parametrize(("action", "reason"), [("deleted", "uninstalled"), ("suspend", "suspended")])
async def test_the_end_of_the_apps_access_disables_the_instance(action: str, reason: str) -> None:
    payload = {**payloads.installation_deleted(), "action": action}
    got = await hear(delivery("installation", payload))
    assert got.disabled is not None
    assert reason in got.disabled
    assert [event["event_type"] for event in got.wire_events] == [f"installation.{action}"]


@pytest.mark.parametrize(
    ("payload", "config"),
    [
        ({**payloads.installation_deleted(), "action": "created"}, OWN),
        ({**payloads.installation_deleted(), "action": ["deleted"]}, OWN),
        ({**payloads.issues_opened(), "action": "deleted"}, OWN),
        (payloads.installation_deleted(), {"webhook_secret": SECRET}),
    ],
    ids=["another action", "no word", "an issue's", "a repository's own webhook"],
)
async def test_nothing_else_does_whatever_the_unsigned_header_says(
    payload: dict[str, Any], config: dict[str, Any]
) -> None:
    got = await hear(delivery("installation", payload), config)
    assert got.handled
    assert got.disabled is None


async def test_a_redelivery_is_dropped() -> None:
    seen: set[str] = set()
    first = await hear(delivery("push", payloads.push()), seen=seen)
    again = await hear(delivery("push", payloads.push()), seen=seen)
    other = await hear(delivery("push", payloads.push(), id="another"), seen=seen)
    assert [len(got.events) for got in (first, again, other)] == [1, 0, 1]
    assert again.reply.status == 200


async def test_ping_is_answered_and_is_no_event() -> None:
    got = await hear(delivery("ping", payloads.ping()), {"webhook_secret": SECRET})
    assert (got.reply.status, got.reply.body, got.handled, got.events) == (200, b"pong", False, [])


async def test_the_apps_ping_to_the_shared_url_is_answered_though_it_names_nobody() -> None:
    got = await hear(delivery("ping", payloads.ping()), {}, settings=SETTINGS, shared=True)
    assert (got.reply.status, got.reply.body) == (200, b"pong")


@pytest.mark.parametrize("secret", ["another secret", "", SECRET + " "])
async def test_another_secret_is_refused(secret: str) -> None:
    got = await hear(delivery("push", payloads.push(), secret=secret))
    assert (got.reply.status, got.verified, got.events) == (401, False, [])


async def test_a_webhook_that_is_not_signed_is_refused() -> None:
    body = json.dumps(payloads.push()).encode()
    got = await hear(hook_request(body, {"X-GitHub-Event": "push", "X-GitHub-Delivery": "1"}))
    assert (got.reply.status, got.verified) == (401, False)


async def test_without_any_secret_nothing_is_believed() -> None:
    got = await hear(delivery("push", payloads.push(), secret=""), {})
    assert got.reply.status == 401


async def test_an_instances_own_secret_counts_before_the_deployments() -> None:
    config = {**OWN, "webhook_secret": "its own"}
    assert not (await hear(delivery("push", payloads.push()), config, settings=SETTINGS)).verified
    assert (await hear(delivery("push", payloads.push(), secret="its own"), config, settings=SETTINGS)).verified


async def test_on_the_shared_url_an_installations_webhook_finds_its_instance() -> None:
    assert (await hear(delivery("push", payloads.push()), BOUND, settings=SETTINGS, shared=True)).events
    other = await hear(delivery("push", payloads.push(7654321)), BOUND, settings=SETTINGS, shared=True)
    assert (other.verified, other.events, other.reply.status) == (False, [], 200)


async def test_another_installations_webhook_is_refused_on_the_instances_url_too() -> None:
    assert not (await hear(delivery("push", payloads.push(7654321)))).verified
    assert not (await hear(delivery("push", payloads.push(7654321)), BOUND, settings=SETTINGS)).verified


async def test_a_repositorys_own_webhook_needs_a_secret_of_its_own() -> None:
    request = delivery("issues", payloads.issues_opened(installation_id=None))
    assert (await hear(request, {"webhook_secret": SECRET})).events
    assert not (await hear(request, {}, settings=SETTINGS)).verified
    assert not (await hear(request, {"webhook_secret": SECRET}, shared=True)).verified


@pytest.mark.parametrize(
    ("payload", "ids"),
    [
        (payloads.push(), [str(payloads.INSTALLATION)]),
        (payloads.installation_deleted(42), ["42"]),
        (payloads.ping(), []),
        ({"installation": None}, []),
        ({"installation": {"id": True}}, []),
        ({"installation": {"id": "12"}}, []),
        ({"installation": [1]}, []),
    ],
)
@pytest.mark.parametrize("form", [False, True], ids=["json", "form"])
def test_a_webhook_is_for_the_installation_it_names(payload: object, ids: list[str], form: bool) -> None:
    assert HOOK.locate is not None
    assert list(HOOK.locate(delivery("push", payload, form=form))) == ids


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"Hello, World!",
        b"[]",
        b"payload=",
        b"payload=%7B",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b"\xff",
        b"[" * 100_000,
    ],
)
async def test_a_body_that_is_no_object_is_refused_in_plain_words(body: bytes) -> None:
    with pytest.raises(Rejected, match="the webhook's body is"):
        await bind(Github, config=OWN).hear(delivery("push", body))


@pytest.mark.parametrize("event", [None, "", "Push", "push.x", "a b", "é", "p" * 101, "push\n"])
async def test_a_webhook_without_an_events_name_is_refused(event: str | None) -> None:
    with pytest.raises(Rejected, match="X-GitHub-Event"):
        await hear(delivery(event, payloads.push()))


@pytest.mark.parametrize("action", [[], "a b", "", 7, None])
async def test_an_action_that_is_no_word_is_left_out_of_the_events_name(action: object) -> None:
    got = await hear(delivery("issues", {**payloads.issues_opened(), "action": action}))
    assert got.events[0].event.wire_type() == "issues"


async def test_a_body_nested_beyond_reason_is_refused() -> None:
    nested: Any = []
    for _ in range(600):
        nested = [nested]
    with pytest.raises(Rejected, match="nested too deeply"):
        await hear(delivery("push", {**payloads.push(), "deep": nested}))


@pytest.mark.parametrize(
    ("sender", "ours"),
    [
        (payloads.user("town-crier[bot]", 9001, "Bot"), True),
        (payloads.user("Town-Crier[bot]", 9001, "Bot"), True),
        (payloads.user("other[bot]", 9002, "Bot"), False),
        (payloads.user("town-crier", 9003, "User"), False),
        (payloads.user("town-crier[bot]", 9004, "User"), False),
    ],
)
async def test_the_apps_own_bot_is_marked(sender: dict[str, Any], ours: bool) -> None:
    got = await hear(delivery("issues", payloads.issues_opened(sender=sender)), settings=SETTINGS)
    assert got.wire_events[0]["initiator"] == {
        "user_id": str(sender["id"]),
        "provider": "github",
        "is_metagov_bot": ours,
    }


async def test_no_bot_is_ours_while_the_apps_name_is_not_set() -> None:
    sender = payloads.user("town-crier[bot]", 9001, "Bot")
    got = await hear(delivery("issues", payloads.issues_opened(sender=sender)))
    assert got.wire_events[0]["initiator"]["is_metagov_bot"] is False


@pytest.mark.parametrize("sender", [None, [], {}, {"id": "x"}])
async def test_an_event_without_a_sender_has_no_initiator(sender: object) -> None:
    got = await hear(delivery("push", {**payloads.push(), "sender": sender}))
    assert got.wire_events[0]["initiator"] is None


@pytest.mark.parametrize(
    ("config", "platform_id", "needs_binding"),
    [
        ({}, None, True),
        ({"webhook_secret": "s"}, None, False),
        ({"installation_id": 12}, "12", True),
        ({"installation_id": "12", "owner": "octo-org"}, "12", True),
        ({"installation_id": 12, "webhook_secret": "s"}, "12", False),
    ],
)
def test_an_installation_without_a_secret_of_its_own_has_to_be_bound(
    config: dict[str, Any], platform_id: str | None, needs_binding: bool
) -> None:
    parsed = GithubConfig.model_validate(config)
    assert Github.platform_id(parsed) == platform_id
    assert Github.needs_binding(parsed) is needs_binding


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"installation_id": 0}, "installation_id"),
        ({"installation_id": "octo-org"}, "installation_id"),
        ({"owner": "../etc"}, "owner"),
        ({"webhook_secret": ""}, "webhook_secret"),
        ({"token": "x"}, "token"),
    ],
)
def test_a_config_that_does_not_fit_names_its_field(config: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as raised:
        bind(manifest, config=config)
    assert [error["loc"] for error in raised.value.errors()] == [(field,)]


def test_the_secret_is_not_shown() -> None:
    plugin = bind(manifest, config=OWN, settings=SETTINGS)
    assert SECRET not in repr(plugin.config) + repr(plugin.settings)


def test_events_are_an_open_family() -> None:
    assert [issubclass(event, OpenEvent) for event in manifest.events] == [True]
