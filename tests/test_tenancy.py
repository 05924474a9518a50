"""Two drivers: each is to the other as if it did not exist."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from typing import Any

import httpx
import pytest

from app.worker import Drains
from tests.conftest import PROBE_SECRET, Driver
from tests.support.problems import problem
from tests.support.sink import Sink

PROBE = {"name": "probe", "config": {"label": "a", "webhook_secret": "mine"}}


@pytest.fixture
async def theirs(other_driver: Driver, anonymous: httpx.AsyncClient, sink: Sink) -> dict[str, Any]:
    """The other driver's community "city", with one of everything; returns its ids."""
    instance = (await other_driver.put("city", plugins=[PROBE])).json()["plugins"][0]
    process = (await other_driver.post("process/probe.vote", {"title": "q"}, slug="city")).json()
    endpoint = (await other_driver.http.post("/api/internal/driver/endpoints", json={"url": sink.url})).json()
    signature = hmac.new(b"mine", b"{}", hashlib.sha256).hexdigest()
    hook = await anonymous.post("/api/hooks/city/probe", content=b"{}", headers={"X-Signature": f"sha256={signature}"})
    assert hook.status_code == 202
    receipt = (await other_driver.get("receipts", slug="city")).json()["receipts"][0]
    return {"instance": instance["id"], "process": process["id"], "endpoint": endpoint["id"], "receipt": receipt["id"]}


@pytest.mark.parametrize("own", [True, False], ids=["from an own community", "with no community"])
async def test_foreign_ids_are_404(driver: Driver, theirs: dict[str, Any], own: bool) -> None:
    header = {"X-Metagov-Community": "town"} if own else {}
    if own:
        await driver.put(plugins=[PROBE])
        calls: list[tuple[str, str, Any]] = [
            ("GET", f"plugin/probe/{theirs['instance']}", None),
            ("PATCH", f"plugin/probe/{theirs['instance']}", {"enabled": False}),
            ("PATCH", f"plugin/probe/{theirs['instance']}", {"config": {"label": "b"}}),
            ("DELETE", f"plugin/probe/{theirs['instance']}", None),
            ("GET", f"process/probe.vote/{theirs['process']}", None),
            ("DELETE", f"process/probe.vote/{theirs['process']}", None),
        ]
    else:
        calls = [
            ("GET", f"receipts/{theirs['receipt']}", None),
            ("GET", f"driver/endpoints/{theirs['endpoint']}", None),
            ("PATCH", f"driver/endpoints/{theirs['endpoint']}", {"status": "disabled"}),
            ("DELETE", f"driver/endpoints/{theirs['endpoint']}", None),
            ("GET", "community/city", None),
            ("DELETE", "community/city", None),
            ("GET", "community/city/hooks", None),
        ]
    for method, path, body in calls:
        foreign = await driver.http.request(method, f"/api/internal/{path}", json=body, headers=header)
        document = problem(foreign, 404)
        unknown_path = path
        for known in (*theirs.values(), "city"):
            unknown_path = unknown_path.replace(known, "nonesuch")
        unknown = await driver.http.request(method, f"/api/internal/{unknown_path}", json=body, headers=header)
        said = str(document).replace(path.rsplit("/", 1)[-1], "nonesuch")
        assert said == str(problem(unknown, 404)), (method, path)


async def test_nothing_of_it_has_changed(driver: Driver, other_driver: Driver, theirs: dict[str, Any]) -> None:
    before = (await other_driver.http.get("/api/internal/community/city")).json()
    await test_foreign_ids_are_404(driver, theirs, True)
    await test_foreign_ids_are_404(driver, theirs, False)
    assert (await other_driver.http.get("/api/internal/community/city")).json() == before
    vote = await other_driver.get(f"process/probe.vote/{theirs['process']}", slug="city")
    assert vote.json()["status"] == "pending"
    endpoint = (await other_driver.http.get(f"/api/internal/driver/endpoints/{theirs['endpoint']}")).json()
    assert endpoint["status"] == "enabled"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/internal/plugin", None),
        ("POST", "/api/internal/plugin/probe", {"label": "x"}),
        ("POST", "/api/action/probe.count", {}),
        ("POST", "/api/internal/action/probe.count", {}),
        ("POST", "/api/internal/process/probe.vote", {}),
        ("GET", "/api/internal/process", None),
        ("GET", "/api/internal/receipts", None),
    ],
)
async def test_a_foreign_community_in_the_header_is_as_an_unknown_one(
    driver: Driver, theirs: dict[str, Any], method: str, path: str, body: Any
) -> None:
    answers = [
        await driver.http.request(method, path, json=body, headers={"X-Metagov-Community": slug})
        for slug in ("city", "nonesuch")
    ]
    for answer in answers:
        assert "X-Metagov-Community" in problem(answer, 400)["detail"]
    assert answers[0].content == answers[1].content
    assert set(answers[0].headers) == set(answers[1].headers)
    missing = await driver.http.request(method, path, json=body)
    assert "X-Metagov-Community" in problem(missing, 400)["detail"]
    assert "missing" in missing.json()["detail"]


