"""Installing Slack's app and signing in with Slack, against a fake Slack over real sockets."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import yaml  # type: ignore[import-untyped]
from slack_sdk.oauth import AuthorizeUrlGenerator, OpenIDConnectAuthorizeUrlGenerator

from metagov_sdk import Authorize, Installed, OAuthType, Rejected, Retry, Returned, SignedIn, Token, Unauthorized
from metagov_sdk.testing import bind_oauth
from plugins.slack import manifest
from plugins.slack.models import SlackSettings
from plugins.slack.oauth import SCOPES, SlackOAuth
from tests.docs.pages import ROOT
from tests.fakes.slack import FakeSlack
from tests.fakes.slack_state import Team

CALLBACK = "http://gateway.test/auth/slack/callback"


def oauth_of(slack: FakeSlack, transport: httpx.AsyncBaseTransport) -> Any:
    return bind_oauth(manifest, settings=slack.settings(), transport=transport)


async def come_back(
    slack: FakeSlack, transport: httpx.AsyncBaseTransport, kind: Any, hint: str | None = None
) -> Returned:
    """Follow the page that the person is sent to, and come back with its query."""
    url = oauth_of(slack, transport).authorize_url(Authorize(kind, CALLBACK, "st4te", community_platform_id=hint))
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport()) as browser:
        answer = await browser.get(url)
    assert answer.status_code == 302
    query = {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}
    assert query["state"] == "st4te"
    return Returned(kind, query, CALLBACK)


async def test_an_install_gives_the_workspace_and_its_token(
    slack: FakeSlack, town: Team, transport: httpx.AsyncHTTPTransport
) -> None:
    returned = await come_back(slack, transport, "app")
    got = await oauth_of(slack, transport).exchange(returned)
    assert isinstance(got, Installed)
    assert (got.community_platform_id, got.config, set(got.scopes)) == (town.id, {"team_id": town.id}, set(SCOPES))
    assert got.user is not None and got.user.user_id == "U0ADA"
    token = got.credentials["bot"]
    assert token.access_token == slack.world.bot(town).token
    assert (token.refresh_token, token.expires_in) == (None, None)
    assert token.data == {"app_id": "A0GATEWAY", "bot_user_id": "U0BOT0TOWN"}


async def test_a_sign_in_says_who_it_is_and_leaves_no_token(
    slack: FakeSlack, town: Team, transport: httpx.AsyncHTTPTransport
) -> None:
    slack.person = (town, "U0BOB")
    got = await oauth_of(slack, transport).exchange(await come_back(slack, transport, "user"))
    assert isinstance(got, SignedIn)
    assert (got.user.user_id, got.user.name, got.user.community_platform_id) == ("U0BOB", "u0bob", town.id)
    (grant,) = (grant for grant in slack.world.grants.values() if grant.kind == "user")
    assert grant.error == "token_revoked"


async def test_a_sign_in_does_not_fail_for_a_token_that_stays(
    slack: FakeSlack, transport: httpx.AsyncHTTPTransport
) -> None:
    slack.fail("auth.revoke", status=503)
    got = await oauth_of(slack, transport).exchange(await come_back(slack, transport, "user"))
    assert isinstance(got, SignedIn)


@pytest.mark.parametrize("kind", ["app", "user"])
def test_the_page_is_the_one_slacks_sdk_makes(slack: FakeSlack, kind: Any) -> None:
    oauth = bind_oauth(manifest, settings={"client_id": "1.2", "client_secret": "s"})
    ours = urlsplit(oauth.authorize_url(Authorize(kind, CALLBACK, "st4te", community_platform_id="T0TOWN")))
    generator: Any = (
        AuthorizeUrlGenerator(client_id="1.2", redirect_uri=CALLBACK, scopes=SCOPES)
        if kind == "app"
        else OpenIDConnectAuthorizeUrlGenerator(client_id="1.2", redirect_uri=CALLBACK, scopes=["openid", "profile"])
    )
    theirs = urlsplit(generator.generate("st4te", team="T0TOWN"))
    assert ours[:3] == theirs[:3]

    def normal(query: str) -> dict[str, list[str]]:
        return {name: sorted(values[0].replace(",", " ").split()) for name, values in parse_qs(query).items()}

    assert normal(ours.query) == normal(theirs.query)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"code": "made-up"}, "invalid_code"),
        ({"code": ""}, "invalid_code"),
        ({}, "invalid_code"),
    ],
)
async def test_a_code_that_slack_did_not_give_is_refused(
    slack: FakeSlack, transport: httpx.AsyncHTTPTransport, change: dict[str, str], said: str
) -> None:
    kinds: tuple[OAuthType, ...] = ("app", "user")
    for kind in kinds:
        with pytest.raises(Rejected, match=said):
            await oauth_of(slack, transport).exchange(Returned(kind, change, CALLBACK))


async def test_a_code_works_once(slack: FakeSlack, transport: httpx.AsyncHTTPTransport) -> None:
    returned = await come_back(slack, transport, "app")
    await oauth_of(slack, transport).exchange(returned)
    with pytest.raises(Rejected, match="code_already_used"):
        await oauth_of(slack, transport).exchange(returned)


async def test_a_sign_ins_code_installs_nothing(slack: FakeSlack, transport: httpx.AsyncHTTPTransport) -> None:
    returned = await come_back(slack, transport, "user")
    with pytest.raises(Rejected, match="invalid_code"):
        await oauth_of(slack, transport).exchange(Returned("app", returned.query, CALLBACK))


async def test_an_organizations_install_is_the_organizations(
    slack: FakeSlack, transport: httpx.AsyncHTTPTransport
) -> None:
    company = slack.world.team("E0COMPANY")
    company.enterprise_id = company.id
    slack.person = (company, "U0ADA")
    got = await oauth_of(slack, transport).exchange(await come_back(slack, transport, "app"))
    assert (got.community_platform_id, got.config) == ("E0COMPANY", {"team_id": "E0COMPANY"})


async def test_the_workspace_comes_from_the_token_answer_alone(
    slack: FakeSlack, transport: httpx.AsyncHTTPTransport
) -> None:
    other = slack.world.team("T0OTHER")
    slack.person = (other, "U0ADA")
    returned = await come_back(slack, transport, "app", hint="T0TOWN")
    assert slack.authorized[-1]["team"] == "T0TOWN"
    forged = Returned("app", {**returned.query, "team": "T0TOWN", "team_id": "T0TOWN"}, CALLBACK)
    got = await oauth_of(slack, transport).exchange(forged)
    assert got.community_platform_id == "T0OTHER"


async def test_tokens_rotate(slack: FakeSlack, town: Team, transport: httpx.AsyncHTTPTransport) -> None:
    slack.world.app.rotates = True
    oauth = oauth_of(slack, transport)
    first = (await oauth.exchange(await come_back(slack, transport, "app"))).credentials["bot"]
    assert first.expires_in == 43_200
    second = await oauth.refresh(first)
    assert second.access_token not in ("", first.access_token)
    assert second.refresh_token not in (None, first.refresh_token)
    assert slack.world.bot(town).token == second.access_token
    with pytest.raises(Unauthorized, match="install the app again"):
        await oauth.refresh(first)
    with pytest.raises(Unauthorized):
        await oauth.refresh(Token("xoxb-1"))


async def test_a_revoked_token_is_void_and_may_be_revoked_again(
    slack: FakeSlack, town: Team, transport: httpx.AsyncHTTPTransport
) -> None:
    token = Token(slack.world.bot(town).token)
    for _ in range(2):
        await oauth_of(slack, transport).revoke(token)
    assert slack.world.bot(town).error == "token_revoked"


async def test_the_secret_goes_in_a_header_and_no_token_in_a_url(
    slack: FakeSlack, transport: httpx.AsyncHTTPTransport
) -> None:
    slack.world.app.rotates = True
    oauth = oauth_of(slack, transport)
    token = (await oauth.exchange(await come_back(slack, transport, "app"))).credentials["bot"]
    await oauth.refresh(token)
    await oauth.exchange(await come_back(slack, transport, "user"))
    for request in slack.requests:
        assert request.query == {}
        assert slack.world.app.client_secret.encode() not in request.raw
    assert slack.world.app.client_secret not in repr((token, oauth.settings))


@pytest.mark.parametrize(
    ("how", "kind"), [({"status": 500}, httpx.TransportError), ({"status": 429, "retry_after": 3}, Retry)]
)
async def test_slack_being_away_is_not_a_refusal(
    slack: FakeSlack, transport: httpx.AsyncHTTPTransport, how: dict[str, Any], kind: type[Exception]
) -> None:
    returned = await come_back(slack, transport, "app")
    slack.fail("oauth.v2.access", **how)
    with pytest.raises(kind):
        await oauth_of(slack, transport).exchange(returned)


@pytest.mark.parametrize(
    "answer",
    [
        {"ok": True},
        {"ok": True, "team": {"id": 7}, "token_type": "bot", "access_token": "x"},
        {"ok": True, "team": {"id": "T1"}, "token_type": "user", "access_token": "x"},
        {"ok": True, "team": {"id": "T1"}, "token_type": "bot", "access_token": ""},
        {"ok": True, "team": None, "is_enterprise_install": False, "token_type": "bot", "access_token": "x"},
    ],
)
async def test_an_answer_that_lacks_what_it_takes_is_refused(slack: FakeSlack, answer: dict[str, Any]) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=answer))
    with pytest.raises(Rejected):
        await oauth_of(slack, transport).exchange(Returned("app", {"code": "x"}, CALLBACK))


def test_what_an_install_needs() -> None:
    assert SlackOAuth.missing(SlackSettings()) == ["client_id", "client_secret"]
    assert SlackOAuth.missing(SlackSettings.model_validate({"client_id": "1", "client_secret": "s"})) == []


def app_manifest() -> Any:
    return yaml.safe_load((ROOT / "plugins/slack/manifest.yaml").read_text())


def test_the_apps_manifest_asks_for_what_the_install_asks_for() -> None:
    manifest_file = app_manifest()
    assert sorted(manifest_file["oauth_config"]["scopes"]["bot"]) == sorted(SCOPES)
    assert "user" not in manifest_file["oauth_config"]["scopes"]


def test_the_apps_manifest_fits_slacks_schema() -> None:
    """By https://docs.slack.dev/reference/app-manifest: names, required parts and lengths."""
    given = app_manifest()
    assert given.keys() <= {"_metadata", "display_information", "features", "oauth_config", "settings", "functions"}
    info = given["display_information"]
    assert 0 < len(info["name"]) <= 35 and len(info["description"]) <= 140
    assert 174 <= len(info["long_description"]) <= 4000
    assert given["features"]["bot_user"].keys() == {"display_name", "always_online"}
    assert len(given["features"]["bot_user"]["display_name"]) <= 80
    for command in given["features"]["slash_commands"]:
        assert command.keys() <= {"command", "description", "usage_hint", "should_escape", "url"}
        assert command["command"].startswith("/") and len(command["command"]) <= 32
        assert len(command["description"]) <= 2000 and len(command["usage_hint"]) <= 1000
    settings = given["settings"]
    assert settings.keys() <= {
        "allowed_ip_address_ranges", "event_subscriptions", "interactivity", "org_deploy_enabled",
        "socket_mode_enabled", "token_rotation_enabled",
    }  # fmt: skip
    assert settings["interactivity"]["is_enabled"] is True
    assert settings["event_subscriptions"].keys() == {"request_url", "bot_events"}
    events = settings["event_subscriptions"]["bot_events"]
    assert 0 < len(events) <= 100 and len(set(events)) == len(events)
    assert {"app_uninstalled", "tokens_revoked"} <= set(events)
    urls = [
        settings["event_subscriptions"]["request_url"],
        settings["interactivity"]["request_url"],
        *(command["url"] for command in given["features"]["slash_commands"]),
    ]
    assert set(urls) == {"https://gateway.example/api/hooks/slack"}
    assert given["oauth_config"]["redirect_urls"] == ["https://gateway.example/auth/slack/callback"]
