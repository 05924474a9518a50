"""`metagov graph …`, run as processes; and what is left when one is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app.cli.graph import _watch
from app.gateway import Gateway
from app.graphs import service
from tests.conftest import Driver
from tests.graphs.servers import ME, PROPS, TALK, YOU, Town
from tests.graphs.service.test_builds import files_of
from tests.graphs.service.test_shares import path_of
from tests.graphs.service.towns import DISCORD_CONFIG, PROPS_CONFIG, Place

pytestmark = pytest.mark.slow

Run = Callable[..., subprocess.CompletedProcess[str]]


def environment(gateway: Gateway) -> dict[str, str]:
    settings = gateway.settings
    return {
        **os.environ,
        "COLUMNS": "200",
        "METAGOV_DATABASE_URL": settings.database_url,
        "METAGOV_REDIS_URL": settings.redis_url,
        "METAGOV_SECRET_KEYS": settings.secret_keys.get_secret_value(),
        "METAGOV_ARCHIVE_URL": settings.archive_url,
        "METAGOV_GRAPH_DIR": settings.graph_dir,
        "METAGOV_DATABASE_POOL": "2",
        "METAGOV_LOG_LEVEL": "error",
    }


@pytest.fixture
def run(gateway: Gateway) -> Run:
    def metagov(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", "graph", *words],
            capture_output=True,
            text=True,
            timeout=60,
            env={**environment(gateway), **more},
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return metagov


@pytest.fixture
async def props(place: Place) -> Place:
    await place.enable(props=PROPS_CONFIG)
    return place


async def test_build_export_and_stats(
    props: Place, run: Run, driver: Driver, anonymous: httpx.AsyncClient, tmp_path: Path
) -> None:
    early = await asyncio.to_thread(run, "export", "town", "props", "--to", str(tmp_path))
    assert early.returncode == 1
    assert "metagov graph build town props" in early.stderr
    built = await asyncio.to_thread(run, "build", "town", "props")
    assert built.returncode == 0, built.stderr
    assert "4 nodes and 8 edges" in built.stdout
    again = await asyncio.to_thread(run, "build", "town", "props", "--json")
    assert json.loads(again.stdout)["nodes"] == 4

    exported = await asyncio.to_thread(run, "export", "town", "props", "--to", str(tmp_path / "out"))
    assert exported.returncode == 0, exported.stderr
    share = await props.share("props")
    for name, url in (
        ("graph.json", share["graph_url"]),
        ("declaration.json", share["declaration_url"]),
        ("identityProposals.json", share["identity_proposals_url"]),
    ):
        assert (tmp_path / "out" / name).read_bytes() == (await anonymous.get(path_of(url))).content
    assert len(list((tmp_path / "out").iterdir())) == 3

    picture = tmp_path / "top.svg"
    shown = await asyncio.to_thread(run, "stats", "town", "props", "--picture", str(picture))
    assert shown.returncode == 0, shown.stderr
    for word in ("Props", "gives props", "are props to", "Inflow", "58"):
        assert word in shown.stdout
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")
    figures = json.loads((await asyncio.to_thread(run, "stats", "town", "props", "--json", "--top", "2")).stdout)
    assert {each["name"]: each["count"] for each in figures["edge_types"]} == {"gives props": 4, "are props to": 4}
    assert figures["node_types"][0]["count"] == 4
    assert len(figures["top"]) == 2


async def test_what_cannot_be_is_one_line(props: Place, run: Run) -> None:
    for words, said in (
        (("build", "nowhere", "props"), "no community"),
        (("build", "town", "ballot"), "makes graphs"),
        (("stats", "town", "meetings"), "not enabled"),
    ):
        done = await asyncio.to_thread(run, *words)
        assert done.returncode == 1
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
    without = await asyncio.to_thread(run, "build", "town", "props", METAGOV_GRAPH_DIR="")
    assert "METAGOV_GRAPH_DIR" in without.stderr


async def test_files_that_cannot_be_read_or_written_are_one_line(props: Place, run: Run, tmp_path: Path) -> None:
    await props.work()
    (tmp_path / "file").write_text("")
    for words in (
        ("export", "town", "props", "--to", str(tmp_path / "file" / "below")),
        ("stats", "town", "props", "--picture", str(tmp_path / "nowhere" / "top.svg")),
    ):
        done = await asyncio.to_thread(run, *words)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert str(tmp_path) in done.stderr
    for path in props.gateway.graphs.require_files().folder.glob("*/*"):
        path.write_bytes(b"damaged")
    for command, *options in (["export", "--to", str(tmp_path)], ["stats"]):
        done = await asyncio.to_thread(run, command, "town", "props", *options)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "build it again" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    for path in props.gateway.graphs.require_files().folder.glob("*/*"):
        path.unlink()
    done = await asyncio.to_thread(run, "stats", "town", "props")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


async def test_a_build_that_is_put_off_is_no_success(props: Place, run: Run) -> None:
    await props.work()
    await props.enable(props={**PROPS_CONFIG, "inputs": [{"name": "guests", "graph_url": "http://127.0.0.1:9/graph"}]})
    done = await asyncio.to_thread(run, "build", "town", "props", METAGOV_ALLOW_PRIVATE_NETWORKS="true")
    assert done.returncode == 1
    assert "the input 'guests' (127.0.0.1) cannot be taken" in done.stderr


async def test_an_earlier_failure_is_not_taken_for_this_one(props: Place) -> None:
    await props.work()
    graphs = props.gateway.graphs
    await props.gateway.db.pool.execute("UPDATE graphs SET error = 'of old', state = 'failed'")
    instance = await service.find_instance(graphs, await props.community_id(), "props", None)
    asked = await service.ask_for_build(graphs, instance)
    watching = asyncio.create_task(_watch(props.gateway, instance, asked))
    # Nobody has begun it: what was wrong the last time is all that is known.
    done, _ = await asyncio.wait({watching}, timeout=1)
    assert not done
    await props.work()
    status = await watching
    assert (status.state, status.error) == ("built", None)


def large_town() -> Town:
    """One whose graph takes some seconds."""
    town = Town()
    town.channel(PROPS, "did-a-thing")
    town.channel(TALK, "talk")
    for number, id in enumerate((ME, YOU)):
        town.member(id, f"member-{number}")
    for number in range(12_000):
        town.say(TALK, (ME, YOU)[number % 2], f"message {number}", reactions={"👍": [ME], "❤️": [YOU]})
    return town


async def test_a_worker_that_is_killed_midway_leaves_nothing_half_written(place: Place, gateway: Gateway) -> None:
    await place.archive(large_town())
    await place.enable(discord_graph=DISCORD_CONFIG)
    words = [sys.executable, "-m", "app.cli", "graph", "build", "town", "discord-graph"]
    worker = subprocess.Popen(
        words, env=environment(gateway), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        async with asyncio.timeout(60):
            while not (children := _children(worker.pid)) or not await gateway.db.pool.fetchval(
                "SELECT progress IS NOT NULL FROM graphs"
            ):
                assert worker.poll() is None, "it was done before it could be killed"
                await asyncio.sleep(0.02)
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    async with asyncio.timeout(10):
        while any(_lives(child) for child in children):
            await asyncio.sleep(0.05)
    whole = [name for name in files_of(place) if name.endswith((".gz", ".sqlite"))]
    graph = (await place.graphs())["discord-graph"]
    assert (graph["snapshot"], graph["nodes"]) == (None, None)
    assert len(whole) < 4
    # Not before the lease of the one that was killed has ended.
    await gateway.db.pool.execute("UPDATE graphs SET lease_until = now() - interval '1 second'")
    await place.work()
    graph = (await place.graphs())["discord-graph"]
    assert (graph["state"], graph["nodes"]) == ("built", 12_000 * 2 + 2), "reactions to oneself are no nodes"
    assert await gateway.db.pool.fetchval("SELECT attempt FROM graphs") == 0


def _children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(path.parent.name))
    return found


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
