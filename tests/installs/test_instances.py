"""Plugin instances: enable, change, disable, remove; which one is meant."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.gateway import Gateway
from app.runtime.models import PlatformBinding
from app.worker import Drains
from tests.conftest import Driver
from tests.support.problems import pointers, problem


def team(name: str, label: str = "a", **config: Any) -> dict[str, Any]:
    """A config that leans on nobody else's credentials."""
    return {"label": label, "team": name, "webhook_secret": f"secret of {name}", **config}


async def one(driver: Driver, instance: Any) -> Any:
    answer = await driver.get(f"plugin/{instance['name']}/{instance['id']}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def patch(driver: Driver, instance: Any, **body: Any) -> Any:
    return await driver.http.patch(
        f"/api/internal/plugin/{instance['name']}/{instance['id']}", json=body, headers={"X-Metagov-Community": "town"}
    )


@pytest.fixture
async def town(driver: Driver) -> Driver:
    assert (await driver.put()).status_code == 201
    return driver


@pytest.fixture
async def probe(town: Driver) -> Any:
    """An enabled instance."""
    answer = await town.post("plugin/probe", {"label": "a", "token": "t0ken"})
    assert answer.status_code == 201
    return answer.json()


async def test_post_enables_then_updates_in_place(town: Driver) -> None:
    created = await town.post("plugin/probe", {"label": "a"})
    assert created.status_code == 201
    updated = await town.post("plugin/probe", {"label": "b"})
    assert updated.status_code == 200
    assert updated.json() == {**created.json(), "config": {"label": "b"}}
    assert await one(town, created.json()) == updated.json()


async def test_post_of_an_unknown_plugin_or_config(town: Driver) -> None:
    problem(await town.post("plugin/nonesuch", {}), 404)
    assert pointers(await town.post("plugin/probe", {"label": 1, "x": 2})) == ["/label", "/x"]
    assert pointers(await town.post("plugin/probe", [])) == [""]
    assert (await town.get("plugin")).json() == {"plugins": [], "next": None}


async def test_config_changes_keep_state_and_processes(town: Driver, probe: Any, drains: Drains) -> None:
    await town.act("probe.count", {"by": 3})
    started = await town.post("process/probe.vote", {"title": "q"})
    for change in (
        await town.post("plugin/probe", {"label": "b"}),
        await patch(town, probe, config={"label": "c"}),
        await town.put(plugins=[{"name": "probe", "config": {"label": "d"}}]),
    ):
        assert change.status_code == 200
        await drains.until_idle()
        assert (await town.act("probe.read")).json() == {"count": 3}
        vote = (await town.http.get(started.headers["location"], headers={"X-Metagov-Community": "town"})).json()
        assert (vote["status"], vote["instance"]) == ("pending", probe["id"])


async def test_disabling_keeps_state_and_processes(town: Driver, probe: Any, drains: Drains) -> None:
    await town.act("probe.count")
    started = await town.post("process/probe.vote", {"title": "q"})
    assert (await patch(town, probe, enabled=False)).json()["status"] == "disabled"
    problem(await town.act("probe.read"), 404)
    problem(await town.post("process/probe.vote", {}), 404)
    await drains.until_idle()
    assert (await patch(town, probe, enabled=True)).json() == {**probe, "status": "enabled"}
    await drains.until_idle()
    assert (await town.act("probe.read")).json() == {"count": 1}
    vote = (await town.http.get(started.headers["location"], headers={"X-Metagov-Community": "town"})).json()
    assert vote["status"] == "pending"


async def test_patch_merges(town: Driver, probe: Any) -> None:
    shown = (await patch(town, probe, config={"secrets": ["x", "y"]})).json()["config"]
    assert shown == {"label": "a", "token": "********", "secrets": ["********", "********"]}
    shown = (await patch(town, probe, config={"token": None, "label": "b"})).json()["config"]
    assert shown == {"label": "b", "secrets": ["********", "********"]}
    assert (await patch(town, probe)).json()["config"] == shown
    assert (await patch(town, probe, config={})).json()["config"] == shown
    assert pointers(await patch(town, probe, config={"label": None})) == ["/label"]
    assert (await one(town, probe))["config"] == shown


async def test_patch_of_a_disabled_instance_does_not_enable_it(town: Driver, probe: Any) -> None:
    await patch(town, probe, enabled=False)
    changed = (await patch(town, probe, config={"label": "b"})).json()
    assert (changed["status"], changed["config"]["label"]) == ("disabled", "b")
    problem(await town.act("probe.read"), 404)
    both = (await patch(town, probe, config={"label": "c"}, enabled=True)).json()
    assert (both["status"], both["config"]["label"]) == ("enabled", "c")
    both = (await patch(town, probe, config={"label": "d"}, enabled=False)).json()
    assert (both["status"], both["config"]["label"]) == ("disabled", "d")


async def test_patch_means_the_instance_in_its_path(town: Driver) -> None:
    plain = (await town.post("plugin/probe", {"label": "plain"})).json()
    named = (await town.post("plugin/probe", team("T1"))).json()
    assert plain["id"] != named["id"]
    assert (await patch(town, plain, config={"label": "changed"})).json()["config"]["label"] == "changed"
    assert (await one(town, named))["config"]["label"] == "a"
    problem(await patch(town, plain, config=team("T1")), 409, "instance-exists")
    moved = (await patch(town, plain, config=team("T2"))).json()
    assert (moved["id"], moved["community_platform_id"]) == (plain["id"], "T2")
    assert pointers(await patch(town, named, config={"team": "T3"})) == [""]


async def test_delete(town: Driver, probe: Any, drains: Drains) -> None:
    started = await town.post("process/probe.vote", {"title": "q"})
    path = f"/api/internal/plugin/probe/{probe['id']}"
    gone = await town.http.delete(path, headers={"X-Metagov-Community": "town"})
    assert (gone.status_code, gone.content) == (204, b"")
    problem(await town.http.delete(path, headers={"X-Metagov-Community": "town"}), 404)
    problem(await town.get(f"plugin/probe/{probe['id']}"), 404)
    problem(await patch(town, probe, enabled=True), 404)
    await drains.until_idle()
    vote = (await town.http.get(started.headers["location"], headers={"X-Metagov-Community": "town"})).json()
    assert (vote["status"], vote["outcome"]["why"]) == ("completed", "deleted")
    again = await town.post("plugin/probe", {"label": "a"})
    assert again.status_code == 201
    assert again.json()["id"] != probe["id"]


async def test_an_instance_is_found_under_its_own_plugin_only(town: Driver, probe: Any) -> None:
    problem(await town.get(f"plugin/randomness/{probe['id']}"), 404)
    problem(await town.get("plugin/probe/nonesuch"), 404)
    problem(await town.get(f"plugin/probe/{'x' * 65}"), 422)


async def test_the_platform_id_comes_from_the_config(town: Driver) -> None:
    first = (await town.post("plugin/probe", team("T1"))).json()
    assert first["community_platform_id"] == "T1"
    second = await town.post("plugin/probe", team("T2"))
    assert second.status_code == 201
    again = await town.post("plugin/probe", team("T1", "b"))
    assert (again.status_code, again.json()["id"]) == (200, first["id"])


async def test_a_masked_round_trip_finds_its_instance_without_an_id(town: Driver) -> None:
    await town.put(plugins=[{"name": "probe", "config": team(name)} for name in ("T1", "T2")])
    shown = (await town.get("plugin")).json()["plugins"]
    sent = [{"name": plugin["name"], "config": plugin["config"]} for plugin in shown]
    back = await town.put(plugins=sent)
    assert back.status_code == 200, back.text
    assert back.json()["plugins"] == shown


async def test_which_one_is_meant(town: Driver) -> None:
    """With two instances and nothing that names one: 409, for actions, processes and configs alike."""
    for name in ("T1", "T2"):
        made = await town.post(f"plugin/probe?community_platform_id={name}", {"label": name, "webhook_secret": "s"})
        assert (made.status_code, made.json()["community_platform_id"]) == (201, name)
    problem(await town.post("plugin/probe", {"label": "?"}), 409, "ambiguous-instance")
    problem(await town.put(plugins=[{"name": "probe", "config": {"label": "?"}}]), 409, "ambiguous-instance")
    problem(await town.act("probe.read"), 409, "ambiguous-instance")
    problem(await town.post("process/probe.vote", {}), 409, "ambiguous-instance")
    await town.post("action/probe.count", {"community_platform_id": "T2"})
    counts = [
        (await town.post("action/probe.read", {"community_platform_id": name})).json()["count"] for name in ("T1", "T2")
    ]
    assert counts == [0, 1]
    started = await town.post("process/probe.vote", {"community_platform_id": "T1"})
    assert started.status_code == 202
    problem(await town.post("action/probe.read", {"community_platform_id": "T3"}), 404)


async def test_config_and_id_must_agree(town: Driver) -> None:
    answer = await town.put(plugins=[{"name": "probe", "config": team("T1"), "community_platform_id": "T2"}])
    assert pointers(answer) == ["/plugins/0/config"]


async def test_the_only_instance_is_meant_when_nothing_names_one(town: Driver) -> None:
    own = {"webhook_secret": "s"}
    made = (await town.post("plugin/probe?community_platform_id=T1", {"label": "a", **own})).json()
    changed = await town.post("plugin/probe", {"label": "b", **own})
    assert changed.status_code == 200
    assert changed.json() == {**made, "config": {**made["config"], "label": "b"}}


async def test_anothers_platform_id_needs_a_binding(town: Driver, gateway: Gateway, other_driver: Driver) -> None:
    leaning = {"label": "a", "team": "T1"}
    answer = await town.put(plugins=[{"name": "probe", "config": leaning}])
    assert pointers(answer) == ["/plugins/0/config"]
    assert "metagov instance bind town probe T1" in answer.json()["detail"]
    assert pointers(await town.post("plugin/probe", leaning)) == [""]
    assert (await town.get("plugin")).json()["plugins"] == []
    async with gateway.db.begin() as session:
        community = await gateway.db.pool.fetchval("SELECT id FROM communities WHERE slug = 'town'")
        session.add(PlatformBinding(community_id=community, plugin="probe", community_platform_id="T1"))
    assert (await town.post("plugin/probe", leaning)).status_code == 201
    await other_driver.put("city")
    problem(await other_driver.post("plugin/probe", leaning, slug="city"), 422)
    problem(await town.post("plugin/probe", {"label": "a", "team": "T2"}), 422)


async def test_an_own_secret_needs_no_binding_until_it_is_taken_away(town: Driver) -> None:
    made = (await town.post("plugin/probe", team("T1"))).json()
    assert pointers(await patch(town, made, config={"webhook_secret": None})) == [""]
    assert (await one(town, made))["config"]["webhook_secret"] == "********"


async def test_an_equal_put_changes_nothing(town: Driver, gateway: Gateway) -> None:
    body = [{"name": "probe", "config": team("T1")}]
    await town.put(plugins=body)
    before = await gateway.db.pool.fetch("SELECT * FROM instances")
    await town.put(plugins=body)
    assert await gateway.db.pool.fetch("SELECT * FROM instances") == before


async def test_two_patches_at_once_lose_nothing(town: Driver, probe: Any) -> None:
    await asyncio.gather(
        patch(town, probe, config={"label": "b"}),
        patch(town, probe, config={"token": None}),
        patch(town, probe, config={"webhook_secret": "w"}),
    )
    assert (await one(town, probe))["config"] == {"label": "b", "webhook_secret": "********"}
