"""The driver's exchange: nothing is enabled before it, and one of it is enough."""

from __future__ import annotations

import asyncio
import hmac
from typing import Any

import httpx
import pytest

from app.gateway import Gateway
from app.installs.oauth.revocation import drop_grants
from app.worker import Drains
from metagov_sdk import Rejected, Retry
from tests.conftest import Driver
from tests.fakes.oauth_provider import OAuthProvider
from tests.installs.oauth.conftest import SIGNING_SECRET, Browser, exchange, installed
from tests.support.oauth_probe import BEHAVIOUR, LOG
from tests.support.problems import problem

HEADER = {"X-Metagov-Community": "town"}


async def instances(driver: Driver) -> list[dict[str, Any]]:
    """The community's instances."""
    found: list[dict[str, Any]] = (await driver.get("plugin")).json()["plugins"]
    return found


async def generation(gateway: Gateway) -> int:
    """Of the only instance."""
    found: int = await gateway.db.pool.fetchval("SELECT generation FROM instances WHERE deleted_at IS NULL")
    return found


async def refuse(gateway: Gateway, town: Driver, provider: OAuthProvider) -> None:
    """Have the platform refuse the instance's token."""
    for token in provider.issued:
        provider.live.pop(token, None)
    assert problem(await town.act("crew.whoami"), 409)["type"] == "urn:metagov:needs_auth"


async def test_enables_binds_and_keeps_the_tokens(town: Driver, browser: Browser, gateway: Gateway) -> None:
    code = (await browser.install())["code"]
    answer = await exchange(town, code)
    assert answer.status_code == 200
    (instance,) = await instances(town)
    user = answer.json().pop("user")
    assert answer.json() | {"user": None} == {
        "plugin": "crew",
        "type": "app",
        "community": "town",
        "community_platform_id": "T1",
        "instance": instance["id"],
        "scopes": ["chat", "read"],
        "user": None,
    }
    assert (user["user_id"], user["provider"]) == ("U1", "crew")
    assert (instance["status"], instance["auth_type"], instance["config"]) == ("enabled", "oauth", {"team": "T1"})
    assert LOG == ["setup in T1"], "setup has the tokens, before anything is written"
    assert (await town.act("crew.whoami")).json() == {"team": "T1"}
    body = b'{"id": "i1", "token": "t"}'
    signature = "sha256=" + hmac.digest(SIGNING_SECRET.encode(), body, "sha256").hex()
    hook = await browser.gateway.post(
        "/api/hooks/crew", content=body, headers={"X-Team": "T1", "X-Signature": signature}
    )
    assert hook.status_code == 202, "webhooks of the workspace are the community's"


async def test_a_code_is_good_once(town: Driver, browser: Browser) -> None:
    code = (await browser.install())["code"]
    assert (await exchange(town, code)).status_code == 200
    again, unknown = await exchange(town, code), await exchange(town, "x" * 43)
    assert again.status_code == 404
    assert again.text == unknown.text


async def test_the_same_key_gets_the_first_answer_again(town: Driver, browser: Browser) -> None:
    code = (await browser.install())["code"]
    first, again = [await exchange(town, code, **{"Idempotency-Key": "k1"}) for _ in range(2)]
    assert first.status_code == again.status_code == 200
    assert first.json() == again.json()


async def test_another_drivers_code_reads_as_unknown_and_stays_good(
    town: Driver, other_driver: Driver, browser: Browser
) -> None:
    code = (await browser.install())["code"]
    stolen, unknown = await exchange(other_driver, code), await exchange(other_driver, "x" * 43)
    assert (stolen.status_code, stolen.text) == (404, unknown.text)
    assert (await exchange(town, code)).status_code == 200


async def test_a_code_expires(town: Driver, browser: Browser, gateway: Gateway, provider: OAuthProvider) -> None:
    code = (await browser.install())["code"]
    await gateway.db.pool.execute("UPDATE oauth_grants SET expires_at = now() - interval '1 second'")
    assert (await exchange(town, code)).status_code == 404
    await drop_grants(gateway.db, gateway.host)
    assert await gateway.db.pool.fetchval("SELECT count(*) FROM oauth_grants") == 0
    assert provider.revoked == provider.issued, "what no driver came for is revoked"


async def test_an_abandoned_install_revokes_nothing_of_a_workspace_in_use(
    town: Driver, browser: Browser, gateway: Gateway, provider: OAuthProvider
) -> None:
    await installed(town, browser)
    await browser.install()
    await gateway.db.pool.execute("UPDATE oauth_grants SET expires_at = now() - interval '1 second'")
    await drop_grants(gateway.db, gateway.host)
    assert provider.revoked == []


async def test_of_two_exchanges_at_once_one_enables(town: Driver, browser: Browser, gateway: Gateway) -> None:
    code = (await browser.install())["code"]
    answers = await asyncio.gather(*(exchange(town, code) for _ in range(6)))
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses[0] == 200
    assert set(statuses[1:]) <= {404, 409}
    assert await gateway.db.pool.fetchval("SELECT count(*) FROM instances") == 1


