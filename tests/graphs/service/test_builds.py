"""Graphs are built when the archive moves, from nothing but it, and named when they are whole."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import os
import random
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import Conflict
from app.graphs import building, builds
from app.graphs.building import BuildFailed
from app.graphs.builds import build_due, look_again, notice_moved
from app.graphs.child import verdict
from app.graphs.files import GraphFiles
from app.graphs.sweep import sweep_graphs
from metagov_sdk.graph import UnreadableGraph
from tests.graphs.service.towns import DISCORD_CONFIG, PROPS_CONFIG, Place, small_town, source_of
from tests.support.problems import problem


def files_of(place: Place) -> dict[str, bytes]:
    folder = place.gateway.graphs.require_files().folder
    return {path.name: path.read_bytes() for path in folder.glob("*/*") if path.is_file()}


async def test_a_graph_is_built_when_its_archive_moves(place: Place) -> None:
    await place.enable(props=PROPS_CONFIG)
    assert (await place.graphs())["props"] == {
        "name": "props", "community_platform_id": None, "state": "waiting", "error": None, "snapshot": None,
        "built_at": None, "nodes": None, "edges": None, "shares": [],
    }  # fmt: skip
    assert await place.work() == 1
    first = (await place.graphs())["props"]
    head = (await place.driver.get("archive/discord")).status_code
    assert head == 404, "the archive's own plugin is not enabled here, and need not be"
    assert (first["state"], first["nodes"], first["edges"]) == ("built", 4, 8)
    assert await place.work() == 0, "nothing has moved"

    written = await place.archive(small_town(praises=5))
    assert await place.work() == 1
    second = (await place.graphs())["props"]
    assert (second["nodes"], second["snapshot"]) == (6, written.head.snapshot)
    assert second["built_at"] > first["built_at"]
    events = (await place.driver.get("events", source="metagov")).json()["events"]
    built = [event["data"] for event in events if event["event_type"] == "graph.built"]
    assert [(each["plugin"], each["nodes"]) for each in built] == [("props", 4), ("props", 6)]


async def test_the_same_archive_gives_the_same_bytes(place: Place) -> None:
    await place.enable(props=PROPS_CONFIG, discord_graph=DISCORD_CONFIG)
    await place.work()
    before = files_of(place)
    packed = {name: data for name, data in before.items() if name.endswith(".gz")}
    assert len(packed) == 6
    for name, data in packed.items():
        plain = gzip.decompress(data)
        assert hashlib.sha256(plain).hexdigest() == name.removesuffix(".gz")
        json.loads(plain)
    for path in place.gateway.graphs.require_files().folder.glob("*/*"):
        path.unlink()
    for name in ("props", "discord-graph"):
        answer = await place.driver.post(f"graph/{name}/build")
        assert answer.status_code == 202, answer.text
    await place.work()
    assert files_of(place) == before


async def test_a_changed_configuration_builds_again(place: Place) -> None:
    await place.enable(props=PROPS_CONFIG)
    await place.work()
    await place.enable(props={**PROPS_CONFIG, "props_channels": ["1"]})
    assert await place.work() == 1
    assert (await place.graphs())["props"]["edges"] == 0


async def test_a_worker_that_starts_makes_again_what_it_would_make_otherwise(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.enable(props=PROPS_CONFIG)
    await place.work()
    first = (await place.graphs())["props"]
    assert await look_again(place.gateway.graphs) == 1
    assert await place.work() == 1
    assert (await place.graphs())["props"] == first, "it was looked at, and is as it was"
    monkeypatch.setattr(builds, "FORMAT", "of the next version")
    assert await place.work() == 0, "nobody looks while nothing has moved"
    assert await look_again(place.gateway.graphs) == 1
    assert await place.work() == 1
    assert (await place.graphs())["props"]["built_at"] > first["built_at"]


async def test_many_new_graphs_are_noticed_at_once(place: Place) -> None:
    await place.enable(props=PROPS_CONFIG, discord_graph=DISCORD_CONFIG)
    await place.gateway.db.pool.execute("DELETE FROM graphs")
    assert await notice_moved(place.gateway.graphs) == 2
    assert await place.gateway.db.pool.fetchval("SELECT count(*) FROM graphs WHERE id LIKE 'gra_%'") == 2


async def test_what_cannot_be_built_is_said_and_the_last_is_still_there(place: Place) -> None:
    await place.enable(props=PROPS_CONFIG)
    await place.work()
    good = (await place.graphs())["props"]
    source_without = small_town()
    written = await place.gateway.archives.write(await place.community_id(), _without_mentions(source_without))
    await place.work()
    failed = (await place.graphs())["props"]
    assert failed["state"] == "failed"
    assert "discord.mention" in failed["error"]
    assert failed["snapshot"] == good["snapshot"] != written.head.snapshot
    events = (await place.driver.get("events", source="metagov")).json()["events"]
    assert [event["event_type"] for event in events][-1] == "graph.failed"
    assert await place.work() == 0, "it is not tried again until something changes"
    await place.archive(small_town(praises=4))
    await place.work()
    mended = (await place.graphs())["props"]
    assert (mended["state"], mended["error"], mended["nodes"]) == ("built", None, 5)


def _without_mentions(town: Any) -> Any:
    source = source_of(town)
    del source.data["discord.mention"]
    return source


async def test_without_an_archive_it_waits(place: Place) -> None:
    await place.enable(discourse_graph={"source": "discourse"})
    await place.work()
    graph = (await place.graphs())["discourse-graph"]
    assert graph["state"] == "waiting"
    assert "archived" in graph["error"]
    assert await place.work() == 0


async def test_two_workers_build_it_once(place: Place) -> None:
    await place.enable(props=PROPS_CONFIG)
    await notice_moved(place.gateway.graphs)
    done = await asyncio.gather(*(build_due(place.gateway.graphs) for _ in range(4)))
    assert sum(done) == 1
    assert (await place.graphs())["props"]["state"] == "built"


async def test_a_build_that_is_asked_for_during_another_follows_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.enable(props=PROPS_CONFIG)
    count = 0
    whole = building.build_apart

    async def slow(job: Any, heard: Any) -> Any:
        nonlocal count
        count += 1
        if count == 1:
            await place.archive(small_town(praises=6))
            await place.driver.post("graph/props/build")
        return await whole(job, heard)

    monkeypatch.setattr(building, "build_apart", slow)
    await place.work()
    assert count == 2
    assert (await place.graphs())["props"]["nodes"] == 7


async def test_a_child_that_is_killed_leaves_nothing_and_is_tried_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.enable(props=PROPS_CONFIG)
    whole = building.build_apart

    async def cut_off(job: Any, heard: Any) -> Any:
        raise BuildFailed("the process that builds graphs ended before its time")

    monkeypatch.setattr(building, "build_apart", cut_off)
    await place.work()
    graph = (await place.graphs())["props"]
    assert (graph["state"], graph["snapshot"]) == ("waiting", None)
    assert "before its time" in graph["error"]
    assert files_of(place) == {}
    assert await place.work() == 0, "not before its pause is over"
    monkeypatch.setattr(building, "build_apart", whole)
    await place.gateway.db.pool.execute("UPDATE graphs SET next_at = now()")
    await place.work()
    assert (await place.graphs())["props"]["state"] == "built"


async def test_rules_without_an_end_are_ended(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await place.enable(props=PROPS_CONFIG)
    ended: list[bool] = []

    async def endless(job: Any, heard: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    monkeypatch.setattr(building, "build_apart", endless)
    monkeypatch.setattr(builds, "_LONGEST_BUILD", 0.3)
    await place.work()
    assert ended == [True]
    assert "building it took longer than" in (await place.graphs())["props"]["error"]


async def test_a_stale_worker_names_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await place.enable(props=PROPS_CONFIG)
    whole = building.build_apart

    async def overtaken(job: Any, heard: Any) -> Any:
        built = await whole(job, heard)
        await place.gateway.db.pool.execute("UPDATE graphs SET epoch = epoch + 1, next_at = NULL")
        return built

    monkeypatch.setattr(building, "build_apart", overtaken)
    await place.work()
    graph = await place.gateway.db.pool.fetchrow("SELECT files, snapshot FROM graphs")
    assert graph["files"] is None
    assert graph["snapshot"] is None


async def test_files_that_no_graph_names_are_swept_but_not_at_once(place: Place) -> None:
    await place.enable(props=PROPS_CONFIG)
    await place.work()
    old = files_of(place)
    await place.archive(small_town(praises=5))
    await place.work()
    both = files_of(place)
    assert len(both) > len(old)
    assert await sweep_graphs(place.gateway.graphs) == 0, "somebody may be about to read them"
    _age(place)
    assert await sweep_graphs(place.gateway.graphs) == len(both) - 4
    assert len(files_of(place)) == 4
    await place.enable()
    await sweep_graphs(place.gateway.graphs)
    assert len(files_of(place)) == 4, "it is only disabled"


def _age(place: Place) -> None:
    for path in place.gateway.graphs.require_files().folder.glob("*/*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))


async def test_a_deployment_without_a_folder_says_so(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await place.enable(props=PROPS_CONFIG)
    without = replace(place.gateway.graphs, files=None)
    assert await notice_moved(without) == 0
    assert await build_due(without) == 0
    with pytest.raises(Conflict, match="METAGOV_GRAPH_DIR"):
        without.require_files()


async def test_only_rule_sets_make_graphs(place: Place) -> None:
    for name in ("ballot", "nonesuch"):
        assert "makes graphs" in problem(await place.driver.post(f"graph/{name}/build"), 404)["detail"]
    problem(await place.driver.post("graph/props/build"), 404)


def test_a_path_is_made_of_names_alone(tmp_path: Path) -> None:
    for name in ("../../etc/passwd", "a" * 64, "A" * 64 + ".gz", "a" * 63 + ".gz", "a" * 64 + ".gz\n"):
        with pytest.raises(ValueError, match="no file"):
            GraphFiles(tmp_path).path(name)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UnreadableGraph("/" + "x" * 2_000_000, "it is wrong"), ("wrong", "/xxx")),
        (sqlite3.OperationalError("disk I/O error"), ("away", "the graph's index cannot be written: disk I/O error")),
        (OSError(28, "No space left on device"), ("away", "OSError: No space left on device")),
        (OverflowError("of a rule set"), ("away", "building it failed unexpectedly (OverflowError)")),
    ],
)
def test_whatever_goes_wrong_is_said_in_a_line(error: Exception, said: tuple[str, str]) -> None:
    (found,) = verdict(error).items()
    assert found[0] == said[0]
    assert found[1].startswith(said[1])
    assert len(found[1]) <= 10_000


@pytest.mark.parametrize("step", ["write", "close"])
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    class Full(io.BufferedWriter):
        def write(self, data: Any) -> int:
            if step == "write" and len(data) > 10_000:
                raise OSError(28, "No space left on device")
            return super().write(data)

        def flush(self) -> None:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            # As the real one: it is closed, and what could not be flushed is said.
            self.raw.close()
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdopen", lambda handle, mode: Full(io.FileIO(handle, "w")))
    with pytest.raises(OSError, match="No space left"):
        GraphFiles(tmp_path).write_packed(random.Random(1).randbytes(2**20) for _ in range(20))
    assert list(tmp_path.glob("*/*")) == []
    assert "packing" not in {thread.name[:7] for thread in threading.enumerate()}


def test_the_sweep_takes_nothing_of_anybody_elses(tmp_path: Path) -> None:
    files = GraphFiles(tmp_path)
    with files.writing() as fresh:
        unfinished = tmp_path / "tmp" / fresh.path.name
        theirs = [tmp_path / "tmp" / "notes.txt", tmp_path / "photos" / "1.jpg", tmp_path / "letters" / "old"]
        for path in theirs:
            path.parent.mkdir(exist_ok=True)
            path.write_text("")
        theirs[-1].unlink()
        theirs[-1].mkdir()
        kept = files.write_packed([b"x"])
        assert files.sweep([], older_than=-10) == 2
        assert not unfinished.exists()
        assert not files.has(f"{kept.sha256}.gz")
        assert all(path.exists() for path in theirs)
