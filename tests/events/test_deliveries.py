"""Deliveries as drivers see them: lists, attempts, another try, recovery, CloudEvents, tests and secrets."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks import WebhookVerificationError

from app.gateway import Gateway
from app.worker import Drains
from tests.conftest import Driver
from tests.events.test_endpoints import PROBE, register
from tests.support.problems import problem
from tests.support.sink import Sink


async def listed(driver: Driver, **query: Any) -> list[dict[str, Any]]:
    answer = await driver.get("deliveries", **query)
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()["deliveries"]
    return rows


async def close_a_vote(driver: Driver, callback_url: str) -> None:
    """What a driver is called back for."""
    started = await driver.post("process/probe.vote", {"title": "q", "callback_url": callback_url})
    closed = await driver.http.delete(started.headers["location"], headers={"X-Metagov-Community": "town"})
    assert closed.status_code == 200, closed.text


async def test_deliveries_are_listed_with_their_attempts(
    driver: Driver, other_driver: Driver, drains: Drains, sink: Sink
) -> None:
    sink.answer = lambda posted: web.Response(status=500 if posted.path == "/bad" else 200, text="thanks")
    await driver.put(plugins=[PROBE])
    good = await register(driver, f"{sink.url}/good")
    bad = await register(driver, f"{sink.url}/bad")
    await driver.act("probe.echo", {"text": "hi"})
    (before, _) = await listed(driver)
    assert (before["status"], before["attempts"]) == ("pending", 0)
    await drains.until_idle()
    (event,) = (await driver.get("events")).json()["events"]
    (delivered,) = await listed(driver, status="delivered")
    assert delivered == {
        "id": delivered["id"],
        "endpoint": good["id"],
        "event_id": event["id"],
        "status": "delivered",
        "attempts": 1,
        "next_at": None,
    }
    (waiting,) = await listed(driver, endpoint=bad["id"])
    assert (waiting["status"], waiting["attempts"]) == ("pending", 1)
    assert datetime.fromisoformat(waiting["next_at"]) > datetime.now(UTC)
    (attempt,) = (await driver.get(f"deliveries/{waiting['id']}/attempts")).json()["attempts"]
    assert (attempt["status"], attempt["error"], attempt["response_text"]) == (500, None, "thanks")
    assert attempt["latency_ms"] >= 0
    assert await listed(other_driver) == []
    assert await listed(other_driver, endpoint=bad["id"]) == []
    for method, path in (("GET", "attempts"), ("POST", "retry")):
        for delivery_id in (waiting["id"], "dlv_none"):
            url = f"/api/internal/deliveries/{delivery_id}/{path}"
            problem(await other_driver.http.request(method, url), 404)


async def test_pages_of_deliveries_and_attempts(driver: Driver, drains: Drains, sink: Sink) -> None:
    sink.answer = lambda _: web.Response(status=500)
    await driver.put(plugins=[PROBE])
    await register(driver, sink.url)
    for number in range(3):
        await driver.act("probe.echo", {"text": str(number)})
    first = (await driver.get("deliveries", limit=2)).json()
    rest = (await driver.get("deliveries", limit=2, after=first["next"])).json()
    found = [row["id"] for row in first["deliveries"] + rest["deliveries"]]
    assert found == sorted(set(found), reverse=True)
    assert (len(found), rest["next"]) == (3, None)
    for _ in range(3):
        assert (await driver.post(f"deliveries/{found[0]}/retry")).status_code == 202
        await drains.until_idle()
    path = f"deliveries/{found[0]}/attempts"
    first = (await driver.get(path, limit=2)).json()
    rest = (await driver.get(path, limit=2, after=first["next"])).json()
    times = [row["at"] for row in first["attempts"] + rest["attempts"]]
    assert len(times) == 3
    assert times == sorted(times)
    problem(await driver.get("deliveries", after=first["next"]), 422)


async def test_a_dead_delivery_is_tried_again(driver: Driver, drains: Drains, sink: Sink, gateway: Gateway) -> None:
    sink.answer = lambda _: web.Response(status=500)
    await driver.put(plugins=[PROBE])
    await register(driver, sink.url)
    await driver.act("probe.echo", {"text": "hi"})
    await gateway.db.pool.execute("UPDATE deliveries SET attempt = 9")
    await drains.until_idle()
    (dead,) = await listed(driver, status="dead")
    assert dead["next_at"] is None
    await drains.until_idle()
    assert len(sink.posts) == 1
    answer = await driver.post(f"deliveries/{dead['id']}/retry")
    assert answer.status_code == 202
    assert [row["status"] for row in await listed(driver)] == ["pending"]
    await drains.until_idle()
    (row,) = await listed(driver)
    assert (row["status"], row["attempts"]) == ("pending", 2), "it has its whole schedule before it again"
    sink.answer = lambda _: web.Response(status=204)
    await driver.post(f"deliveries/{dead['id']}/retry")
    await drains.until_idle()
    assert [row["status"] for row in await listed(driver)] == ["delivered"]
    assert len({posted.headers["webhook-id"] for posted in sink.posts}) == 1


async def test_callback_deliveries_are_the_drivers_own(driver: Driver, drains: Drains, sink: Sink) -> None:
    await driver.put(plugins=[PROBE])
    await close_a_vote(driver, f"{sink.url}/called")
    await drains.until_idle()
    assert {row["status"] for row in await listed(driver)} == {"delivered"}
    assert {posted.path for posted in sink.posts} == {"/called"}


async def test_recover_makes_due_exactly_what_failed(
    driver: Driver, drains: Drains, sink: Sink, gateway: Gateway
) -> None:
    await driver.put(plugins=[PROBE])
    endpoint = await register(driver, f"{sink.url}/one")
    other = await register(driver, f"{sink.url}/two")
    for number in range(4):
        await driver.act("probe.echo", {"text": str(number)})
    await drains.until_idle()
    rows = sorted(row["id"] for row in await listed(driver, endpoint=endpoint["id"]))
    pool = gateway.db.pool
    await pool.execute(
        "UPDATE deliveries SET status = 'dead', attempt = 10 WHERE id = $1 OR endpoint_id = $2", rows[0], other["id"]
    )
    await pool.execute(
        "UPDATE deliveries SET status = 'pending', attempt = 6, next_at = now() + interval '2 hours' WHERE id = $1",
        rows[1],
    )
    await pool.execute(
        "UPDATE deliveries SET status = 'dead', created_at = now() - interval '2 days' WHERE id = $1", rows[2]
    )
    await pool.execute(
        "UPDATE deliveries SET status = 'pending', attempt = 2, next_at = now() - interval '1 second', "
        "lease_until = now() + interval '1 hour' WHERE id = $1",
        rows[3],
    )
    sink.posts.clear()
    path = f"driver/endpoints/{endpoint['id']}/recover"
    since = {"since": (datetime.now(UTC) - timedelta(hours=1)).isoformat()}
    answers = await asyncio.gather(*(driver.post(path, since) for _ in range(4)))
    assert {answer.status_code for answer in answers} == {202}
    assert sorted(answer.json()["recovered"] for answer in answers) == [0, 0, 0, 2]
    await drains.until_idle()
    assert [posted.path for posted in sink.posts] == ["/one", "/one"]
    assert (await driver.post(path, since)).json() == {"recovered": 0}
    assert [row["id"] for row in await listed(driver, endpoint=endpoint["id"], status="dead")] == [rows[2]]
    problem(await driver.post(path, {"since": "yesterday"}), 422)


async def test_cloudevents_are_posted_signed(driver: Driver, drains: Drains, sink: Sink) -> None:
    await driver.put(plugins=[PROBE])
    endpoint = await register(driver, sink.url, format="cloudevents")
    await driver.act("probe.echo", {"text": "hi"})
    await drains.until_idle()
    (posted,) = sink.posts
    (event,) = (await driver.get("events")).json()["events"]
    assert posted.headers["content-type"] == "application/cloudevents+json"
    assert posted.headers["webhook-id"] == event["id"]
    cloud = posted.verify(endpoint["secret"])
    assert (
        cloud.items()
        >= {
            "specversion": "1.0",
            "id": event["id"],
            "source": "/communities/town/probe",
            "type": "probe.poked",
            "time": event["timestamp"],
            "datacontenttype": "application/json",
            "data": {"text": "hi"},
            "community": "town",
            "instance": event["instance"],
        }.items()
    )
    names = cloud.keys() - {"data"}
    assert all(name.isalnum() and name == name.lower() and len(name) <= 20 for name in names)
    assert all(isinstance(cloud[name], str | bool) for name in names)


async def test_a_test_event_goes_to_its_endpoint_alone(
    driver: Driver, other_driver: Driver, drains: Drains, sink: Sink
) -> None:
    endpoint = await register(driver, f"{sink.url}/tested", events=["github.*"])
    await register(driver, f"{sink.url}/other")
    path = f"driver/endpoints/{endpoint['id']}"
    problem(await other_driver.post(f"{path}/test"), 404)
    assert (await driver.post(f"{path}/test")).status_code == 202
    await drains.until_idle()
    (posted,) = sink.posts
    assert posted.path == "/tested"
    event = posted.verify(endpoint["secret"])
    assert (event["source"], event["event_type"]) == ("metagov", "test")
    await driver.http.patch(f"/api/internal/{path}", json={"status": "disabled"})
    problem(await driver.post(f"{path}/test"), 409)


async def test_switching_an_endpoint_is_an_event_for_the_others(driver: Driver, drains: Drains, sink: Sink) -> None:
    endpoint = await register(driver, f"{sink.url}/switched")
    await register(driver, f"{sink.url}/watching")
    path = f"/api/internal/driver/endpoints/{endpoint['id']}"
    for status in ("disabled", "disabled", "enabled"):
        await driver.http.patch(path, json={"status": status})
        await drains.until_idle()
    seen = [(posted.path, posted.json["event_type"], posted.json["data"]["endpoint"]) for posted in sink.posts]
    assert seen[0] == ("/watching", "endpoint.disabled", endpoint["id"])
    assert sorted(seen[1:]) == [(where, "endpoint.enabled", endpoint["id"]) for where in ("/switched", "/watching")]


async def test_gone_is_told_once_to_the_others(driver: Driver, drains: Drains, sink: Sink) -> None:
    sink.answer = lambda posted: web.Response(status=410 if posted.path == "/gone" else 204)
    await driver.put(plugins=[PROBE])
    endpoint = await register(driver, f"{sink.url}/gone")
    await register(driver, f"{sink.url}/watching", events=["metagov.endpoint.*"])
    for number in range(3):
        await driver.act("probe.echo", {"text": str(number)})
    await drains.until_idle()
    (told,) = [posted.json for posted in sink.posts if posted.path == "/watching"]
    assert (told["event_type"], told["data"]["endpoint"]) == ("endpoint.disabled", endpoint["id"])
    assert "410" in told["data"]["reason"]


@pytest.mark.parametrize("callback", [False, True], ids=["an endpoint's", "the driver's"])
async def test_a_rotated_secret_overlaps_for_a_day(
    driver: Driver, other_driver: Driver, drains: Drains, sink: Sink, gateway: Gateway, callback: bool
) -> None:
    await driver.put(plugins=[PROBE])
    if callback:
        path, table, old = "driver/rotate-secret", "drivers", driver.signing_secret
    else:
        endpoint = await register(driver, sink.url)
        path, table, old = f"driver/endpoints/{endpoint['id']}/rotate-secret", "endpoints", endpoint["secret"]
        problem(await other_driver.post(path), 404)

    async def cause() -> None:
        sink.posts.clear()
        if callback:
            await close_a_vote(driver, sink.url)
        else:
            await driver.act("probe.echo", {"text": "hi"})
        await drains.until_idle()
        assert sink.posts

    new = (await driver.post(path)).json()["secret"]
    assert new.startswith("whsec_")
    assert new != old
    await cause()
    for posted in sink.posts:
        assert len(posted.headers["webhook-signature"].split(" ")) == 2
        assert posted.verify(old) == posted.verify(new)
    await gateway.db.pool.execute(f"UPDATE {table} SET previous_until = previous_until - interval '24 hours'")
    await cause()
    for posted in sink.posts:
        posted.verify(new)
        with pytest.raises(WebhookVerificationError):
            posted.verify(old)
