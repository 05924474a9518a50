"""Somebody who is forgotten is in no graph any more: not in its files, not in those that took it in."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app.graphs import building
from app.graphs.forget import forget_in_graphs
from tests.graphs.servers import ME, YOU
from tests.graphs.service.test_builds import files_of
from tests.graphs.service.test_shares import path_of
from tests.graphs.service.towns import DISCORD_CONFIG, PROPS_CONFIG, Place, small_town

BOTH = {**PROPS_CONFIG, "inputs": [{"name": "discord", "plugin": "discord-graph"}]}


def town_without_me() -> Any:
    town = small_town()
    town.members = [each for each in town.members if each["user"]["id"] != ME]
    town.messages = []
    return town


async def test_graphs_that_hold_somebody_go_at_once_and_come_back_without(
    place: Place, anonymous: httpx.AsyncClient
) -> None:
    await place.enable(props=BOTH, discord_graph=DISCORD_CONFIG)
    await place.work()
    share = await place.share("props")
    assert ME in (await anonymous.get(path_of(share["graph_url"]))).text
    written = await place.archive(town_without_me())
    clean = written.head.snapshot
    assert await forget_in_graphs(place.gateway.graphs, await place.community_id(), "discord", {"discord": clean}) == 2
    assert files_of(place) == {}
    assert (await anonymous.get(path_of(share["graph_url"]))).status_code == 404
    await place.work()
    assert {each["state"] for each in (await place.graphs()).values()} == {"built"}
    for name in ("graph_url", "declaration_url", "identity_proposals_url"):
        assert ME not in (await anonymous.get(path_of(share[name]))).text
    assert YOU in (await anonymous.get(path_of(share["identity_proposals_url"]))).text
    assert await forget_in_graphs(place.gateway.graphs, await place.community_id(), "discord", {"discord": clean}) == 0


async def test_without_a_clean_snapshot_all_go(place: Place) -> None:
    await place.enable(props=PROPS_CONFIG)
    await place.work()
    assert await forget_in_graphs(place.gateway.graphs, await place.community_id(), "discord", {}) == 1
    assert files_of(place) == {}
    assert await place.work() == 0, "the archive still holds them"
    assert "forgotten" in (await place.graphs())["props"]["error"]
    await place.archive(town_without_me())
    await place.work()
    assert (await place.graphs())["props"]["state"] == "built"


async def test_what_was_built_from_others_archives_stays(place: Place) -> None:
    await place.enable(props=PROPS_CONFIG)
    await place.work()
    before = files_of(place)
    assert await forget_in_graphs(place.gateway.graphs, await place.community_id(), "discourse", {}) == 0
    assert await forget_in_graphs(place.gateway.graphs, "com_other", "discord", {}) == 0
    assert files_of(place) == before


async def test_a_build_in_hand_names_no_files_any_more(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await place.enable(props=PROPS_CONFIG)
    whole = building.build_apart
    forgotten: list[int] = []

    async def meanwhile(job: Any, heard: Any) -> Any:
        built = await whole(job, heard)
        if not forgotten:
            clean = (await place.archive(town_without_me())).head.snapshot
            community = await place.community_id()
            forgotten.append(await forget_in_graphs(place.gateway.graphs, community, "discord", {"discord": clean}))
        return built

    monkeypatch.setattr(building, "build_apart", meanwhile)
    await place.work()
    assert forgotten == [1]
    graph = (await place.graphs())["props"]
    assert (graph["state"], graph["edges"]) == ("built", 0)
    head = await place.gateway.db.pool.fetchval("SELECT snapshot FROM archive_heads")
    assert graph["snapshot"] == head
