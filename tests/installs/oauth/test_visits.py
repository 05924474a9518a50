"""People on their way to the platform and back: each way ends at the driver, or with a page that a person can read."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import httpx
import pytest

from app.gateway import Gateway
from app.installs.oauth.state import LIFETIME, States
from metagov_sdk import Installed, OAuthUser, SignedIn, Token
from tests.conftest import Driver, make_settings
from tests.fakes.oauth_provider import OAuthProvider
from tests.installs.oauth.conftest import REDIRECT, Browser, exchange, installed, register
from tests.support.oauth_probe import BEHAVIOUR


def assert_page(answer: httpx.Response, status: int, *words: str) -> None:
    """A page that a person can read, and nothing can be made to run in."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("text/html")
    assert "location" not in answer.headers
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert "<script" not in answer.text
    for word in words:
        assert word in answer.text


def said(answer: httpx.Response) -> dict[str, str]:
    """The query of the driver's redirect URI."""
    assert answer.status_code == 303, answer.text
    assert answer.headers["location"].startswith(REDIRECT + "&")
    return dict(parse_qsl(urlsplit(answer.headers["location"]).query))


def with_query(url: str, **changes: str) -> str:
    """The URL with some of its query replaced."""
    parts = urlsplit(url)
    return parts._replace(query=urlencode({**dict(parse_qsl(parts.query)), **changes})).geturl()


async def grants(gateway: Gateway) -> int:
    """How many returns have been noted."""
    count: int = await gateway.db.pool.fetchval("SELECT count(*) FROM oauth_grants")
    return count


async def test_the_whole_way(town: Driver, browser: Browser, gateway: Gateway) -> None:
    there = await browser.authorize(redirect_uri=REDIRECT, community="town", type="app", state="a&b=ö")
    query = parse_qs(urlsplit(there.headers["location"]).query)
    assert query["redirect_uri"] == [f"{gateway.settings.public_url}/auth/crew/callback"]
    assert there.headers["referrer-policy"] == "no-referrer"
    assert await grants(gateway) == 0, "a visit writes nothing"
    back = said(await browser.come_back(await browser.consent(there)))
    assert back.pop("code")
    assert back == {"from": "metagov", "state": "a&b=ö", "community": "town"}
    assert (await town.get("plugin")).json()["plugins"] == [], "nothing is enabled before the exchange"


async def test_a_redirect_uri_without_a_query_and_a_visit_without_a_state(
    town: Driver, browser: Browser, gateway: Gateway
) -> None:
    await register(gateway, town, "https://driver.example/plain")
    there = await browser.authorize(redirect_uri="https://driver.example/plain", community="town")
    back = await browser.come_back(await browser.consent(there))
    assert back.headers["location"].startswith("https://driver.example/plain?community=town&code=")


@pytest.mark.parametrize(
    ("query", "status", "word"),
    [
        ({"community": "nowhere"}, 404, "no such community"),
        ({"redirect_uri": "https://evil.example/"}, 404, "redirect"),
        ({"redirect_uri": REDIRECT + "&more"}, 404, "redirect"),
        ({"redirect_uri": REDIRECT.upper()}, 404, "redirect"),
        ({"redirect_uri": ""}, 400, "redirect_uri"),
        ({"type": "admin"}, 400, "type"),
        ({"type": "user"}, 404, "not enabled"),
        ({"type": "user", "community": ""}, 400, "community"),
        ({"state": "x" * 501}, 400, "state"),
        ({"plugin": "probe"}, 404, "config"),
        ({"plugin": "nothing"}, 404, "no such platform"),
    ],
)
async def test_links_that_lead_nowhere_end_with_a_page(
    town: Driver, browser: Browser, gateway: Gateway, query: dict[str, str], status: int, word: str
) -> None:
    wanted = {"redirect_uri": REDIRECT, "community": "town", **query}
    assert_page(await browser.authorize(**{name: value for name, value in wanted.items() if value}), status, word)
    assert await grants(gateway) == 0


async def test_unknown_and_foreign_communities_read_alike(town: Driver, other_driver: Driver, browser: Browser) -> None:
    assert (await other_driver.put("city")).status_code == 201
    unknown = await browser.authorize(redirect_uri=REDIRECT, community="nowhere")
    foreign = await browser.authorize(redirect_uri=REDIRECT, community="city")
    assert (foreign.status_code, foreign.text) == (unknown.status_code, unknown.text)


async def test_a_page_says_nothing_back_that_could_run(town: Driver, browser: Browser) -> None:
    answer = await browser.authorize(redirect_uri="<script>alert(1)</script>", community="<b>", type="<i>")
    assert_page(answer, 400)
    assert "<b>" not in answer.text
    answer = await browser.gateway.get("/auth/%3Cscript%3E/authorize")
    assert_page(answer, 404)


async def test_a_parameter_said_twice_is_refused(town: Driver, browser: Browser) -> None:
    query = urlencode([("redirect_uri", REDIRECT), ("redirect_uri", REDIRECT), ("community", "town")])
    twice = await browser.gateway.get(f"/auth/crew/authorize?{query}")
    assert_page(twice, 400, "twice")


