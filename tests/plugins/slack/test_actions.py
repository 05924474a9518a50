"""Slack's actions against a fake Slack, over real sockets: what is sent, and what goes wrong."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from pydantic import JsonValue, ValidationError

from metagov_sdk import Rejected, Retry, Unauthorized
from metagov_sdk.errors import Invalid
from metagov_sdk.testing import bind
from plugins.slack import manifest
from plugins.slack.api import SlackApi, SlackFailed, as_form
from plugins.slack.models import SlackConfig
from plugins.slack.plugin import Slack
from tests.fakes.slack import FakeSlack
from tests.fakes.slack_state import BOT_SCOPES, Channel, Team
from tests.plugins.slack.conftest import SQUARE, act, binding
from tests.support import slack_spec
from tests.support.slack_spec import check_requests, spec_or_skip

BLOCKS = [{"type": "section", "text": {"type": "mrkdwn", "text": "*hello*"}}]


async def test_a_message_to_a_channel(slack: FakeSlack, square: Channel) -> None:
    ran = await act(
        slack, "post-message", {"channel": SQUARE, "text": "hello", "blocks": BLOCKS, "unfurl_links": False}
    )
    posted = square.messages[-1]
    assert (posted["text"], posted["blocks"]) == ("hello", BLOCKS)
    assert (ran.result["ok"], ran.result["channel"], ran.result["ts"]) == (True, SQUARE, posted["ts"])
    sent = slack.calls("chat.postMessage")[0]
    assert (sent.verb, sent.query, sent.body["unfurl_links"]) == ("POST", {}, "false")
    assert sent.headers["authorization"] == f"Bearer {slack.world.bot(slack.world.team()).token}"


@pytest.mark.parametrize(("users", "kind"), [(["U0ADA"], "im"), (["U0ADA", "U0BOB"], "mpim")])
async def test_a_message_to_people_opens_the_conversation_with_them(
    slack: FakeSlack, town: Team, users: list[str], kind: str
) -> None:
    first = await act(slack, "post-message", {"users": users, "text": "psst"})
    again = await act(slack, "post-message", {"users": users, "text": "psst again"})
    channel = town.channels[first.result["channel"]]
    assert (channel.kind, channel.members) == (kind, {*users, slack.world.bot(town).user_id})
    assert [message["text"] for message in channel.messages] == ["psst", "psst again"]
    assert again.result["channel"] == channel.id


async def test_a_reply_in_a_thread(slack: FakeSlack, square: Channel) -> None:
    parent = (await act(slack, "post-message", {"channel": SQUARE, "text": "one"})).result["ts"]
    await act(slack, "post-message", {"channel": SQUARE, "text": "two", "thread_ts": parent})
    assert square.messages[-1]["thread_ts"] == parent


@pytest.mark.parametrize("slug", ["post-message", "method"])
@pytest.mark.parametrize("name", ["token", " token", "Token", "to ken", "token\0", "a/b~c"])
async def test_the_token_cannot_be_chosen(slack: FakeSlack, slug: str, name: str) -> None:
    params = {"channel": SQUARE, "text": "hi"} if slug == "post-message" else {"method_name": "auth.test"}
    with pytest.raises(Invalid) as raised:
        await act(slack, slug, {**params, name: "xoxb-somebody-elses"})
    assert raised.value.pointer == "/" + name.replace("~", "~0").replace("/", "~1")
    assert slack.requests == []


@pytest.mark.parametrize("params", [{"text": "hi"}, {"text": "hi", "channel": SQUARE, "users": ["U0ADA"]}])
async def test_a_message_goes_to_a_channel_or_to_people(slack: FakeSlack, params: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="either a channel or users"):
        await act(slack, "post-message", params)


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"users": []}, "users"),
        ({"users": ["U0ADA,U0BOB"]}, "users"),
        ({"users": [f"U{number}" for number in range(9)]}, "users"),
        ({"channel": ""}, "channel"),
    ],
)
async def test_parameters_that_do_not_fit_name_their_field(
    slack: FakeSlack, params: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValidationError) as raised:
        await act(slack, "post-message", {"text": "hi", **params})
    assert raised.value.errors()[0]["loc"][0] == field


async def test_any_method_with_its_own_arguments(slack: FakeSlack, town: Team) -> None:
    ran = await act(slack, "method", {"method_name": "conversations.members", "channel": SQUARE, "limit": 2})
    assert len(ran.result["members"]) == 2
    assert ran.result["response_metadata"]["next_cursor"]
    opened = await act(slack, "method", {"method_name": "conversations.open", "users": ["U0ADA", "U0BOB"]})
    assert opened.result["channel"]["id"] in town.channels


async def test_a_method_joins_the_channel_it_needs(slack: FakeSlack, town: Team) -> None:
    market = town.add_channel("C0MARKET")
    await act(slack, "method", {"method_name": "chat.postMessage", "channel": "C0MARKET", "text": "hi"})
    assert slack.world.bot(town).user_id in market.members
    assert [request.method for request in slack.requests] == [
        "chat.postMessage",
        "conversations.join",
        "chat.postMessage",
    ]


async def test_a_channel_that_cannot_be_joined_says_what_to_do(slack: FakeSlack, town: Team) -> None:
    town.add_channel("G0CLOSED", kind="group", members={slack.world.bot(town).user_id})
    slack.fail("chat.postMessage", error="not_in_channel")
    with pytest.raises(Rejected, match="invite the app to the channel"):
        await act(slack, "post-message", {"channel": "G0CLOSED", "text": "hi"})
    assert [request.method for request in slack.requests] == ["chat.postMessage", "conversations.join"]


@pytest.mark.parametrize(
    "name", ["chat", "../chat.postMessage", "chat.postMessage?token=x", "chat..x", "https://a.b", ""]
)
async def test_what_is_no_methods_name_is_refused(slack: FakeSlack, name: str) -> None:
    with pytest.raises(ValidationError):
        await act(slack, "method", {"method_name": name})


@pytest.mark.parametrize("name", ["oauth.v2.exchange", "oauth.v2.access", "openid.connect.token"])
async def test_methods_whose_answers_hold_tokens_are_refused(slack: FakeSlack, name: str) -> None:
    with pytest.raises(Invalid, match="tokens") as raised:
        await act(slack, "method", {"method_name": name})
    assert raised.value.pointer == "/method_name"
    assert slack.requests == []


async def test_arguments_named_like_our_own_are_passed_on(slack: FakeSlack) -> None:
    with pytest.raises(Rejected, match="unknown_method"):
        await act(slack, "method", {"method_name": "workflows.test", "method": "a", "self": "b", "key": "c"})
    assert slack.requests.pop().body == {"method": "a", "self": "b", "key": "c"}


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        ("invalid_auth", Unauthorized, "install the app again"),
        ("not_authed", Unauthorized, "install the app again"),
        ("token_revoked", Unauthorized, "install the app again"),
        ("token_expired", Unauthorized, "install the app again"),
        ("account_inactive", Unauthorized, "install the app again"),
        ("ratelimited", Retry, "asks to wait"),
        ("internal_error", SlackFailed, "internal_error"),
        ("channel_not_found", Rejected, "there is no such channel"),
        ("is_archived", Rejected, "archived"),
        ("msg_too_long", Rejected, "too long"),
        ("restricted_action", Rejected, "Slack refused chat.postMessage: restricted_action$"),
        ("<b>odd</b>", Rejected, "unknown_error"),
    ],
)
async def test_errors_in_plain_words(slack: FakeSlack, error: str, kind: type[Exception], said: str) -> None:
    slack.fail("chat.postMessage", error=error)
    with pytest.raises(kind, match=said):
        await act(slack, "post-message", {"channel": SQUARE, "text": "hi"})
    assert len(slack.requests) == 1, "nothing is tried again by itself"


async def test_a_missing_scope_is_named(slack: FakeSlack, town: Team) -> None:
    slack.world.install(town, scopes=BOT_SCOPES - {"chat:write"})
    with pytest.raises(Rejected, match="lacks the scope chat:write"):
        await act(slack, "post-message", {"channel": SQUARE, "text": "hi"})


async def test_what_slack_says_of_blocks_is_passed_on(slack: FakeSlack) -> None:
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": "x" * 3001}}]
    with pytest.raises(Rejected, match=r"invalid_blocks \(section.text: must have 1 to 3000 characters\)"):
        await act(slack, "post-message", {"channel": SQUARE, "text": "hi", "blocks": blocks})


async def test_a_wait_that_slack_asks_for(slack: FakeSlack) -> None:
    slack.fail("chat.postMessage", status=429, retry_after=17)
    with pytest.raises(Retry) as raised:
        await act(slack, "post-message", {"channel": SQUARE, "text": "hi"})
    assert raised.value.after == 17


@pytest.mark.parametrize("how", [{"status": 503}, {"lost": True}])
async def test_a_broken_answer_leaves_open_what_was_done(slack: FakeSlack, how: dict[str, Any]) -> None:
    slack.fail("chat.postMessage", **how)
    with pytest.raises(httpx.TransportError):
        await act(slack, "post-message", {"channel": SQUARE, "text": "hi"})


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"null", b'{"ok":"yes"}', b"{}"])
async def test_an_answer_that_is_not_the_apis_is_refused(slack: FakeSlack, body: bytes) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=body))
    plugin = bind(Slack, **binding(slack, transport))
    with pytest.raises(Rejected, match="something else than its API"):
        await SlackApi(plugin.http, 10).call("auth.test")


async def test_lists_are_read_to_their_end(slack: FakeSlack, town: Team, transport: httpx.AsyncHTTPTransport) -> None:
    for number in range(7):
        town.add_member(f"U1{number}")
    plugin = bind(Slack, **binding(slack, transport))
    pages = [len(page) async for page in SlackApi(plugin.http, 4).pages("users.list", "members")]
    assert pages == [4, 4, 3]


async def test_a_list_whose_cursor_stands_still_ends(slack: FakeSlack) -> None:
    answer = {"ok": True, "members": [1], "response_metadata": {"next_cursor": "same"}}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=answer))
    plugin = bind(Slack, **binding(slack, transport))
    assert len([page async for page in SlackApi(plugin.http, 4).pages("users.list", "members")]) == 2


def test_arguments_as_a_form() -> None:
    fields: dict[str, JsonValue] = {
        "a": None,
        "b": True,
        "c": 1.5,
        "d": ["x", "y"],
        "e": ["x,y"],
        "f": [{"g": "ü"}],
        "h": [],
        "i": "z",
    }
    assert as_form(fields) == {
        "b": "true", "c": "1.5", "d": "x,y", "e": '["x,y"]', "f": '[{"g":"ü"}]', "h": "[]", "i": "z",
    }  # fmt: skip


@pytest.mark.parametrize("config", [{"team_id": "T0TOWN", "bot_token": "xoxb-own"}, {"team_id": "T0TOWN"}])
async def test_whose_token_is_used(slack: FakeSlack, config: dict[str, str]) -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["Authorization"])
        return httpx.Response(200, json={"ok": True})

    transport = httpx.MockTransport(answer)
    plugin = bind(Slack, **binding(slack, transport, config=config, credentials={"bot": "xoxb-installed"}))
    await SlackApi(plugin.http, 10).call("auth.test")
    assert seen == [f"Bearer {config.get('bot_token', 'xoxb-installed')}"]
    assert plugin.limit_owner == ("ins_test" if "bot_token" in config else "T0TOWN")


async def test_without_any_token_an_install_is_asked_for(slack: FakeSlack) -> None:
    with pytest.raises(Unauthorized):
        await act(slack, "post-message", {"channel": SQUARE, "text": "hi"}, credentials={})


async def test_the_token_goes_to_the_api_alone(slack: FakeSlack, transport: httpx.AsyncHTTPTransport) -> None:
    plugin = bind(Slack, **binding(slack, transport))
    await plugin.http.post(f"{slack.elsewhere}/actions/T0TOWN/1/x", json={"text": "hi"})
    assert "authorization" not in slack.stray[0]
    assert plugin.limits(httpx.Request("POST", "https://hooks.slack.com/actions/T0TOWN/1/x")) == ()


@pytest.mark.parametrize(
    ("method", "in_a_minute"),
    [
        ("conversations.list", 20),
        ("chat.update", 50),
        ("users.info", 100),
        ("not.known", 50),
        ("conversations.history", 50),
    ],
)
def test_a_minute_holds_no_more_than_slack_allows(slack: FakeSlack, method: str, in_a_minute: int) -> None:
    plugin = bind(Slack, config={}, settings=slack.settings())
    (limit,) = plugin.limits(httpx.Request("POST", slack.api_url + method, data={}))
    assert limit.bucket == method
    assert limit.rate * 60 / limit.per + limit.burst == in_a_minute


def test_messages_are_limited_by_channel_and_reads_by_the_config(slack: FakeSlack) -> None:
    plugin = bind(Slack, config={"reads_per_minute": 1, "page_size": 15}, settings=slack.settings())
    post = httpx.Request("POST", slack.api_url + "chat.postMessage", data={"channel": "C1&x=2", "text": "hi"})
    (limit,) = plugin.limits(post)
    assert (limit.bucket, limit.rate / limit.per) == ("chat.postMessage:C1&x=2", 1)
    (read,) = plugin.limits(httpx.Request("POST", slack.api_url + "conversations.history", data={}))
    assert (read.rate, read.per, read.burst) == (1, 60, 1)


@pytest.mark.parametrize(
    ("config", "needs"),
    [
        ({}, True),
        ({"team_id": "T1"}, True),
        ({"team_id": "T1", "bot_token": "x"}, True),
        ({"team_id": "T1", "signing_secret": "x"}, True),
        ({"team_id": "T1", "bot_token": "x", "signing_secret": "y"}, False),
    ],
)
def test_only_an_app_of_ones_own_needs_no_binding(config: dict[str, str], needs: bool) -> None:
    parsed = SlackConfig.model_validate(config)
    assert Slack.needs_binding(parsed) is needs
    assert Slack.platform_id(parsed) == config.get("team_id")


@pytest.mark.parametrize(
    "config", [{"team_id": "C1"}, {"team_id": "../T1"}, {"bot_token": ""}, {"page_size": 1000}, {"x": 1}]
)
def test_a_config_that_does_not_fit_names_its_field(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as raised:
        SlackConfig.model_validate(config)
    assert [error["loc"] for error in raised.value.errors()] == [tuple(config)]


def test_secrets_are_not_shown(slack: FakeSlack) -> None:
    plugin = bind(manifest, config={"bot_token": "xoxb-1", "signing_secret": "s3cret"}, settings=slack.settings())
    shown = repr(plugin.config) + repr(plugin.settings)
    for secret in ("xoxb-1", "s3cret", slack.world.app.client_secret, slack.world.app.signing_secret):
        assert secret not in shown


async def test_requests_that_the_description_does_not_allow_are_told(slack: FakeSlack) -> None:
    """The validator behind these tests, itself."""
    spec_or_skip()
    token = slack.world.bot(slack.world.team()).token
    async with httpx.AsyncClient(base_url=slack.api_url) as client:
        bearer = {"Authorization": f"Bearer {token}"}
        await client.post("chat.postMessage", data={"channel": SQUARE, "text": "hi", "colour": "red"}, headers=bearer)
        await client.post("chat.postMessage", data={"text": "hi"}, headers=bearer)
        await client.post("chat.postMessage", data={"channel": SQUARE, "blocks": "no"}, headers=bearer)
        await client.post("conversations.history", json={"channel": SQUARE}, headers=bearer)
        await client.post("conversations.members", data={"channel": SQUARE, "limit": "ten"}, headers=bearer)
        await client.get("chat.postMessage", params={"channel": SQUARE, "text": "hi"}, headers=bearer)
        await client.post("auth.test", data={"token": token})
        await client.post("no.method", headers=bearer)
    for said in (
        "colour", "lacks channel", "blocks should be of type json", "not application/json",
        "limit should be of type integer", "takes POST", "Authorization: Bearer", "is no method",
    ):  # fmt: skip
        request = slack.requests.pop(0)
        with pytest.raises(AssertionError, match=said):
            check_requests([request])


def test_the_description_is_missed_where_it_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slack_spec, "SPEC", slack_spec.SPEC.with_name("absent.json"))
    monkeypatch.delenv(slack_spec.REQUIRED, raising=False)
    with pytest.raises(pytest.skip.Exception, match="is not there"):
        spec_or_skip()
    monkeypatch.setenv(slack_spec.REQUIRED, "required")
    with pytest.raises(pytest.fail.Exception, match="is not there"):
        spec_or_skip()


async def test_the_fakes_limits_are_slacks(slack: FakeSlack) -> None:
    slack.enforces_limits = True
    token = slack.world.bot(slack.world.team()).token
    async with httpx.AsyncClient(base_url=slack.api_url, headers={"Authorization": f"Bearer {token}"}) as client:
        answers = [await client.post("users.list") for _ in range(21)]
    assert [answer.status_code for answer in answers] == [200] * 20 + [429]
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert json.loads(answers[-1].content) == {"ok": False, "error": "ratelimited"}
