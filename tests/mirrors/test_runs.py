"""Runs: what they read, how they end, what they say, and what a platform cannot do to them."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from app.mirrors.runs import begin_due_runs
from app.mirrors.walking import MOST_ATTEMPTS, sync_due
from app.worker import Drains
from metagov_sdk import Rejected, Retry, Unauthorized
from tests.conftest import Driver
from tests.mirrors.conftest import Mirrored
from tests.mirrors.shelf import SHELF


def fill(books: int = 4, notes: int = 7) -> None:
    """Some books with notes, some of them liked."""
    SHELF.books = [{"id": f"b{number}", "title": f"Book {number}", "owner": "ada"} for number in range(books)]
    for book in range(books):
        first = book * 100 + 1
        SHELF.notes[f"b{book}"] = [
            {
                "id": number,
                "by": {"name": "bob" if number % 2 else "eve"},
                "text": f"note {number}",
                "written_at": "2026-01-02T03:04:05Z",
                "draft": False,
                "tags": [],
            }
            for number in range(first, first + notes)
        ]
        SHELF.likes[str(first)] = ["ada", "bob"]


def table(stands: dict[str, Any], name: str) -> dict[str, Any]:
    return dict(next(each for each in stands["tables"] if each["name"] == f"shelf.{name}"))


async def events(mirror: Mirrored) -> list[dict[str, Any]]:
    found = (await mirror.driver.get("events")).json()["events"]
    return [each for each in found if each["event_type"].startswith("mirror.")]


async def test_before_the_first_run_nothing_is_there(books: Mirrored) -> None:
    stands = await books.status()
    assert (stands["provider"], stands["state"], stands["progress"]) == ("shelf", "idle", None)
    assert table(stands, "note") == {
        "name": "shelf.note",
        "rows": 0,
        "last_attempt_at": None,
        "last_success_at": None,
        "complete_through": None,
        "high_water": None,
        "error": None,
    }


async def test_a_run_reads_every_page_and_tells(books: Mirrored) -> None:
    fill()
    asked = await books.ask()
    assert asked["state"] == "running"
    assert asked["progress"] == {"done": 0, "known": 1, "requests": 0, "waits": 0, "eta_seconds": None}
    await books.work()
    stands = await books.status()
    assert {each["name"]: each["rows"] for each in stands["tables"]} == {
        "shelf.book": 4,
        "shelf.liked": 8,
        "shelf.note": 28,
    }
    assert table(stands, "note")["high_water"] == "2026-01-02T03:04:05Z"
    (event,) = await events(books)
    assert event["event_type"] == "mirror.completed"
    assert event["source"] == "metagov"
    assert event["data"]["failures"] == []
    assert event["data"]["provider"] == "shelf"


async def test_edits_deletions_and_vanished_likes_are_a_sweeps(books: Mirrored) -> None:
    fill()
    await books.sync()
    SHELF.notes["b0"][0]["text"] = "changed"
    SHELF.likes["1"] = ["bob", "eve"]
    del SHELF.notes["b1"][2]
    del SHELF.books[3]
    stands = await books.sync()
    # The list of books is read each time; what is in them is asked for what is new alone.
    assert {name: table(stands, name)["rows"] for name in ("book", "note", "liked")} == {
        "book": 3,
        "note": 21,
        "liked": 6,
    }
    stands = await books.sync(sweep=True)
    notes = await books.rows("note")
    assert notes["1"]["text"] == "changed"
    assert notes["103"]["deleted_at"] is not None
    assert notes["301"]["deleted_at"] is not None
    assert table(stands, "note")["rows"] == 20
    likes = await books.gateway.db.pool.fetch(
        "SELECT who, deleted_at IS NULL AS there FROM mirror_shelf.liked WHERE note_id = 1 ORDER BY who"
    )
    assert [tuple(row) for row in likes] == [("ada", False), ("bob", True), ("eve", True)]


async def test_what_comes_back_is_there_again(books: Mirrored) -> None:
    fill(2)
    await books.sync()
    kept = SHELF.books.pop()
    await books.sync(sweep=True)
    SHELF.books.append(kept)
    stands = await books.sync(sweep=True)
    assert {name: table(stands, name)["rows"] for name in ("book", "note", "liked")} == {
        "book": 2,
        "note": 14,
        "liked": 4,
    }
    assert all(row["deleted_at"] is None for row in (await books.rows("note")).values())


async def test_a_row_keeps_the_time_of_its_values(books: Mirrored) -> None:
    fill(1)
    await books.sync()
    before = await books.rows("note")
    SHELF.notes["b0"][1]["text"] = "changed"
    await books.sync(sweep=True)
    after = await books.rows("note")
    changed = {number for number, row in after.items() if row["synced_at"] != before[number]["synced_at"]}
    assert changed == {"2"}
    assert after["2"]["first_seen"] == before["2"]["first_seen"]


async def test_bad_input_is_kept_and_flagged_and_stops_nothing(books: Mirrored) -> None:
    fill(1, 2)
    ahead = (datetime.now(UTC) + timedelta(days=400)).isoformat()
    SHELF.notes["b0"] += [
        {"id": 3, "by": "not an object", "text": 5, "written_at": "never", "tags": "x", "draft": "no", "new": {"a": 1}},
        {"id": 4, "text": "a\0b\ud800", "written_at": ahead, "weird": "x\0y"},
        {"id": 5, "text": "x" * 2_000_000, "big": 10**40, "floats": [1.5, float("inf")]},
        {"id": None, "text": "no id"},
        "no object",
        {"id": 2**80, "text": "an id that no column takes"},
    ]
    stands = await books.sync()
    assert stands["state"] == "idle"
    notes = await books.rows("note")
    assert set(notes) == {"1", "2", "3", "4", "5"}
    assert json.loads(notes["3"]["extra"])["new"] == {"a": 1}
    assert set(json.loads(notes["3"]["mirror_flags"])) == {
        *("type:author", "type:text", "type:written_at", "type:tags", "type:draft")
    }
    assert json.loads(notes["3"]["extra"])["by"] == "not an object"
    assert notes["3"]["text"] == "5"
    assert notes["4"]["text"] == "a\ufffdb\ufffd"
    assert "future:written_at" in json.loads(notes["4"]["mirror_flags"])
    assert len(notes["5"]["text"]) == 2_000_000
    assert "huge:text" in json.loads(notes["5"]["mirror_flags"])
    odd = await books.gateway.db.pool.fetch("SELECT body::text FROM mirror_oddities")
    kept = "".join(row["body"] for row in odd)
    assert len(odd) == 3
    assert all(each in kept for each in ("no id", "no object", "an id that no column takes"))
    # The same again is kept once, and the clock of the future is no high water.
    stands = await books.sync(sweep=True)
    assert await books.gateway.db.pool.fetchval("SELECT count(*) FROM mirror_oddities") == 3
    assert table(stands, "note")["high_water"] == "2026-01-02T03:04:05Z"


async def test_waits_are_waited_and_refusals_are_shown(books: Mirrored) -> None:
    fill(2)
    SHELF.raises = [None, Retry("slow down", after=30), Retry("away"), httpx.ConnectError("gone")]
    await books.ask()
    await sync_due(books.use)
    stands = await books.status()
    assert stands["state"] == "running"
    assert stands["progress"]["waits"] == 1
    assert table(stands, "note")["complete_through"] is None
    waiting = await books.gateway.db.pool.fetchval(
        "SELECT count(*) FROM mirror_partitions WHERE next_at > now() + interval '20 seconds'"
    )
    assert waiting == 1
    await books.work()
    assert (await books.status())["state"] == "idle"
    assert table(await books.status(), "note")["rows"] == 14


@pytest.mark.parametrize("failure", [Rejected("forbidden"), ZeroDivisionError("a fault of the plugin")])
async def test_a_partition_that_fails_makes_the_run_fail_and_is_read_by_the_next(
    books: Mirrored, failure: Exception
) -> None:
    fill(3)
    # The list of books is read, then the notes of three books: one of them fails.
    SHELF.raises = [None, failure]
    stands = await books.sync()
    assert stands["state"] == "failed"
    assert table(stands, "note")["error"]
    assert table(stands, "note")["complete_through"] is None
    assert table(stands, "note")["rows"] == 14
    (event,) = await events(books)
    assert event["event_type"] == "mirror.failed"
    assert len(event["data"]["failures"]) == 1
    stands = await books.sync()
    assert stands["state"] == "idle"
    assert table(stands, "note")["rows"] == 21
    assert table(stands, "note")["error"] is None
    assert table(stands, "note")["complete_through"] is not None


async def test_a_platform_that_is_away_fails_the_run_in_the_end(books: Mirrored) -> None:
    fill(1)
    SHELF.raises = [Retry("away")] * MOST_ATTEMPTS
    stands = await books.sync()
    assert stands["state"] == "failed"
    assert len(SHELF.asked) == MOST_ATTEMPTS


async def test_credentials_that_are_refused_pause_the_mirror(books: Mirrored) -> None:
    fill(1)
    SHELF.raises = [Unauthorized("the token is void")]
    await books.ask()
    await sync_due(books.use)
    assert SHELF.asked == ["books"]
    status = await books.gateway.db.pool.fetchval("SELECT status FROM instances WHERE id = $1", books.instance)
    assert status == "needs_auth"
    stands = await books.status()
    assert stands["state"] == "running"
    assert table(stands, "book")["error"] == "the token is void"
    await books.hurry()
    await sync_due(books.use)
    assert SHELF.asked == ["books"]
    # The credentials were renewed.
    await books.gateway.db.pool.execute("UPDATE instances SET status = 'enabled' WHERE id = $1", books.instance)
    await books.work()
    assert (await books.status())["state"] == "idle"


async def test_pages_in_a_circle_end_the_run(books: Mirrored) -> None:
    fill(1, 2)
    # A full page of rows without positions, and more of the same.
    SHELF.notes["b0"] = ["odd"] * 10
    stands = await books.sync()
    assert stands["state"] == "failed"
    assert "nothing new" in table(stands, "note")["error"]


async def test_a_second_request_joins_the_run_and_a_sweep_waits_for_it(books: Mirrored) -> None:
    fill(1)
    await books.ask()
    await books.ask()
    assert await books.gateway.db.pool.fetchval("SELECT count(*) FROM mirror_runs") == 1
    await books.ask(sweep=True)
    await books.ask(sweep=True)
    states = await books.gateway.db.pool.fetch("SELECT state, sweep FROM mirror_runs ORDER BY id")
    assert [tuple(row) for row in states] == [("running", False), ("waiting", True)]
    await books.work()
    states = await books.gateway.db.pool.fetch("SELECT state, sweep FROM mirror_runs ORDER BY id")
    assert [tuple(row) for row in states] == [("completed", False), ("completed", True)]


async def test_a_mirror_is_read_again_on_its_schedule(books: Mirrored) -> None:
    fill(1)
    assert await begin_due_runs(books.use) == 0
    await books.sync()
    assert await begin_due_runs(books.use) == 0
    pool = books.gateway.db.pool
    await pool.execute("UPDATE mirrors SET next_sync_at = now() - interval '1 second'")
    assert await begin_due_runs(books.use) == 1
    assert await begin_due_runs(books.use) == 0
    await books.work()
    await pool.execute("UPDATE mirrors SET next_sweep_at = now()")
    await begin_due_runs(books.use)
    assert await pool.fetchval("SELECT sweep FROM mirror_runs ORDER BY id DESC LIMIT 1")
    await books.work()
    assert await pool.fetchval("SELECT next_sweep_at > now() + interval '23 hours' FROM mirrors")


async def test_a_run_whose_last_worker_died_is_closed(books: Mirrored) -> None:
    fill(1)
    await books.sync()
    pool = books.gateway.db.pool
    await pool.execute("UPDATE mirror_runs SET state = 'running', finished_at = NULL")
    await begin_due_runs(books.use)
    assert (await books.status())["state"] == "idle"


async def test_a_webhooks_mark_has_one_row_looked_up(books: Mirrored, drains: Drains) -> None:
    fill(1)
    await books.sync()
    SHELF.notes["b0"][2]["text"] = "changed"
    SHELF.likes["3"] = ["zoe"]
    del SHELF.notes["b0"][4]
    SHELF.asked.clear()
    for note in (3, 5):
        body = json.dumps({"book": "b0", "note": note}).encode()
        signature = "sha256=" + hmac.new(b"shelf", body, hashlib.sha256).hexdigest()
        answer = await books.driver.http.post("/api/hooks/town/shelf", content=body, headers={"X-Signature": signature})
        assert answer.status_code == 202, answer.text
    await drains.until_idle()
    await books.work()
    assert sorted(SHELF.asked) == ["likes 3", "note b0/3", "note b0/5"]
    notes = await books.rows("note")
    assert notes["3"]["text"] == "changed"
    assert notes["5"]["deleted_at"] is not None
    assert (await books.gateway.db.pool.fetchval("SELECT count(*) FROM mirror_shelf.liked WHERE who = 'zoe'")) == 1


async def test_a_mark_for_an_instance_that_is_not_mirrored_is_dropped(books: Mirrored, drains: Drains) -> None:
    body = json.dumps({"book": "b0", "note": 3}).encode()
    signature = "sha256=" + hmac.new(b"shelf", body, hashlib.sha256).hexdigest()
    await books.driver.http.post("/api/hooks/town/shelf", content=body, headers={"X-Signature": signature})
    await drains.until_idle()
    assert await books.gateway.db.pool.fetchval("SELECT count(*) FROM dirty_marks") == 0
    assert SHELF.asked == []


async def test_rows_that_a_lookup_found_are_swept_like_others(books: Mirrored) -> None:
    fill(1, 2)
    await books.sync()
    SHELF.notes["b0"].insert(0, {"id": 0, "text": "before all others"})
    pool = books.gateway.db.pool
    await pool.execute(
        "INSERT INTO dirty_marks (instance_id, table_name, key) VALUES ($1, 'note', 'b0/0')", books.instance
    )
    await books.work()
    assert "0" in await books.rows("note")
    del SHELF.notes["b0"][0]
    await books.sync(sweep=True)
    assert (await books.rows("note"))["0"]["deleted_at"] is not None


@pytest.mark.parametrize("plugin", ["randomness", "nothing"])
async def test_a_plugin_that_mirrors_nothing_is_not_found(books: Mirrored, plugin: str) -> None:
    assert (await books.driver.get(f"mirror/{plugin}")).status_code == 404
    assert (await books.driver.post(f"mirror/{plugin}/sync", {})).status_code == 404


async def test_another_drivers_mirror_is_not_there(books: Mirrored, other_driver: Driver) -> None:
    fill(1)
    await books.sync()
    assert (await other_driver.get("mirror/shelf")).status_code == 400
    await other_driver.put("elsewhere")
    assert (await other_driver.get("mirror/shelf", slug="elsewhere")).status_code == 404


async def test_a_disabled_instance_is_not_read(books: Mirrored) -> None:
    fill(1)
    await books.ask()
    answer = await books.driver.http.patch(
        f"/api/internal/plugin/shelf/{books.instance}",
        json={"enabled": False},
        headers={"X-Metagov-Community": "town"},
    )
    assert answer.status_code == 200, answer.text
    await sync_due(books.use)
    assert SHELF.asked == []
    await books.driver.http.delete(
        f"/api/internal/plugin/shelf/{books.instance}", headers={"X-Metagov-Community": "town"}
    )
    await books.hurry()
    await sync_due(books.use)
    assert await books.gateway.db.pool.fetchval("SELECT count(*) FROM mirror_runs WHERE finished_at IS NULL") == 0
