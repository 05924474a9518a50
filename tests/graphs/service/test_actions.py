"""What drivers ask of built graphs."""

from __future__ import annotations

from typing import Any

from tests.conftest import Driver
from tests.graphs.servers import ME, PROPS, QUIET, YOU
from tests.graphs.service.towns import DISCORD_CONFIG, PROPS_CONFIG, Place, small_town
from tests.support.problems import problem

BEA = ["sourcecred", "discord", "MEMBER", "user", YOU]


async def asked(driver: Driver, name: str, **parameters: Any) -> Any:
    answer = await driver.act(name, parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_the_top_of_a_graph(place: Place) -> None:
    await place.enable(props=PROPS_CONFIG, discord_graph=DISCORD_CONFIG)
    await place.work()
    for name in ("props", "discord-graph"):
        graph = (await place.graphs())[name]
        top = await asked(place.driver, f"{name}.top-nodes", limit=3)
        assert top["snapshot"] == graph["snapshot"]
        assert len(top["nodes"]) == 3
        flows = [node["inflow"] for node in top["nodes"]]
        assert flows == sorted(flows, reverse=True)
    top = await asked(place.driver, "props.top-nodes")
    assert top["nodes"][0]["address"] == BEA, "three times 19 lead there, and back from her thanks"
    assert top["nodes"][0]["inflow"] == 3 * 19 + 1
    assert top["nodes"][0]["label"]
    props = await asked(place.driver, "props.top-nodes", type="Props", limit=100)
    assert {tuple(node["address"][:4]) for node in props["nodes"]} == {("metagov", "props", "PROPS", PROPS)}
    assert len(props["nodes"]) == 4
    wrong = await place.driver.act("props.top-nodes", {"type": "Nonsense"})
    assert problem(wrong, 422)["errors"][0]["pointer"] == "/parameters/type"
    assert "Props" in problem(wrong, 422)["detail"]
    for limit in (0, 101):
        problem(await place.driver.act("props.top-nodes", {"limit": limit}), 422)


async def test_neighbours(place: Place) -> None:
    await place.enable(props=PROPS_CONFIG)
    await place.work()
    found = await asked(place.driver, "props.neighbours", address=BEA)
    assert found["node"]["edges"] == 4
    kinds = [(each["type"], each["direction"]) for each in found["neighbours"]]
    assert kinds == [("gives props", "out"), *[("are props to", "in")] * 3]
    times = [each["timestamp_ms"] for each in found["neighbours"]]
    assert times == sorted(times, reverse=True)
    assert found["neighbours"][1]["forwards"] == 19
    message = found["neighbours"][1]["node"]
    assert "helped 2" in message["label"]
    assert message["weight"] == 1
    around = await asked(place.driver, "props.neighbours", address=message["address"], limit=1)
    assert len(around["neighbours"]) == 1
    for address in (["nobody"], [*BEA, "x"], BEA[:-1]):
        problem(await place.driver.act("props.neighbours", {"address": address}), 404)
    problem(await place.driver.act("props.neighbours", {"address": []}), 422)
    problem(await place.driver.act("props.neighbours", {"address": ["a\0b"]}), 422)


async def test_props_given_and_received(place: Place) -> None:
    await place.archive(small_town(praises=4))
    await place.enable(props=PROPS_CONFIG)
    await place.work()
    given = await asked(place.driver, "props.given", account=ME)
    assert (given["account"], given["count"]) == (ME, 4)
    assert [each["accounts"] for each in given["props"]] == [[YOU]] * 4
    assert "helped 3" in given["props"][0]["text"]
    received = await asked(place.driver, "props.received", account=ME)
    assert [each["accounts"] for each in received["props"]] == [[YOU]]
    assert received["props"][0]["weight"] == 0
    some = await asked(place.driver, "props.given", account=ME, limit=2)
    assert (some["count"], len(some["props"])) == (4, 2)
    for account in (QUIET, "nobody", "'; DROP TABLE nodes"):
        for name in ("given", "received"):
            assert (await asked(place.driver, f"props.{name}", account=account))["props"] == []


async def test_before_the_first_build(place: Place) -> None:
    await place.enable(props=PROPS_CONFIG, discourse_graph={"source": "discourse"})
    for name, parameters in (("top-nodes", {}), ("neighbours", {"address": BEA}), ("given", {"account": ME})):
        answer = problem(await place.driver.act(f"props.{name}", parameters), 409)
        assert "not built yet" in answer["detail"]
    await place.work()
    waiting = problem(await place.driver.act("discourse-graph.top-nodes", {}), 409)
    assert "nothing of 'discourse' is archived yet" in waiting["detail"]


async def test_files_that_are_gone_are_said(place: Place) -> None:
    await place.enable(props=PROPS_CONFIG)
    await place.work()
    for path in place.gateway.graphs.require_files().folder.glob("*/*"):
        path.unlink()
    assert "ask for a build" in problem(await place.driver.act("props.top-nodes", {}), 409)["detail"]


async def test_a_damaged_index_is_said_and_made_again(place: Place) -> None:
    await place.enable(props=PROPS_CONFIG)
    await place.work()
    (index,) = place.gateway.graphs.require_files().folder.glob("*/*.sqlite")
    index.write_bytes(b"damaged" * 1000)
    assert "ask for a build" in problem(await place.driver.act("props.top-nodes", {}), 409)["detail"]
    await place.driver.post("graph/props/build")
    await place.work()
    assert (await place.driver.act("props.top-nodes", {})).status_code == 200