async def test_of_two_installs_at_once_one_instance_comes(town: Driver, browser: Browser, gateway: Gateway) -> None:
    codes = [back["code"] for back in await asyncio.gather(*(browser.install() for _ in range(4)))]
    answers = await asyncio.gather(*(exchange(town, code) for code in codes))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len({answer.json()["instance"] for answer in answers}) == 1
    assert await gateway.db.pool.fetchval("SELECT count(*) FROM instances") == 1
    assert (await town.act("crew.whoami")).json() == {"team": "T1"}


async def test_of_two_workspaces_at_once_one_wins(
    town: Driver, browser: Browser, gateway: Gateway, provider: OAuthProvider
) -> None:
    first = (await browser.install())["code"]
    provider.knobs.team = "T2"
    second = (await browser.install())["code"]
    answers = await asyncio.gather(exchange(town, first), exchange(town, second))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    (lost,) = [answer for answer in answers if answer.status_code == 409]
    assert problem(lost, 409)["type"] == "urn:metagov:wrong-workspace"
    (won,) = [answer for answer in answers if answer.status_code == 200]
    assert [instance["id"] for instance in await instances(town)] == [won.json()["instance"]]
    assert (await town.act("crew.whoami")).json() == {"team": won.json()["community_platform_id"]}
    bound = await gateway.db.pool.fetch("SELECT community_platform_id FROM platform_bindings")
    assert [row[0] for row in bound] == [won.json()["community_platform_id"]]


async def test_config_of_the_driver_stays_and_a_new_install_renews(
    town: Driver, browser: Browser, gateway: Gateway, provider: OAuthProvider
) -> None:
    first = await installed(town, browser)
    path = f"/api/internal/plugin/crew/{first['instance']}"
    patched = await town.http.patch(path, json={"config": {"greeting": "hi"}}, headers=HEADER)
    assert patched.status_code == 200
    before = await generation(gateway)
    again = await installed(town, browser)
    assert again["instance"] == first["instance"]
    (instance,) = await instances(town)
    assert instance["config"] == {"team": "T1", "greeting": "hi"}
    assert await generation(gateway) == before + 1


async def test_an_instance_that_needs_auth_goes_on_after_a_new_install(
    town: Driver, browser: Browser, gateway: Gateway, provider: OAuthProvider, drains: Drains
) -> None:
    first = await installed(town, browser)
    await refuse(gateway, town, provider)
    assert (await instances(town))[0]["status"] == "needs_auth"
    types = [event["event_type"] for event in (await town.get("events")).json()["events"]]
    assert types == ["instance.needs_auth"]
    assert (await installed(town, browser))["instance"] == first["instance"]
    assert (await instances(town))[0]["status"] == "enabled"
    assert (await town.act("crew.whoami")).json() == {"team": "T1"}


async def test_disabling_revokes_and_a_new_install_enables_again(
    town: Driver, browser: Browser, gateway: Gateway, provider: OAuthProvider
) -> None:
    first = await installed(town, browser)
    LOG.clear()
    path = f"/api/internal/plugin/crew/{first['instance']}"
    disabled = await town.http.patch(path, json={"enabled": False}, headers=HEADER)
    assert disabled.json()["status"] == "disabled"
    assert provider.revoked == provider.issued
    assert LOG == ["teardown of T1"]
    assert await gateway.db.pool.fetchval("SELECT count(*) FROM credentials") == 0
    assert (await installed(town, browser))["instance"] == first["instance"]
    assert (await town.act("crew.whoami")).json() == {"team": "T1"}


@pytest.mark.parametrize("how", ["instance", "plugins", "community"])
async def test_removing_revokes_also_while_the_platform_is_away(
    town: Driver, browser: Browser, gateway: Gateway, provider: OAuthProvider, how: str
) -> None:
    first = await installed(town, browser)
    if how == "instance":
        path = f"/api/internal/plugin/crew/{first['instance']}"
        assert (await town.http.delete(path, headers=HEADER)).status_code == 204
    elif how == "plugins":
        assert (await town.put("town", plugins=[])).status_code == 200
    else:
        assert (await town.http.delete("/api/internal/community/town")).status_code == 204
    assert provider.revoked == provider.issued
    assert await gateway.db.pool.fetchval("SELECT count(*) FROM credentials") == 0


async def test_what_cannot_be_revoked_stops_nothing(
    town: Driver, browser: Browser, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: object, token: object) -> None:
        raise ZeroDivisionError

    await installed(town, browser)
    monkeypatch.setattr("tests.support.oauth_probe.CrewOAuth.revoke", fail)
    assert (await town.http.delete("/api/internal/community/town")).status_code == 204
    assert await gateway.db.pool.fetchval("SELECT count(*) FROM credentials") == 0


