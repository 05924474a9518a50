"""Installing the app and signing in, as the plugin does its part of it, against the fake's pages."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import pytest

from metagov_sdk import (
    Authorize,
    Installed,
    OAuthDenied,
    OAuthType,
    Rejected,
    Retry,
    Returned,
    SignedIn,
    Token,
    Unauthorized,
)
from metagov_sdk.testing import bind_oauth
from plugins.discord import manifest
from plugins.discord.models import DiscordSettings
from plugins.discord.oauth import PERMISSIONS, PERMISSIONS_INTEGER, DiscordOAuth
from tests.fakes.discord import FakeDiscord

BACK = "https://gateway.example/auth/discord/callback"
VERIFIER = "v" * 64


@pytest.fixture
async def oauth(discord: FakeDiscord) -> AsyncIterator[DiscordOAuth]:
    async with httpx.AsyncHTTPTransport() as transport:
        made = bind_oauth(manifest, settings=discord.settings(), transport=transport)
        assert isinstance(made, DiscordOAuth)
        yield made


def challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


async def visit(oauth: DiscordOAuth, kind: OAuthType, **more: Any) -> Returned:
    """A person goes to Discord's page and comes back."""
    url = oauth.authorize_url(Authorize(kind, BACK, "the-state", challenge(VERIFIER), **more))
    async with httpx.AsyncClient() as browser:
        answer = await browser.get(url)
    assert answer.status_code == 302
    landed = urlsplit(answer.headers["location"])
    assert f"{landed.scheme}://{landed.netloc}{landed.path}" == BACK
    return Returned(kind, dict(parse_qsl(landed.query)), BACK, VERIFIER)


async def test_an_install_is_of_the_server_that_the_token_answer_names(
    discord: FakeDiscord, oauth: DiscordOAuth
) -> None:
    guild = discord.add_guild("New", present=False)
    ada = discord.add_user("ada")
    discord.oauth.user, discord.oauth.guild = ada, guild
    discord.oauth.claimed_guild = "666"
    returned = await visit(oauth, "app")
    assert returned.query["guild_id"] == "666", "the query lies"
    installed = await oauth.exchange(returned)
    assert isinstance(installed, Installed)
    assert installed.community_platform_id == str(guild.id)
    assert installed.config == {"guild_id": str(guild.id)}
    assert installed.credentials == {}, "it is the deployment's bot that acts, and nothing of the person's is kept"
    assert set(installed.scopes) == {"bot", "applications.commands", "identify"}
    assert installed.user is not None
    assert (installed.user.user_id, installed.user.name) == (str(ada.id), "Ada")
    assert discord.oauth.tokens == {}, "the person's token is revoked"
    assert guild.present


async def test_signing_in_tells_who_somebody_is(discord: FakeDiscord, oauth: DiscordOAuth) -> None:
    ada = discord.oauth.user = discord.add_user("ada")
    signed_in = await oauth.exchange(await visit(oauth, "user"))
    assert isinstance(signed_in, SignedIn)
    assert (signed_in.user.user_id, signed_in.scopes) == (str(ada.id), ("identify",))
    assert discord.oauth.tokens == discord.oauth.refresh_tokens == {}


def test_the_page_that_people_are_sent_to(oauth: DiscordOAuth, discord: FakeDiscord) -> None:
    url = urlsplit(oauth.authorize_url(Authorize("app", BACK, "s&t=1", "c", "42")))
    assert f"{url.scheme}://{url.netloc}{url.path}" == discord.authorize_url
    assert parse_qs(url.query) == {
        "client_id": [str(discord.application_id)],
        "response_type": ["code"],
        "redirect_uri": [BACK],
        "scope": ["bot applications.commands identify"],
        "state": ["s&t=1"],
        "code_challenge": ["c"],
        "code_challenge_method": ["S256"],
        "permissions": [str(PERMISSIONS_INTEGER)],
        "guild_id": ["42"],
        "disable_guild_select": ["true"],
    }
    assert PERMISSIONS_INTEGER == 563224831413248 == sum(PERMISSIONS.values())
    assert discord.client_secret not in url.query


