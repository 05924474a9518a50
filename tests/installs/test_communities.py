"""PUT, POST, GET, list and DELETE of communities."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import Driver
from tests.support.problems import pointers, problem

DICE = {"name": "randomness", "config": {"default_low": 1, "default_high": 6}}
PROBE = {"name": "probe", "config": {"label": "a"}}


def statuses(community: Any) -> dict[str, str]:
    return {plugin["name"]: plugin["status"] for plugin in community["plugins"]}


async def test_put_creates_then_updates(driver: Driver) -> None:
    created = await driver.put(name="town", readable_name="Town", plugins=[DICE])
    assert created.status_code == 201
    body = created.json()
    (dice,) = body.pop("plugins")
    assert body == {"slug": "town", "name": "town", "readable_name": "Town"}
    assert dice.pop("id").isascii()
    assert dice == {
        "name": "randomness",
        "config": {"default_low": 1, "default_high": 6},
        "community": "town",
        "community_platform_id": None,
        "auth_type": "none",
        "status": "enabled",
    }
    updated = await driver.put(readable_name="Village")
    assert updated.status_code == 200
    assert updated.json()["readable_name"] == "Village"
    assert (await driver.http.get("/api/internal/community/town")).json() == updated.json()


async def test_put_without_plugins_leaves_them_alone(driver: Driver) -> None:
    before = (await driver.put(plugins=[DICE, PROBE])).json()["plugins"]
    assert (await driver.put(readable_name="other")).json()["plugins"] == before
    assert (await driver.put(plugins=None)).json()["plugins"] == before
    null = await driver.http.put("/api/internal/community/town", json={"readable_name": "t", "plugins": None})
    assert null.json()["plugins"] == before


async def test_put_with_plugins_sets_the_whole_set(driver: Driver) -> None:
    first = (await driver.put(plugins=[DICE, PROBE])).json()
    second = (await driver.put(plugins=[DICE])).json()
    assert statuses(second) == {"randomness": "enabled", "probe": "disabled"}
    assert problem(await driver.act("probe.read"), 404)
    assert (await driver.act("randomness.random-int")).status_code == 200
    none = (await driver.put(plugins=[])).json()
    assert statuses(none) == {"randomness": "disabled", "probe": "disabled"}
    back = (await driver.put(plugins=[DICE, PROBE])).json()
    assert statuses(back) == {"randomness": "enabled", "probe": "enabled"}
    ids = [[plugin["id"] for plugin in body["plugins"]] for body in (first, back)]
    assert ids[0] == ids[1], "re-enabling revives the same instances"


async def test_a_disabled_plugin_is_news_for_its_driver(driver: Driver) -> None:
    made = (await driver.put(plugins=[DICE, PROBE])).json()["plugins"]
    probe = next(plugin for plugin in made if plugin["name"] == "probe")
    await driver.put(plugins=[DICE])
    await driver.put(plugins=[DICE])
    events = (await driver.get("events", source="metagov")).json()["events"]
    assert [(event["event_type"], event["instance"]) for event in events] == [("instance.disabled", probe["id"])]


async def test_one_invalid_config_leaves_everything_as_it_was(driver: Driver) -> None:
    await driver.put(readable_name="Town", plugins=[PROBE])
    before = (await driver.http.get("/api/internal/community/town")).json()
    wrong = {"name": "randomness", "config": {"default_low": "x", "default_high": 6}}
    answer = await driver.put(readable_name="New", plugins=[{"name": "probe", "config": {"label": "b"}}, wrong])
    assert pointers(answer) == ["/plugins/1/config/default_low"]
    assert (await driver.http.get("/api/internal/community/town")).json() == before


async def test_an_invalid_config_creates_no_community(driver: Driver, other_driver: Driver) -> None:
    answer = await driver.put(plugins=[DICE, {"name": "probe", "config": {"label": 1, "colour": "red"}}])
    assert pointers(answer) == ["/plugins/1/config/colour", "/plugins/1/config/label"]
    problem(await driver.http.get("/api/internal/community/town"), 404)
    assert (await other_driver.put()).status_code == 201, "the slug was not taken either"


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"name": "village"}, ["/name"]),
        ({"slug": "village"}, ["/slug"]),
        ({"plugins": [{"name": "nonesuch"}]}, ["/plugins/0/name"]),
        ({"plugins": [DICE, {"name": "probe"}]}, ["/plugins/1/config/label"]),
        ({"plugins": [DICE, DICE]}, ["/plugins/1"]),
        ({"plugins": [{"config": {}}]}, ["/plugins/0/name"]),
        ({"plugins": {}}, ["/plugins"]),
        ({"plugins": [{"name": "probe", "config": []}]}, ["/plugins/0/config"]),
        ({"readable_name": 1}, ["/readable_name"]),
        ({"readable_name": "x" * 201}, ["/readable_name"]),
        ({"pluggins": []}, ["/pluggins"]),
        ({"plugins": [{"name": "probe", "community_platform_id": ""}]}, ["/plugins/0/community_platform_id"]),
    ],
)
async def test_what_is_wrong_is_named(driver: Driver, body: dict[str, Any], where: list[str]) -> None:
    answer = await driver.http.put("/api/internal/community/town", json=body)
    assert pointers(answer) == where
    problem(await driver.http.get("/api/internal/community/town"), 404)


@pytest.mark.parametrize("slug", ["a b", "a.b", "ä", "x" * 65, "%00", "a%0A"])
async def test_slugs_are_plain(driver: Driver, slug: str) -> None:
    problem(await driver.http.put(f"/api/internal/community/{slug}", json={"readable_name": "x"}), 422)


async def test_post_creates_with_or_without_a_slug(driver: Driver) -> None:
    made = await driver.http.post("/api/internal/community", json={"readable_name": "Town", "plugins": [DICE]})
    assert made.status_code == 201
    slug = made.json()["slug"]
    assert (await driver.http.get(f"/api/internal/community/{slug}")).json() == made.json()
    other = await driver.http.post("/api/internal/community", json={"readable_name": "Town"})
    assert other.json()["slug"] != slug
    named = await driver.http.post("/api/internal/community", json={"slug": "town", "readable_name": "Town"})
    assert (named.status_code, named.json()["slug"]) == (201, "town")
    named = await driver.http.post("/api/internal/community", json={"name": "city", "readable_name": "City"})
    assert (named.status_code, named.json()["slug"]) == (201, "city")
    answer = await driver.http.post("/api/internal/community", json={"name": "a", "slug": "b", "readable_name": ""})
    assert pointers(answer) == ["/name"]


async def test_a_deleted_slug_stays_its_drivers(driver: Driver, other_driver: Driver) -> None:
    old = (await driver.put(plugins=[PROBE])).json()["plugins"][0]
    await driver.act("probe.count")
    gone = await driver.http.delete("/api/internal/community/town")
    assert (gone.status_code, gone.content) == (204, b"")
    for answer in (
        await driver.http.get("/api/internal/community/town"),
        await driver.http.get("/api/internal/community/town/hooks"),
        await driver.http.delete("/api/internal/community/town"),
    ):
        problem(answer, 404)
    problem(await driver.act("probe.read"), 400)
    assert (await driver.http.get("/api/internal/community")).json() == {"communities": [], "next": None}
    problem(await other_driver.put(), 409, "slug-taken")
    problem(await other_driver.http.post("/api/internal/community", json={"slug": "town"}), 409, "slug-taken")
    revived = await driver.put(plugins=[PROBE])
    assert revived.status_code == 201
    (new,) = revived.json()["plugins"]
    assert new["id"] != old["id"]
    assert (await driver.act("probe.read")).json() == {"count": 0}, "a revived community starts afresh"


async def test_a_revived_community_is_empty(driver: Driver) -> None:
    await driver.put(plugins=[PROBE])
    await driver.http.delete("/api/internal/community/town")
    assert (await driver.put()).json()["plugins"] == []


async def test_lists_have_pages(driver: Driver, other_driver: Driver) -> None:
    slugs = [f"town-{number}" for number in range(5)]
    for slug in slugs:
        await driver.put(slug, plugins=[DICE, PROBE])
    await other_driver.put("foreign")
    seen: list[str] = []
    after: dict[str, Any] = {}
    for size in (2, 2, 1):
        page = (await driver.http.get("/api/internal/community", params={"limit": 2, **after})).json()
        assert [len(page["communities"])] == [size]
        assert all(len(community["plugins"]) == 2 for community in page["communities"])
        seen += [community["slug"] for community in page["communities"]]
        after = {"after": page["next"]}
    assert seen == slugs
    assert after == {"after": None}
    exact = (await driver.http.get("/api/internal/community", params={"limit": 5})).json()
    assert (len(exact["communities"]), exact["next"]) == (5, None)


async def test_plugins_have_pages(driver: Driver) -> None:
    teams = [f"T{number}" for number in range(3)]
    plugins = [
        {"name": "probe", "config": {"label": t, "webhook_secret": "s"}, "community_platform_id": t} for t in teams
    ]
    await driver.put(plugins=plugins)
    first = (await driver.get("plugin", limit=2)).json()
    second = (await driver.get("plugin", limit=2, after=first["next"])).json()
    assert second["next"] is None
    listed = [plugin["community_platform_id"] for plugin in first["plugins"] + second["plugins"]]
    assert sorted(listed) == teams


async def test_hooks_are_those_of_enabled_plugins(driver: Driver) -> None:
    await driver.put(plugins=[DICE, PROBE])
    hooks = await driver.http.get("/api/internal/community/town/hooks")
    assert hooks.json() == {"hooks": ["/api/hooks/town/probe", "/api/hooks/town/probe/hint"]}
    await driver.put(plugins=[DICE])
    assert (await driver.http.get("/api/internal/community/town/hooks")).json() == {"hooks": []}
