"""Endpoints, and what is delivered to them."""

from __future__ import annotations

import pytest
from aiohttp import web

from app.gateway import Gateway
from app.worker import Drains
from tests.conftest import Driver
from tests.support.sink import Sink

PROBE = {"name": "probe", "config": {"label": "a"}}


async def register(driver: Driver, url: str, **wanted: object) -> dict[str, str]:
    answer = await driver.http.post("/api/internal/driver/endpoints", json={"url": url, **wanted})
    assert answer.status_code == 201, answer.text
    made: dict[str, str] = answer.json()
    return made


async def test_an_event_is_posted_signed_and_once(driver: Driver, drains: Drains, sink: Sink) -> None:
    await driver.put(plugins=[PROBE])
    endpoint = await register(driver, f"{sink.url}/events")
    await driver.act("probe.echo", {"text": "hi"})
    await drains.until_idle()
    await drains.until_idle()
    (posted,) = sink.posts
    event = posted.verify(endpoint["secret"])
    assert (event["source"], event["event_type"], event["data"]) == ("probe", "poked", {"text": "hi"})
    assert posted.headers["webhook-id"] == event["id"]
    assert "." not in event["id"]
    assert event == (await driver.get("events")).json()["events"][0]


async def test_a_changed_byte_breaks_the_signature(driver: Driver, drains: Drains, sink: Sink) -> None:
    await driver.put(plugins=[PROBE])
    endpoint = await register(driver, sink.url)
    await driver.act("probe.echo", {"text": "hi"})
    await drains.until_idle()
    sink.posts[0].body = sink.posts[0].body.replace(b"hi", b"ho")
    with pytest.raises(Exception, match="signature"):
        sink.posts[0].verify(endpoint["secret"])


async def test_filters_choose_events_and_communities(driver: Driver, drains: Drains, sink: Sink) -> None:
    await driver.put("town", plugins=[PROBE])
    await driver.put("village", plugins=[PROBE])
    await register(driver, f"{sink.url}/none", events=["github.*"])
    await register(driver, f"{sink.url}/glob", events=["probe.pok*"])
    await register(driver, f"{sink.url}/village", communities=["village"])
    await driver.act("probe.echo", {"text": "t"}, slug="town")
    await driver.act("probe.echo", {"text": "v"}, slug="village")
    await drains.until_idle()
    assert sorted((post.path, post.json["data"]["text"]) for post in sink.posts) == [
        ("/glob", "t"),
        ("/glob", "v"),
        ("/village", "v"),
    ]


async def test_another_drivers_endpoint_hears_nothing(
    driver: Driver, other_driver: Driver, drains: Drains, sink: Sink
) -> None:
    await driver.put(plugins=[PROBE])
    await register(other_driver, sink.url)
    await driver.act("probe.echo", {"text": "private"})
    await drains.until_idle()
    assert sink.posts == []
    assert (await other_driver.get("events")).json()["events"] == []


async def test_a_failed_delivery_is_tried_again_with_the_same_id(
    driver: Driver, drains: Drains, sink: Sink, gateway: Gateway
) -> None:
    answers = iter([500, 204])
    sink.answer = lambda _: web.Response(status=next(answers))
    await driver.put(plugins=[PROBE])
    endpoint = await register(driver, sink.url)
    await driver.act("probe.echo", {"text": "hi"})
    await drains.until_idle()
    assert len(sink.posts) == 1
    wait = await gateway.db.pool.fetchval("SELECT extract(epoch FROM next_at - now()) FROM deliveries")
    assert 2 < wait <= 6, "the first retry comes five seconds later, give or take a fifth"
    await gateway.db.pool.execute("UPDATE deliveries SET next_at = now()")
    await drains.until_idle()
    first, second = sink.posts
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    second.verify(endpoint["secret"])
    statuses = await gateway.db.pool.fetch("SELECT status FROM attempts ORDER BY at")
    assert [row["status"] for row in statuses] == [500, 204]
    assert await gateway.db.pool.fetchval("SELECT status FROM deliveries") == "delivered"


async def test_gone_disables_the_endpoint(driver: Driver, drains: Drains, sink: Sink) -> None:
    sink.answer = lambda _: web.Response(status=410)
    await driver.put(plugins=[PROBE])
    endpoint = await register(driver, sink.url)
    await driver.act("probe.echo", {"text": "hi"})
    await drains.until_idle()
    shown = (await driver.get(f"driver/endpoints/{endpoint['id']}")).json()
    assert shown["status"] == "disabled"
    assert "410" in shown["disabled_reason"]
    await driver.act("probe.echo", {"text": "more"})
    await drains.until_idle()
    assert len(sink.posts) == 1


async def test_redirects_are_not_followed(driver: Driver, drains: Drains, sink: Sink) -> None:
    sink.answer = lambda _: web.Response(status=302, headers={"location": f"{sink.url}/elsewhere"})
    await driver.put(plugins=[PROBE])
    await register(driver, f"{sink.url}/here")
    await driver.act("probe.echo", {"text": "hi"})
    await drains.until_idle()
    assert [post.path for post in sink.posts] == ["/here"]


async def test_endpoints_are_listed_changed_and_removed(driver: Driver, sink: Sink) -> None:
    made = [await register(driver, f"{sink.url}/{number}") for number in range(3)]
    first = (await driver.get("driver/endpoints", limit=2)).json()
    rest = (await driver.get("driver/endpoints", limit=2, after=first["next"])).json()
    assert [row["id"] for row in first["endpoints"] + rest["endpoints"]] == [row["id"] for row in made]
    assert rest["next"] is None
    assert "secret" not in first["endpoints"][0]
    path = f"/api/internal/driver/endpoints/{made[0]['id']}"
    changed = (await driver.http.patch(path, json={"events": ["probe.*"], "status": "disabled"})).json()
    assert (changed["events"], changed["status"]) == (["probe.*"], "disabled")
    assert (await driver.http.patch(path, json={"status": "enabled"})).json()["disabled_reason"] is None
    assert (await driver.http.delete(path)).status_code == 204
    assert (await driver.http.get(path)).status_code == 404


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/",
        "http://user:pw@example.org/",
        "nonsense",
        "http://169.254.169.254/",
        "http://[::ffff:a9fe:a9fe]/",
    ],
)
async def test_an_endpoint_we_would_never_post_to_is_refused(driver: Driver, url: str) -> None:
    answer = await driver.http.post("/api/internal/driver/endpoints", json={"url": url})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/url"
