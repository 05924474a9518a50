"""Which of Slack's webhooks are believed, whose they are, and what becomes of them."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from slack_sdk.signature import Clock, SignatureVerifier

from metagov_sdk import Headers, HookRequest, OpenEvent, Rejected, Unsigned
from metagov_sdk.testing import NOW, HookResult, check_manifest, hook_request, receive, sign_slack_v0
from plugins.slack import manifest
from plugins.slack.payloads import repeat_key, teams
from tests.fakes.slack import FakeSlack
from tests.fakes.slack_hooks import Outgoing
from tests.fakes.slack_state import Team

SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
BOUND = {"team_id": "T0TOWN"}
OWN = {"team_id": "T0TOWN", "bot_token": "xoxb-own", "signing_secret": "its own"}
SETTINGS = {"signing_secret": SECRET}
IN_ENTERPRISE = {"team_id": "T2", "enterprise_id": "E1"}
HOOK = manifest.webhooks[""]
# https://docs.slack.dev/authentication/verifying-requests-from-slack; the secret is no longer in use.
PUBLISHED = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
    b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
    b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
    b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)
PUBLISHED_HEADERS = {
    "X-Slack-Request-Timestamp": "1531420618",
    "X-Slack-Signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
}


def signed(hook: Outgoing, secret: str = SECRET, *, at: float = NOW.timestamp(), **headers: str) -> HookRequest:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return hook_request(hook.body, {**sign_slack_v0(secret, hook.body, at=at), **names})


async def hear(request: HookRequest, config: dict[str, Any] = BOUND, *, shared: bool = True, **more: Any) -> HookResult:
    return await receive(manifest, request, config=config, settings=SETTINGS, shared=shared, **more)


def message(user: str = "U0ADA", **more: Any) -> dict[str, Any]:
    return {"type": "message", "channel": "C0SQUARE", "user": user, "text": "hi", "ts": "1.000001", **more}


def test_the_plugin_keeps_the_rules() -> None:
    check_manifest(manifest)
    assert [issubclass(event, OpenEvent) for event in manifest.events] == [True, False]


async def test_slacks_own_example_becomes_an_event() -> None:
    request = hook_request(PUBLISHED, PUBLISHED_HEADERS)
    now = NOW.fromtimestamp(1531420618, NOW.tzinfo)
    got = await hear(request, {"team_id": "T1DC2JH3J"}, now=now)
    assert got.verified
    assert got.wire_events == [
        {
            "event_type": "slash_command",
            "data": {
                "command": "/webhook-collect",
                "text": "",
                "user_id": "U2CERLKJA",
                "user_name": "roadrunner",
                "channel_id": "G8PSS9T3V",
                "channel_name": "foobar",
                "team_id": "T1DC2JH3J",
            },
            "initiator": {"user_id": "U2CERLKJA", "provider": "slack", "is_metagov_bot": False},
        }
    ]
    assert (got.reply.status, got.reply.body) == (200, b"")


@pytest.mark.parametrize("seconds", [-301, -300, 0, 300, 301])
async def test_the_clocks_may_differ_by_five_minutes(slack: FakeSlack, town: Team, seconds: int) -> None:
    request = signed(slack.hooks.event(town, message()), at=(NOW + timedelta(seconds=seconds)).timestamp())
    got = await hear(request)
    assert got.verified is (abs(seconds) <= 300)
    assert bool(got.events) is (abs(seconds) <= 300)


async def test_slacks_sdk_agrees_on_every_kind(slack: FakeSlack, town: Team) -> None:
    class Now(Clock):
        def now(self) -> float:
            return NOW.timestamp()

    judge = SignatureVerifier(SECRET, Now())
    hooks = [
        slack.hooks.event(town, message(text="ünïcode <&> \U0001f338")),
        slack.hooks.command(town, "U0ADA", "/vote", "now & then"),
        slack.hooks.interaction({"type": "shortcut", "team": {"id": town.id}, "user": {"id": "U0ADA"}}),
    ]
    for hook in hooks:
        request = signed(hook)
        assert judge.is_valid_request(hook.body, dict(request.headers.raw))
        assert (await hear(request)).verified
        forged = signed(hook, "another secret")
        assert not judge.is_valid_request(hook.body, dict(forged.headers.raw))
        assert (await hear(forged)).reply.status == 401


@pytest.mark.parametrize("kind", ["event", "command", "interaction"])
async def test_what_is_not_signed_is_refused(slack: FakeSlack, town: Team, kind: str) -> None:
    hook = {
        "event": slack.hooks.event(town, message()),
        "command": slack.hooks.command(town, "U0ADA", "/vote"),
        "interaction": slack.hooks.interaction({"type": "block_actions", "team": {"id": town.id}}),
    }[kind]
    for request in (
        hook_request(hook.body),
        signed(hook, ""),
        hook_request(hook.body + b" ", dict(signed(hook).headers.raw)),
        hook_request(hook.body, {**dict(signed(hook).headers.raw), "X-Slack-Request-Timestamp": "1767323046"}),
    ):
        for shared in (True, False):
            got = await hear(request, shared=shared)
            assert (got.verified, got.reply.status, got.events) == (False, 401, [])


async def test_a_communitys_own_secret_counts_before_the_deployments(slack: FakeSlack, town: Team) -> None:
    hook = slack.hooks.event(town, message())
    assert not (await hear(signed(hook), OWN, shared=False)).verified
    assert (await hear(signed(hook, "its own"), OWN, shared=False)).events


async def test_another_workspaces_webhook_is_not_this_ones(slack: FakeSlack) -> None:
    other = slack.world.team("T0OTHER")
    slack.world.install(other)
    hook = slack.hooks.event(other, message())
    assert not (await hear(signed(hook))).verified
    assert not (await hear(signed(hook), shared=False)).verified
    assert not (await hear(signed(hook, "its own"), OWN, shared=False)).verified


@pytest.mark.parametrize("config", [BOUND, OWN], ids=["deployment", "own"])
async def test_a_url_that_is_being_set_up_is_answered(slack: FakeSlack, config: dict[str, Any]) -> None:
    secret = config.get("signing_secret", SECRET)
    got = await hear(signed(slack.hooks.verification("c4"), secret), config, shared=config is BOUND)
    assert (got.reply.status, got.reply.body, got.reply.store, got.handled) == (200, b"c4", False, False)
    assert dict(got.reply.headers)["content-type"] == "text/plain"
    forged = await hear(signed(slack.hooks.verification("c4"), "forged"), config, shared=config is BOUND)
    assert forged.reply.status == 401


async def test_an_event_that_comes_again_is_dropped_and_its_retry_headers_change_nothing(
    slack: FakeSlack, town: Team
) -> None:
    seen: set[str] = set()
    hook = slack.hooks.event(town, message())
    first = await hear(signed(hook), seen=seen)
    again = await hear(signed(hook, x_slack_retry_num="1", x_slack_retry_reason="http_timeout"), seen=seen)
    assert [len(got.events) for got in (first, again)] == [1, 0]
    assert again.reply.status == 200
    # Nobody's signature covers the retry headers: with them forged, a first delivery is a first delivery.
    other = await hear(signed(slack.hooks.event(town, message()), x_slack_retry_num="1"), seen=seen)
    assert len(other.events) == 1


@pytest.mark.parametrize("kind", ["command", "interaction", "no trigger"])
async def test_commands_and_interactions_are_told_apart_by_what_is_signed(
    slack: FakeSlack, town: Team, kind: str
) -> None:
    seen: set[str] = set()

    def made() -> Outgoing:
        if kind == "command":
            return slack.hooks.command(town, "U0ADA", "/vote", "same words")
        payload = {"type": "view_submission", "team": {"id": town.id}, "user": {"id": "U0ADA"}}
        return slack.hooks.interaction(
            {**payload, "trigger_id": f"{slack.world.number()}"} if kind != "no trigger" else payload
        )

    hook, other = made(), made()
    counts = [len((await hear(signed(one), seen=seen)).events) for one in (hook, hook, other)]
    assert counts == ([1, 0, 0] if kind == "no trigger" else [1, 0, 1])


async def test_an_event_is_slacks_own(slack: FakeSlack, town: Team) -> None:
    event = {"type": "reaction_added", "user": "U0BOB", "reaction": "tulip", "item": {"type": "message"}}
    got = await hear(signed(slack.hooks.event(town, event, event_id="Ev1", event_time=1767323000)))
    initiator = {"user_id": "U0BOB", "provider": "slack", "is_metagov_bot": False}
    assert got.wire_events == [{"event_type": "reaction_added", "data": event, "initiator": initiator}]
    assert got.events[0].key == "Ev1"
    assert got.events[0].at is not None and got.events[0].at.timestamp() == 1767323000
    assert [(link.platform_identifier, link.custom_data) for link in got.links] == [("U0BOB", {"team_id": "T0TOWN"})]


@pytest.mark.parametrize(
    "event",
    [
        message("U0BOT0TOWN", bot_id="B0BOT0TOWN"),
        message("U0X", bot_id="B0X", app_id="A0GATEWAY"),
        {"type": "message", "subtype": "message_changed", "message": message("U0BOT0TOWN", app_id="A0GATEWAY")},
        {"type": "message", "subtype": "bot_message", "bot_id": "B0X", "bot_profile": {"app_id": "A0GATEWAY"}},
    ],
    ids=["user", "app", "edited", "profile"],
)
async def test_what_our_own_app_does_is_marked_and_links_nobody(
    slack: FakeSlack, town: Team, event: dict[str, Any]
) -> None:
    got = await hear(signed(slack.hooks.event(town, event)))
    assert got.wire_events[0]["initiator"]["is_metagov_bot"] is True
    assert got.links == []


@pytest.mark.parametrize(
    ("event", "actor"),
    [
        ({"type": "team_join", "user": {"id": "U0NEW", "name": "new"}}, "U0NEW"),
        ({"type": "channel_created", "channel": {"id": "C1", "creator": "U0ADA"}}, "U0ADA"),
        ({"type": "message", "subtype": "message_changed", "message": message("U0BOB")}, "U0BOB"),
        ({"type": "file_shared", "user_id": "U0CYD"}, "U0CYD"),
        ({"type": "message", "subtype": "bot_message", "bot_id": "B0OTHER"}, "B0OTHER"),
        ({"type": "emoji_changed", "subtype": "add"}, None),
        ({"type": "message", "user": 7, "message": [], "channel": None}, None),
    ],
)
async def test_who_caused_an_event(slack: FakeSlack, town: Team, event: dict[str, Any], actor: str | None) -> None:
    got = await hear(signed(slack.hooks.event(town, event)))
    initiator = got.wire_events[0]["initiator"]
    assert (initiator and initiator["user_id"]) == actor
    assert [link.platform_identifier for link in got.links] == ([actor] if actor and actor[0] == "U" else [])


async def test_interactions_that_are_no_votes_are_events_without_what_is_secret(slack: FakeSlack, town: Team) -> None:
    payload = {
        "type": "view_submission",
        "team": {"id": town.id},
        "user": {"id": "U0ADA"},
        "token": "t",
        "trigger_id": "1.2",
        "response_urls": [{"response_url": "https://hooks.slack.com/app/T/1/x"}],
        "view": {"state": {"values": {"a": {"b": {"value": "42"}}}}},
    }
    got = await hear(signed(slack.hooks.interaction(payload)))
    assert got.wire_events[0]["event_type"] == "view_submission"
    assert got.wire_events[0]["data"].keys() == {"type", "team", "user", "view"}


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({"type": "app_uninstalled"}, "removed"),
        ({"type": "tokens_revoked", "tokens": {"oauth": [], "bot": ["U0BOT0TOWN"]}}, "revoked"),
        ({"type": "tokens_revoked", "tokens": {"oauth": ["U0ADA"], "bot": []}}, None),
        ({"type": "tokens_revoked", "tokens": {"oauth": ["U0ADA"]}}, None),
        (message(text="app_uninstalled"), None),
    ],
)
async def test_a_removed_app_takes_its_instance_out_of_use(
    slack: FakeSlack, town: Team, event: dict[str, Any], reason: str | None
) -> None:
    got = await hear(signed(slack.hooks.event(town, event)))
    assert len(got.events) == 1
    assert (got.disabled is None) if reason is None else (got.disabled is not None and reason in got.disabled)


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        ({"team_id": "T1", "authorizations": [{"team_id": "T2", "is_enterprise_install": False}]}, ["T2"]),
        ({"team_id": "T1", "authorizations": []}, ["T1"]),
        ({"team_id": "T1"}, ["T1"]),
        ({"team_id": "T1", "authorizations": [{**IN_ENTERPRISE, "is_enterprise_install": True}]}, ["E1"]),
        ({"team_id": "T1", "authorizations": [{**IN_ENTERPRISE, "is_enterprise_install": False}]}, ["T2"]),
        ({"team_id": 7}, []),
        ({"type": "url_verification"}, []),
        ({"team_id": "T1", "authorizations": "x"}, ["T1"]),
    ],
)
def test_an_event_is_for_the_install_it_was_sent_for(body: dict[str, Any], ids: list[str]) -> None:
    assert teams(hook_request(body)) == ids


@pytest.mark.parametrize(
    ("payload", "ids"),
    [
        ({"team": {"id": "T1", "enterprise_id": "E1"}, "is_enterprise_install": False}, ["T1"]),
        ({"team": {"id": "T1", "enterprise_id": "E1"}, "is_enterprise_install": True}, ["E1"]),
        ({"team": None, "enterprise": {"id": "E1"}, "is_enterprise_install": True}, ["E1"]),
        ({"team": None, "user": {"team_id": "T3"}}, ["T3"]),
        ({"team": [], "user": 1}, []),
    ],
)
def test_an_interaction_is_for_the_install_it_names(payload: dict[str, Any], ids: list[str]) -> None:
    assert teams(hook_request(urlencode({"payload": json.dumps(payload)}).encode())) == ids


@pytest.mark.parametrize(
    ("fields", "ids"),
    [
        ({"team_id": "T1", "is_enterprise_install": "false", "enterprise_id": "E1"}, ["T1"]),
        ({"team_id": "T1", "is_enterprise_install": "true", "enterprise_id": "E1"}, ["E1"]),
    ],
)
def test_a_command_is_for_the_install_it_names(fields: dict[str, str], ids: list[str]) -> None:
    assert teams(hook_request(urlencode({"command": "/vote", **fields}).encode())) == ids


@pytest.mark.parametrize(
    "body",
    [
        b'{"team_id":"T0TOWN"}',
        b'{"team_id":"T0TOWN","type":"event_callback","event":{"type":"A b"}}',
        b'{"team_id":"T0TOWN","type":"event_callback","event":{"type":["x"]}}',
        b'{"team_id":"T0TOWN","type":"event_callback","event":{"type":"x","a":' + b"[" * 600 + b"]" * 600 + b"}}",
        urlencode({"payload": json.dumps({"team": {"id": "T0TOWN"}, "type": 7})}).encode(),
    ],
)
async def test_a_webhook_that_is_none_of_slacks_is_refused_in_plain_words(body: bytes) -> None:
    with pytest.raises(Rejected, match="the webhook"):
        await hear(signed(Outgoing(body, "x")))


@pytest.mark.parametrize(
    "payload",
    [
        {"actions": [1, None, {"block_id": 7}]},
        {"actions": "x", "container": {}, "user": {"id": "U0ADA"}},
        {
            "container": {"channel_id": "C1"},
            "user": {"id": "U0ADA"},
            "actions": [{"block_id": "metagov:emoji-vote:p:0"}],
        },
        {
            "container": {"channel_id": "C1"},
            "user": {"id": "U0ADA"},
            "actions": [{"block_id": "metagov:emoji-vote:p:0", "value": "-1"}],
        },
        {
            "container": {"channel_id": "C1"},
            "user": {"id": "U0ADA"},
            "actions": [{"block_id": "metagov:other-vote:p:0", "value": "1"}],
        },
        {"container": [], "user": [], "actions": [{"block_id": "metagov:emoji-vote:p:0", "value": "0"}]},
    ],
)
async def test_odd_clicks_are_no_votes(slack: FakeSlack, payload: dict[str, Any]) -> None:
    got = await hear(signed(slack.hooks.interaction({"type": "block_actions", "team": {"id": "T0TOWN"}, **payload})))
    assert got.signals == []
    assert [event["event_type"] for event in got.wire_events] == ["block_actions"]


async def test_slacks_question_for_the_certificate_is_answered_and_not_stored() -> None:
    got = await hear(signed(Outgoing(b"ssl_check=1&token=x", "x")))
    assert (got.reply.status, got.reply.store, got.handled) == (200, False, False)


@pytest.mark.parametrize("body", [b"", b"{", b"payload=%7B", b"\xff\xfe", b"payload=\xff", b"[" * 90_000, b"a=1"])
def test_a_body_that_cannot_be_read_still_has_a_key(body: bytes) -> None:
    assert repeat_key(hook_request(body)).startswith("body:")


def test_the_hook_is_signed() -> None:
    assert not isinstance(HOOK.verify, Unsigned)
    assert not HOOK.verify("", Headers(PUBLISHED_HEADERS.items()), PUBLISHED, 1531420618)