async def test_a_workspace_that_two_communities_have_is_revoked_by_the_last(
    town: Driver, browser: Browser, provider: OAuthProvider
) -> None:
    assert (await town.put("village")).status_code == 201
    await installed(town, browser)
    await installed(town, browser, community="village")
    assert (await town.http.delete("/api/internal/community/town")).status_code == 204
    assert provider.revoked == []
    assert (await town.act("crew.whoami", slug="village")).json() == {"team": "T1"}
    assert (await town.http.delete("/api/internal/community/village")).status_code == 204
    assert provider.revoked == provider.issued[-1:]


async def test_a_setup_that_fails_leaves_nothing_and_the_code_good(
    town: Driver, browser: Browser, gateway: Gateway
) -> None:
    code = (await browser.install())["code"]
    BEHAVIOUR["setup"] = Rejected("no such scope")
    assert problem(await exchange(town, code), 502)["detail"] == "crew: no such scope"
    BEHAVIOUR["setup"] = Retry("busy")
    assert (await exchange(town, code)).status_code == 503
    for table in ("instances", "credentials", "platform_bindings", "linked_accounts"):
        assert await gateway.db.pool.fetchval(f"SELECT count(*) FROM {table}") == 0, table
    BEHAVIOUR.clear()
    assert (await exchange(town, code)).status_code == 200


async def test_a_failed_first_install_makes_no_community(town: Driver, browser: Browser, gateway: Gateway) -> None:
    code = (await browser.install(community=""))["code"]
    BEHAVIOUR["setup"] = Rejected("no")
    assert (await exchange(town, code)).status_code == 502
    assert await gateway.db.pool.fetchval("SELECT count(*) FROM communities") == 1
    BEHAVIOUR.clear()
    made = await exchange(town, code)
    assert made.status_code == 200
    assert await gateway.db.pool.fetchval("SELECT count(*) FROM communities") == 2


async def test_the_community_was_deleted_before_the_exchange(town: Driver, browser: Browser) -> None:
    code = (await browser.install())["code"]
    assert (await town.http.delete("/api/internal/community/town")).status_code == 204
    assert (await exchange(town, code)).status_code == 404


async def test_an_instance_without_a_workspace_becomes_the_installs(town: Driver, browser: Browser) -> None:
    put = await town.put("town", plugins=[{"name": "crew", "config": {"greeting": "hi"}}])
    (instance,) = put.json()["plugins"]
    assert (await installed(town, browser))["instance"] == instance["id"]
    (after,) = await instances(town)
    assert (after["community_platform_id"], after["config"]) == ("T1", {"team": "T1", "greeting": "hi"})


async def test_a_person_signs_in(town: Driver, browser: Browser, provider: OAuthProvider) -> None:
    app = await installed(town, browser)
    provider.knobs.user = "U7"
    answer = await installed(town, browser, type="user")
    user = answer.pop("user")
    assert answer == {
        "plugin": "crew",
        "type": "user",
        "community": "town",
        "community_platform_id": "T1",
        "instance": app["instance"],
        "scopes": ["chat", "read"],
    }
    assert (user["user_id"], user["provider"], user["name"]) == ("U7", "crew", "Ada")
    linked = await town.http.get("/api/internal/identity/get_user", params={"external_id": user["external_id"]})
    (account,) = linked.json()["linked_accounts"]
    assert (account["platform_identifier"], account["community_platform_id"]) == ("U7", "T1")
    assert (account["link_type"], account["link_quality"]) == ("oauth", "confirmed (strong)")
    assert account["custom_data"] == {"name": "Ada"}


async def test_a_person_of_another_workspace_does_not(
    town: Driver, browser: Browser, provider: OAuthProvider, gateway: Gateway
) -> None:
    await installed(town, browser)
    provider.knobs.team = "T2"
    assert (await browser.install(type="user"))["error"] == "wrong_workspace"
    assert await gateway.db.pool.fetchval("SELECT count(*) FROM linked_accounts WHERE platform_identifier='U7'") == 0


async def test_a_login_after_the_plugin_was_disabled(town: Driver, browser: Browser) -> None:
    app = await installed(town, browser)
    code = (await browser.install(type="user"))["code"]
    path = f"/api/internal/plugin/crew/{app['instance']}"
    await town.http.patch(path, json={"enabled": False}, headers=HEADER)
    assert (await exchange(town, code)).status_code == 404


@pytest.mark.parametrize("body", [{}, {"code": ""}, {"code": 7}, {"code": "x" * 201}, {"code": "x", "more": 1}])
async def test_a_body_that_is_none(town: Driver, body: dict[str, Any]) -> None:
    answer: httpx.Response = await town.http.post("/api/internal/oauth/exchange", json=body)
    assert answer.status_code == 422


async def test_the_exchange_needs_a_key(browser: Browser, town: Driver) -> None:
    code = (await browser.install())["code"]
    assert (await browser.gateway.post("/api/internal/oauth/exchange", json={"code": code})).status_code == 401
    assert (await exchange(town, code)).status_code == 200