@pytest.mark.parametrize("own", [True, False], ids=["with an own person", "with nobody"])
async def test_foreign_people_are_as_unknown_ones(driver: Driver, other_driver: Driver, own: bool) -> None:
    """Neither a MetagovID nor a community of another driver's can be told from one that is not there."""
    base = "/api/internal/identity"
    account = {"platform_type": "probe", "platform_identifier": "u1"}
    await other_driver.put("city")
    theirs = (await other_driver.http.post(f"{base}/create_id", json={"community_slug": "city"})).json()[0]
    linking = {"external_id": theirs, "community_slug": "city", **account}
    linked = (await other_driver.http.post(f"{base}/link_account", json=linking)).json()
    await driver.put("town")
    mine = "mid_none"
    if own:
        mine = (await driver.http.post(f"{base}/create_id", json={"community_slug": "town"})).json()[0]
    calls: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "create_id", {"community_slug": "city"}),
        ("POST", "merge_ids", {"primary_instance_id": theirs, "secondary_instance_id": mine}),
        ("POST", "merge_ids", {"primary_instance_id": mine, "secondary_instance_id": theirs}),
        ("POST", "link_account", {**linking, "force": True}),
        ("POST", "link_account", {**linking, "community_slug": "town", "force": True}),
        ("POST", "link_account", {**linking, "external_id": mine, "force": True}),
        ("POST", "unlink_account", linking),
        ("POST", "unlink_account", {**linking, "community_slug": "town"}),
        ("GET", "get_user", {"external_id": theirs}),
        ("GET", "get_users", {"community": "city"}),
        ("GET", "get_users", {"community": "city", **account}),
        ("GET", "filter_users_by_account", {"external_id_list": f"{mine},{theirs}" if own else theirs}),
        ("GET", "get_linked_account", {"external_id": theirs, "platform_type": "probe"}),
    ]
    for method, call, said in calls:
        answers = []
        for known in ({}, {theirs: "mid_unknown", "city": "nonesuch"}):
            values = json.loads(json.dumps(said))
            for name, value in values.items():
                for before, after in known.items():
                    values[name] = value.replace(before, after) if isinstance(value, str) else value
                    value = values[name]
            sent = {"json": values} if method == "POST" else {"params": values}
            answer = await driver.http.request(method, f"{base}/{call}", **sent)
            answers.append(str(problem(answer, 404)).replace(theirs, "mid_unknown"))
        assert answers[0] == answers[1], (call, said)
    user = (await other_driver.http.get(f"{base}/get_user", params={"external_id": theirs})).json()
    assert user == {"source_ID": theirs, "primary_ID": theirs, "linked_accounts": [linked]}


async def test_lists_show_ones_own(driver: Driver, theirs: dict[str, Any], drains: Drains) -> None:
    await drains.until_idle()
    await driver.put(plugins=[PROBE])
    assert [c["slug"] for c in (await driver.http.get("/api/internal/community")).json()["communities"]] == ["town"]
    assert (await driver.get("process")).json()["processes"] == []
    assert (await driver.get("receipts")).json()["receipts"] == []
    assert (await driver.http.get("/api/internal/driver/endpoints")).json()["endpoints"] == []
    for query in ({}, {"community": "city"}, {"source": "probe"}):
        assert (await driver.http.get("/api/internal/events", params=query)).json()["events"] == []


async def test_a_cursor_of_anothers_list_leads_nowhere(
    driver: Driver, other_driver: Driver, theirs: dict[str, Any]
) -> None:
    for slug in ("a-town", "z-town"):
        await other_driver.put(slug)
    page = (await other_driver.http.get("/api/internal/community", params={"limit": 1})).json()
    answer = await driver.http.get("/api/internal/community", params={"after": page["next"]})
    assert answer.json() == {"communities": [], "next": None}


async def test_slugs_are_taken_for_good(driver: Driver, other_driver: Driver) -> None:
    await other_driver.put("city", plugins=[PROBE])
    for _ in range(2):
        problem(await driver.put("city"), 409, "slug-taken")
        problem(await driver.put("city", plugins=[]), 409, "slug-taken")
        problem(await driver.http.post("/api/internal/community", json={"slug": "city"}), 409, "slug-taken")
        await other_driver.http.delete("/api/internal/community/city")
    assert (await other_driver.put("city")).status_code == 201


async def test_two_drivers_race_for_a_slug(driver: Driver, other_driver: Driver) -> None:
    answers = await asyncio.gather(*(one.put("race") for one in (driver, other_driver) * 10))
    winners = {index % 2 for index, answer in enumerate(answers) if answer.is_success}
    assert len(winners) == 1
    for index, answer in enumerate(answers):
        if index % 2 not in winners:
            problem(answer, 409, "slug-taken")


async def test_events_reach_their_own_driver_only(
    driver: Driver, other_driver: Driver, theirs: dict[str, Any], sink: Sink, drains: Drains
) -> None:
    """Even an endpoint that names another driver's community gets nothing of it."""
    await drains.until_idle()
    sink.posts.clear()
    spy = {"url": f"{sink.url}/spy", "communities": ["city"], "events": ["*"]}
    assert (await driver.http.post("/api/internal/driver/endpoints", json=spy)).status_code == 201
    await other_driver.act("probe.echo", {"text": "hello"}, slug="city")
    await drains.until_idle()
    assert [post.path for post in sink.posts] == ["/"]


async def test_the_shared_hook_url_reaches_no_unbound_claim(
    driver: Driver, other_driver: Driver, anonymous: httpx.AsyncClient, drains: Drains
) -> None:
    """A driver that names another's team with a secret of its own gets none of the team's webhooks."""
    problem(await driver.put(plugins=[{"name": "probe", "config": {"label": "a", "team": "T1"}}]), 422)
    claim = {"name": "probe", "config": {"label": "a", "team": "T1", "webhook_secret": "made up"}}
    assert (await driver.put(plugins=[claim])).status_code == 201
    body = b'{"text": "private"}'
    signature = hmac.new(PROBE_SECRET.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-Signature": f"sha256={signature}", "X-Team": "T1"}
    await anonymous.post("/api/hooks/probe", content=body, headers=headers)
    await drains.until_idle()
    assert (await driver.get("receipts")).json()["receipts"] == []
    assert (await driver.get("events", type="poked")).json()["events"] == []