async def test_settings_that_are_missing_are_named_on_the_page(
    town: Driver, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.oauth_probe.CrewOAuth.missing", classmethod(lambda cls, settings: ["client_id"]))
    answer = await browser.authorize(redirect_uri=REDIRECT, community="town")
    assert_page(answer, 404, "METAGOV_CREW_CLIENT_ID")


async def test_a_plugin_that_fails_on_the_way_there(
    town: Driver, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(self: object, request: object) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr("tests.support.oauth_probe.CrewOAuth.authorize_url", crash)
    assert_page(await browser.authorize(redirect_uri=REDIRECT, community="town"), 502, "crew failed")


async def test_a_type_that_is_not_offered(town: Driver, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.oauth_probe.CrewOAuth.types", frozenset({"user"}))
    assert_page(await browser.authorize(redirect_uri=REDIRECT, community="town"), 404, "type=app")


async def test_without_a_community_the_redirect_uri_tells_the_driver(
    town: Driver, other_driver: Driver, browser: Browser, gateway: Gateway
) -> None:
    communities = "SELECT count(*) FROM communities"
    before = await gateway.db.pool.fetchval(communities)
    back = await browser.install(community="")
    assert "community" not in back
    assert await gateway.db.pool.fetchval(communities) == before, "no visit creates a community"
    made = (await exchange(town, back["code"])).json()
    assert (await town.get("plugin", slug=made["community"])).json()["plugins"][0]["id"] == made["instance"]
    await register(gateway, other_driver, REDIRECT)
    assert_page(await browser.authorize(redirect_uri=REDIRECT), 400, "Several drivers")


def _flip(text: str, place: int) -> str:
    return text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]


async def test_a_state_that_was_changed_or_made_up_ends_with_a_page(
    town: Driver, browser: Browser, gateway: Gateway, provider: OAuthProvider
) -> None:
    url = await browser.consent(await browser.authorize(redirect_uri=REDIRECT, community="town"))
    state = dict(parse_qsl(urlsplit(url).query))["state"]
    others, _ = States(make_settings("postgresql://x@y/z").fernet_keys).make(
        "crew", "app", town.id, None, REDIRECT, None
    )
    forged = [_flip(state, place) for place in range(1, len(state) - 1, 11)]
    for bad in [*forged, state[:-5], "", "x", "é", gateway.vault.seal({"plugin": "crew"}), others]:
        assert_page(await browser.come_back(with_query(url, state=bad)), 400, "begin again")
    assert not any(seen.url.endswith("/token") for seen in provider.requests), "nothing was exchanged"
    assert await grants(gateway) == 0
    assert "code" in said(await browser.come_back(url)), "the true one is still good"


async def test_a_state_is_good_for_one_plugin(town: Driver, browser: Browser, gateway: Gateway) -> None:
    state, _ = gateway.oauth.states.make("github", "app", town.id, None, REDIRECT, None)
    assert_page(await browser.come_back(f"/auth/crew/callback?state={state}&code=1"), 400, "another platform")


async def test_a_state_is_good_for_one_return(town: Driver, browser: Browser, provider: OAuthProvider) -> None:
    url = await browser.consent(await browser.authorize(redirect_uri=REDIRECT, community="town"))
    assert "code" in said(await browser.come_back(url))
    assert_page(await browser.come_back(url), 400, "used already")
    assert len([seen for seen in provider.requests if seen.url.endswith("/token")]) == 1


async def test_asking_for_the_head_uses_nothing_up(town: Driver, browser: Browser) -> None:
    url = await browser.consent(await browser.authorize(redirect_uri=REDIRECT, community="town"))
    parts = urlsplit(url)
    assert (await browser.gateway.head(f"{parts.path}?{parts.query}")).status_code == 405
    assert "code" in said(await browser.come_back(url))


async def test_of_two_returns_at_once_one_is_taken(town: Driver, browser: Browser) -> None:
    url = await browser.consent(await browser.authorize(redirect_uri=REDIRECT, community="town"))
    answers = await asyncio.gather(*(browser.come_back(url) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [303, 400, 400, 400, 400]


async def test_a_state_expires(town: Driver, browser: Browser, gateway: Gateway) -> None:
    now = [1_800_000_000.0]
    states = States(gateway.settings.fernet_keys, clock=lambda: now[0])
    state, _ = states.make("crew", "app", town.id, None, REDIRECT, None)
    assert states.read(state, "crew")[0].driver_id == town.id
    now[0] += LIFETIME + 1
    old, _ = States(gateway.settings.fernet_keys, clock=lambda: 1.0).make("crew", "app", town.id, None, REDIRECT, None)
    assert_page(await browser.come_back(f"/auth/crew/callback?state={old}&code=1"), 400, "too long")


async def test_a_state_outlives_a_change_of_keys(town: Driver) -> None:
    old, new = (make_settings("postgresql://x@y/z").fernet_keys for _ in range(2))
    state, verifier = States(old).make("crew", "app", town.id, None, REDIRECT, "s")
    assert States([*new, *old]).read(state, "crew")[1] == verifier


async def test_a_redirect_that_was_taken_away_meanwhile(town: Driver, browser: Browser, gateway: Gateway) -> None:
    url = await browser.consent(await browser.authorize(redirect_uri=REDIRECT, community="town"))
    await gateway.db.pool.execute("DELETE FROM redirect_uris")
    assert_page(await browser.come_back(url), 404, "not registered")


async def test_a_community_that_was_deleted_meanwhile(town: Driver, browser: Browser) -> None:
    url = await browser.consent(await browser.authorize(redirect_uri=REDIRECT, community="town"))
    assert (await town.http.delete("/api/internal/community/town")).status_code == 204
    assert_page(await browser.come_back(url), 404, "deleted")


@pytest.mark.parametrize(
    ("knobs", "error"),
    [
        ({"denies": "access_denied"}, "access_denied"),
        ({"denies": "invalid_scope"}, "provider_refused"),
        ({"denies": "<script>"}, "provider_refused"),
        ({"status": 500}, "temporarily_unavailable"),
        ({"status": 503}, "temporarily_unavailable"),
        ({"status": 400}, "provider_refused"),
        ({"garbage": True}, "server_error"),
        ({"delay": 5.0}, "temporarily_unavailable"),
    ],
)
async def test_what_goes_wrong_at_the_platform_is_told_to_the_driver(
    town: Driver, browser: Browser, gateway: Gateway, provider: OAuthProvider, monkeypatch: pytest.MonkeyPatch,
    knobs: dict[str, Any], error: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("app.installs.oauth.visits._LONGEST_WAIT", 0.5)
    for name, value in knobs.items():
        setattr(provider.knobs, name, value)
    back = await browser.install()
    assert (back["error"], back["state"], back["community"]) == (error, "s 1", "town")
    assert back["error_description"]
    assert "<" not in back["error_description"]
    assert "code" not in back
    assert (await town.get("plugin")).json()["plugins"] == []
    assert await gateway.db.pool.fetchval("SELECT count(*) FROM oauth_grants WHERE sealed IS NOT NULL") == 0


@pytest.mark.parametrize(
    "given",
    [
        None,
        {"team": "T1"},
        SignedIn(OAuthUser("U1")),
        Installed(""),
        Installed("T\0"),
        Installed(7),  # type: ignore[arg-type]
        Installed("x" * 501),
        Installed("T1", {"team": float("nan")}),
        Installed("T1", {"team": object()}),  # type: ignore[dict-item]
        Installed("T1", {"team": "\udc00"}),
        Installed("T1", {}, {"bot": "not a token"}),  # type: ignore[dict-item]
        Installed("T1", {}, {"bot": Token("x", data={"a": object()})}),  # type: ignore[dict-item]
        Installed("T1", {}, {"bot": Token("")}),
        Installed("T1", {}, {"bot": Token(None)}),  # type: ignore[arg-type]
        Installed("T1", {}, {"": Token("x")}),
        Installed("T1", user=OAuthUser("U1", data={"x": "y" * 20_000})),
    ],
    ids=[
        "nothing",
        "no type of ours",
        "the wrong type",
        "no id",
        "NUL",
        "a number",
        "too long",
        "NaN",
        "an object",
        "half a pair",
        "no token",
        "an object in a token",
        "an empty token",
        "null for a token",
        "no name",
        "too much of a person",
    ],
)
async def test_an_answer_that_cannot_be_used(town: Driver, browser: Browser, given: object) -> None:
    BEHAVIOUR["given"] = given
    assert (await browser.install())["error"] == "server_error"


async def test_pkce_ties_the_code_to_the_visit(town: Driver, browser: Browser, provider: OAuthProvider) -> None:
    mine, theirs = [
        await browser.consent(await browser.authorize(redirect_uri=REDIRECT, community="town")) for _ in range(2)
    ]
    stolen = dict(parse_qsl(urlsplit(theirs).query))["code"]
    assert said(await browser.come_back(with_query(mine, code=stolen)))["error"] == "provider_refused"
    for seen in provider.requests:
        assert "code_verifier" not in seen.url


async def test_another_workspace_than_the_communitys_is_refused(
    town: Driver, browser: Browser, provider: OAuthProvider
) -> None:
    await installed(town, browser)
    assert provider.knobs.team == "T1"
    there = await browser.authorize(redirect_uri=REDIRECT, community="town")
    assert parse_qs(urlsplit(there.headers["location"]).query)["team"] == ["T1"], "a hint which it is"
    provider.knobs.team = "T2"
    assert (await browser.install())["error"] == "wrong_workspace"
    assert [provider.live.get(token) for token in provider.issued] == ["T1", None], "the useless token is revoked"
    assert (await town.act("crew.whoami")).json() == {"team": "T1"}


async def test_visits_are_rate_limited_by_address(town: Driver, browser: Browser) -> None:
    answers = [await browser.authorize(redirect_uri=REDIRECT, community="town") for _ in range(70)]
    limited = [answer for answer in answers if answer.status_code == 429]
    assert limited
    assert_page(limited[0], 429, "Wait a moment")
    assert limited[0].headers["retry-after"]
