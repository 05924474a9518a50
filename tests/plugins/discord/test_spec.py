"""The validator can fail; and all that the plugin sends to Discord fits Discord's published document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from metagov_sdk import Authorize, Returned
from metagov_sdk.testing import bind_oauth, perform, start_process
from plugins.discord import manifest
from tests.fakes.discord import FakeDiscord, Recorded
from tests.fakes.discord_world import Guild
from tests.support import discord_spec
from tests.support.discord_spec import Spec, load_spec


@pytest.fixture
def spec() -> Spec:
    return load_spec()


def sent(method: str, path: str, body: Any = None, authorization: str = "Bot x", **query: str) -> Recorded:
    headers = {"authorization": authorization} if authorization else {}
    return Recorded(method, path, query, headers, "application/json" if body is not None else "", body)


@pytest.mark.parametrize(
    ("request_", "fault"),
    [
        (sent("GET", "/nothing"), "no such operation"),
        (sent("DELETE", "/guilds/1"), "no such operation"),
        (sent("GET", "/guilds/town"), "guild_id"),
        (sent("GET", "/guilds/1/members", limit="1001"), "limit"),
        (sent("GET", "/guilds/1/members", after="x"), "after"),
        (sent("GET", "/guilds/1/members", page="2"), "the query has no page"),
        (sent("POST", "/channels/1/messages"), "the body is missing"),
        (sent("POST", "/channels/1/messages", {"content": 7}), "content"),
        (sent("POST", "/channels/1/messages", {"text": "x"}), "'text' was unexpected"),
        (sent("POST", "/channels/1/messages", {"nonce": "n" * 26}), "nonce"),
        (sent("POST", "/channels/1/messages", {"embeds": [{"colour": 1}]}), "'colour' was unexpected"),
        (sent("POST", "/channels/1/messages", {"components": [{"type": 1, "components": []}]}), "components"),
        (sent("POST", "/channels/1/messages", {"poll": {"question": {"text": "x"}, "answers": []}}), "poll"),
        (sent("GET", "/guilds/1", authorization=""), "no credentials"),
        (sent("GET", "/guilds/1", authorization="Bearer x"), "OAuth2 credentials"),
        (sent("GET", "/guilds/1", {"content": "x"}), "takes no body"),
        (sent("POST", "/webhooks/1/token", {"content": "x"}), "no other credentials"),
        (sent("POST", "/oauth2/token", {"grant_type": "x"}), "should be a form"),
    ],
)
def test_what_does_not_fit_is_found(spec: Spec, request_: Recorded, fault: str) -> None:
    (found, *_) = spec.check(request_)
    assert fault in found


def test_what_fits_is_let_be(spec: Spec) -> None:
    fitting = [
        sent("GET", "/guilds/1", with_counts="true"),
        sent("GET", "/channels/1/messages", limit="100", after="5"),
        sent("PUT", "/channels/1/messages/2/reactions/%23%EF%B8%8F%E2%83%A3/@me"),
        sent("PATCH", "/webhooks/1/token/messages/@original", {"content": "x"}, ""),
    ]
    assert spec.faults(fitting) == []


def test_a_missing_document_skips_and_fails_where_it_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discord_spec, "SPEC", Path("absent.json"))
    monkeypatch.delenv(discord_spec.REQUIRED, raising=False)
    with pytest.raises(pytest.skip.Exception, match="not beside the repository"):
        load_spec()
    monkeypatch.setenv(discord_spec.REQUIRED, "required")
    with pytest.raises(pytest.fail.Exception, match="required"):
        load_spec()


async def test_all_that_the_plugin_sends_fits(spec: Spec, discord: FakeDiscord, town: Guild, binding: Any) -> None:
    """Every kind of request once; each other test of the plugin is held to the document when it ends."""
    channel = next(iter(town.channels.values()))
    ada = discord.add_member(town, "ada")
    command = discord.interactions.command(town, channel, ada, "hello")
    discord.interactions.apply(command, {"type": 5})
    kept = {f"interaction:{command.id}": f"{discord.application_id}/{command.token}"}
    calls: list[tuple[str, dict[str, Any]]] = [
        ("post-message", {"text": "x", "channel": str(channel.id), "allowed_mentions": {"parse": ["users"]}}),
        ("method", {"route": f"guilds/{town.id}/members", "limit": 5, "after": 0}),
        ("get-guild", {}),
        ("register-guild-command", {"name": "a", "description": "b", "options": [{"name": "c", "description": "d"}]}),
        ("reply-to-command", {"interaction_id": str(command.id), "text": "x"}),
    ]
    for slug, params in calls:
        await perform(manifest, slug, params, **{**binding, "credentials": kept})
    asked = {"title": "T", "options": [f"option {n}" for n in range(25)], "channel": str(channel.id)}
    vote = await start_process(
        manifest, "vote", {**asked, "eligible_voters": ["1"]}, **{**binding, "credentials": kept}
    )
    vote.signal("vote", {"voter": "2", "choice": 0, "reply": {"interaction": str(command.id)}})
    await vote.perform_effects()
    await vote.render()
    vote.close()
    await vote.render()
    poll = await start_process(
        manifest, "poll", {**asked, "options": ["a", "b"], "details": "d"}, id="prc_2", **binding
    )
    discord.vote(discord.messages(town)[-1], ada, 1)
    await poll.observe()
    await poll.observe(final=True)
    discord.oauth.user = ada
    async with httpx.AsyncHTTPTransport() as transport:
        oauth = bind_oauth(manifest, settings=discord.settings(), transport=transport)
        back = discord.oauth.agree(dict(httpx.URL(oauth.authorize_url(Authorize("user", "https://x", "s"))).params))
        await oauth.exchange(Returned("user", dict(httpx.URL(back).params), "https://x"))
    lines = {request.line.partition("?")[0] for request in discord.requests}
    assert len(lines) > 12
    assert all(request.status < 400 for request in discord.requests)
    assert spec.faults(discord.requests) == []