async def test_saying_no(discord: FakeDiscord, oauth: DiscordOAuth) -> None:
    discord.oauth.denies = True
    with pytest.raises(OAuthDenied):
        await oauth.exchange(await visit(oauth, "app"))
    with pytest.raises(Rejected):
        await oauth.exchange(Returned("app", {"error": "server_error"}, BACK))
    assert discord.requests == []


async def test_a_code_is_good_once_and_with_its_verifier(discord: FakeDiscord, oauth: DiscordOAuth) -> None:
    discord.oauth.user, discord.oauth.guild = discord.add_user("ada"), discord.add_guild("New", present=False)
    returned = await visit(oauth, "app")
    await oauth.exchange(returned)
    with pytest.raises(Rejected, match="invalid_grant"):
        await oauth.exchange(returned)
    stolen = await visit(oauth, "app")
    for forged in (
        Returned("app", stolen.query, BACK, "w" * 64),
        Returned("app", {"code": "guess"}, BACK, VERIFIER),
        Returned("app", {}, BACK, VERIFIER),
        Returned("app", (await visit(oauth, "app")).query, "https://evil.example/", VERIFIER),
    ):
        with pytest.raises(Rejected):
            await oauth.exchange(forged)


async def test_an_install_without_a_server_is_none(discord: FakeDiscord, oauth: DiscordOAuth) -> None:
    discord.oauth.user = discord.add_user("ada")
    with pytest.raises(Rejected, match="names no server"):
        await oauth.exchange(await visit(oauth, "app"))
    assert discord.oauth.tokens == {}


@pytest.mark.parametrize(
    ("status", "error"), [(500, Retry), (503, Retry), (429, Retry), (401, Rejected), (400, Rejected)]
)
async def test_failures_at_discord(
    discord: FakeDiscord, oauth: DiscordOAuth, status: int, error: type[Exception]
) -> None:
    discord.oauth.user = discord.add_user("ada")
    returned = await visit(oauth, "user")
    discord.faults.add("POST /oauth2/token$", status)
    with pytest.raises(error) as raised:
        await oauth.exchange(returned)
    for secret in (returned.query["code"], VERIFIER, discord.client_secret):
        assert secret not in str(raised.value)


async def test_a_token_that_cannot_be_revoked_spoils_no_install(discord: FakeDiscord, oauth: DiscordOAuth) -> None:
    discord.oauth.user, discord.oauth.guild = discord.add_user("ada"), discord.add_guild("New", present=False)
    discord.faults.add("POST /oauth2/token/revoke", 500)
    assert isinstance(await oauth.exchange(await visit(oauth, "app")), Installed)


async def test_refreshing_and_revoking(discord: FakeDiscord, oauth: DiscordOAuth) -> None:
    discord.oauth.user = discord.add_user("ada")
    form = {"grant_type": "authorization_code", "redirect_uri": BACK}
    returned = await visit(oauth, "user")
    first = (await oauth._tokens({**form, "code": returned.query["code"], "code_verifier": VERIFIER})).token()
    second = await oauth.refresh(first)
    assert second.access_token != first.access_token
    assert second.expires_in == 604_800
    with pytest.raises(Unauthorized):
        await oauth.refresh(first)
    await oauth.revoke(second)
    assert discord.oauth.tokens == {}
    with pytest.raises(Unauthorized):
        await oauth.refresh(Token("no refresh token"))
    assert "access-" not in repr(first)


def test_what_the_operator_has_to_set(discord: FakeDiscord) -> None:
    assert DiscordOAuth.missing(DiscordSettings()) == ["client_id", "client_secret", "bot_token", "public_key"]
    assert DiscordOAuth.missing(DiscordSettings.model_validate(discord.settings())) == []
