"""A person's deletion request: nothing of them is left, in no column of any table, in no blob of the new snapshot."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.archives.restore import restore
from app.core import work
from app.mirrors.forget import Erasure, Forgetting, Step, forget_now
from app.mirrors.models import MirrorPartition
from app.mirrors.source import open_sink
from app.processes.history import replay
from app.worker import Drains
from metagov_sdk import ProcessSpec
from plugins.ballot.processes import BallotVote
from tests.conftest import Driver
from tests.fakes.discord import FakeDiscord
from tests.fakes.discord_world import User
from tests.mirrors.conftest import Mirrored, own_app
from tests.mirrors.forgetting import Deletion, deletion
from tests.mirrors.shelf import SHELF
from tests.mirrors.test_runs import fill
from tests.mirrors.test_source import found
from tests.mirrors.town import Town, build_town
from tests.processes.conftest import HEADER, counts
from tests.support.sink import Sink
from tests.support.traces import traces

__all__ = ["deletion"]

EVE = "eve4711quill"


async def person_in(mirror: Mirrored, discord: FakeDiscord, **town: Any) -> tuple[Town, User]:
    """A mirrored server, and somebody in it with names of their own."""
    made = build_town(discord, channels=3, messages=80, reactions=0.4, **town)
    person = made.people[0]
    person.username, person.global_name = "zorblax_quill", "Zorblax Quillemot"
    other = next(user for user in made.people if user is not person)
    channel = made.channels[0]
    discord.say(channel, other, f"thanks <@{person.id}> and @zorblax_quill, not @zorblax_quills")
    own = discord.say(channel, person, "my own words")
    own.react("👍", other.id)
    driver = mirror.driver
    key = own_app(discord, made.guild)
    plugins = [{"name": "discord", "config": key}, {"name": "ballot", "config": {}}]
    answer = await driver.put(plugins=plugins)
    assert answer.status_code == 201, answer.text
    mirror.instance = next(each["id"] for each in answer.json()["plugins"] if each["name"] == "discord")
    return made, person


async def ballot(driver: Driver, **params: Any) -> str:
    started = await driver.post("process/ballot.vote", {"title": "Lunch?", "options": ["yes", "no"], **params})
    assert started.status_code == 202, started.text
    return str(started.json()["id"])


async def cast(driver: Driver, process: str, **votes: str) -> None:
    for voter, choice in votes.items():
        done = await driver.act("ballot.cast", {"process_id": process, "voter": voter.lstrip("_"), "choice": choice})
        assert done.status_code == 200, done.text


async def shown(driver: Driver, process: str) -> dict[str, Any]:
    answer = await driver.http.get(f"/api/internal/process/ballot.vote/{process}", headers=HEADER)
    return dict(answer.json())


async def replayed(mirror: Mirrored, process: str) -> dict[str, Any]:
    async with mirror.gateway.db.begin() as session:
        outcome = (await replay(session, ProcessSpec(BallotVote), process)).outcome
    assert outcome is not None
    return outcome


async def test_nothing_is_left(
    mirror: Mirrored,
    discord: FakeDiscord,
    driver: Driver,
    drains: Drains,
    sink: Sink,
    deletion: Deletion,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mirror.use, "keep_answers", True)
    pool = mirror.gateway.db.pool
    town, person = await person_in(mirror, discord)
    account, other = str(person.id), str(town.people[1].id)
    await driver.http.post("/api/internal/driver/endpoints", json={"url": sink.url})
    await mirror.sync(sweep=True)
    await deletion.archive(mirror)
    made = await driver.http.post("/api/internal/identity/create_id", json={"community_slug": "town", "count": 2})
    theirs, somebody = made.json()
    for external, identifier in ((theirs, account), (somebody, other)):
        linked = {"external_id": external, "community_slug": "town", "platform_type": "discord"}
        answer = await driver.http.post(
            "/api/internal/identity/link_account", json={**linked, "platform_identifier": identifier}
        )
        assert answer.status_code in (200, 201), answer.text
    closed = await ballot(driver, eligible_voters=[account, other, "bob"], weights={account: 2})
    opened = await ballot(driver, details=f"asked by <@{account}>")
    for process in (closed, opened):
        await cast(driver, process, **{f"_{account}": "yes", f"_{other}": "no", "_bob": "yes"})
    await cast(driver, opened, **{f"_{theirs}": "yes"})
    await drains.until_idle()
    await driver.http.delete(f"/api/internal/process/ballot.vote/{closed}", headers=HEADER)
    await drains.until_idle()
    before = await shown(driver, closed)
    assert counts((await shown(driver, opened))["outcome"]) == {"yes": 3, "no": 1}
    await _keep_more(mirror, account, theirs)
    names = [account, "zorblax_quill ", '"zorblax_quill"', "@zorblax_quill,", "Zorblax Quillemot", theirs]
    found = await traces(pool, names)
    assert {name for tables in found.values() for name in tables} >= {
        "public.attempts",
        "public.events",
        "public.instance_states",
        "public.linked_accounts",
        "public.metagov_ids",
        "public.mirror_bodies",
        "public.mirror_oddities",
        "public.polls",
        "public.process_transitions",
        "public.processes",
        "public.receipts",
        "public.seen",
        "public.signals",
        "mirror_discord.member",
        "mirror_discord.message",
        "mirror_discord.reaction",
    }

    done = await deletion.carry_out(mirror, account)

    assert (done.finished, done.waits) == (True, None)
    assert await traces(pool, names) == {}
    assert await deletion.head_has(mirror, names) == set()
    report = done.report
    assert report.rows["discord.member"] == 1
    assert min(report.rows["discord.message"], report.texts, report.oddities, report.answers, report.receipts) > 0
    assert (report.events, report.accounts, report.withdrawn, report.renamed) == (1, 1, 1, 1)
    (held,) = report.held
    assert (held.seq, held.newest) == (1, False)
    assert held.archive == deletion.archives.url
    assert {"discord.member", "discord.message", "discord.reaction"} <= set(held.tables)
    assert await deletion.head_has(mirror, names, held.snapshot) >= {account, "Zorblax Quillemot"}
    assert report.snapshots.keys() == {"discord"} and report.snapshots["discord"] != held.snapshot

    # What was decided stands; who had decided is not told.
    after = await shown(driver, closed)
    assert counts(after["outcome"]) == counts(before["outcome"]) == {"yes": 2, "no": 1}
    assert [each["weight"] for each in after["outcome"]["options"]] == [3, 1]
    assert after["outcome"]["options"][0]["voters"] == ["(forgotten)", "bob"]
    assert await replayed(mirror, closed) == after["outcome"]
    # What is open goes on without them.
    assert counts((await shown(driver, opened))["outcome"]) == {"yes": 1, "no": 1}
    assert counts(await replayed(mirror, opened)) == {"yes": 1, "no": 1}

    # The platform still has the person; the mirror does not take them in again, and nor does the archive.
    await mirror.sync(sweep=True)
    await deletion.archive(mirror)
    await drains.until_idle()
    assert await traces(pool, names) == {}
    assert await deletion.head_has(mirror, names) == set()
    content = [row["content"] for row in (await mirror.rows("message")).values() if "thanks" in (row["content"] or "")]
    assert content == ["thanks (forgotten) and (forgotten), not @zorblax_quills"]


async def _keep_more(mirror: Mirrored, account: str, metagov_id: str) -> None:
    """What is hard to come by in a test: rows as the gateway writes them."""
    pool = mirror.gateway.db.pool
    await pool.execute(
        "INSERT INTO receipts (id, community_id, instance_id, plugin, hook, status, headers, body, next_at) "
        "SELECT 'rct_' || n, community_id, id, plugin, '', 'done', '[]', convert_to(b, 'UTF8'), NULL "
        "FROM instances, (VALUES ('01kf0000000000000000000001', $2), ('01kf0000000000000000000002', $3), "
        "('01kf0000000000000000000003', $4)) AS v(n, b) WHERE id = $1",
        mirror.instance,
        json.dumps({"member": {"user": {"id": account}}}),
        json.dumps({"member": {"user": {"id": "1"}}}),
        f"payload=%7B%22user%22%3A%22{account}%22%7D",
    )
    await pool.execute(
        "INSERT INTO mirror_oddities (instance_id, table_name, sha256, body) "
        "VALUES ($1, 'message', '\\x01', $2), ($1, 'message', '\\x02', $3)",
        mirror.instance,
        json.dumps({"author": {"id": account, "username": "zorblax_quill"}}),
        json.dumps({"author": {"id": "2"}}),
    )
    await pool.execute(
        "INSERT INTO seen (instance_id, key) VALUES ($1, 'event:joined:' || $2)", mirror.instance, account
    )
    await pool.execute(
        "INSERT INTO instance_states (instance_id, state, state_version) VALUES ($1, $2, 1) "
        "ON CONFLICT (instance_id) DO UPDATE SET state = excluded.state",
        mirror.instance,
        json.dumps({"greeted": [account, "2"], "count": 3}),
    )
    await pool.execute(
        "INSERT INTO polls (id, instance_id, plugin, name, cursor, next_at) "
        "VALUES ('pol_1', $1, 'discord', 'members', $2, now() + interval '1 day')",
        mirror.instance,
        json.dumps({"after": account}),
    )
    event = (
        "INSERT INTO events (id, driver_id, community_id, community, instance_id, source, event_type, timestamp, data, "
        "initiator) SELECT $2, c.driver_id, c.id, c.slug, i.id, $3, $4, now(), $5, $6 "
        "FROM instances i JOIN communities c ON c.id = i.community_id WHERE i.id = $1"
    )
    told = [
        ("discord", "message", {"author": {"id": account}}, None),
        ("ballot", "told", {"by": account, "of": 3}, None),
        ("randomness", "rolled", {"dice": 4}, {"user_id": "9", "provider": "slack", "external_id": metagov_id}),
    ]
    made = await pool.fetchval("SELECT max(id) FROM events")
    for number, (source, kind, data, initiator) in enumerate(told):
        spelt = None if initiator is None else json.dumps(initiator)
        await pool.execute(event, mirror.instance, f"{made[:-1]}{number}x", source, kind, json.dumps(data), spelt)
    await pool.execute("UPDATE attempts SET response_text = 'noted: ' || $1", account)


async def test_a_vote_that_is_withdrawn_can_be_cast_anew_and_counts_once(
    mirror: Mirrored, discord: FakeDiscord, driver: Driver, drains: Drains, deletion: Deletion
) -> None:
    _, person = await person_in(mirror, discord)
    account = str(person.id)
    process = await ballot(driver)
    await cast(driver, process, _bob="no")
    await drains.until_idle()
    await cast(driver, process, **{f"_{account}": "yes", "_ada": "yes"})
    await drains.until_idle()
    await cast(driver, process, **{f"_{account}": "no"})
    done = await deletion.carry_out(mirror, account)
    assert (done.finished, done.report.withdrawn) == (True, 1)
    await drains.until_idle()
    assert counts((await shown(driver, process))["outcome"]) == {"yes": 1, "no": 1}
    last = [each for each in (await driver.get("events")).json()["events"] if each["event_type"] == "process.updated"]
    assert counts(last[-1]["data"]["outcome"]) == {"yes": 1, "no": 1}
    await cast(driver, process, **{f"_{account}": "no"})
    await drains.until_idle()
    closed = await driver.http.delete(f"/api/internal/process/ballot.vote/{process}", headers=HEADER)
    assert counts(closed.json()["outcome"]) == {"yes": 1, "no": 2}
    assert await replayed(mirror, process) == closed.json()["outcome"]
    history = (await driver.get(f"process/ballot.vote/{process}/history")).json()["transitions"]
    assert [each["version"] for each in history] == list(range(1, len(history) + 1))


async def test_of_several_who_are_forgotten_each_vote_goes_on_counting(
    mirror: Mirrored, discord: FakeDiscord, driver: Driver, drains: Drains, deletion: Deletion
) -> None:
    town, person = await person_in(mirror, discord)
    accounts = [str(person.id), str(town.people[1].id), str(town.people[2].id)]
    process = await ballot(driver, options=["yes", "no", f"<@{accounts[2]}>"])
    await cast(driver, process, **{f"_{account}": "yes" for account in accounts[:2]}, _bob=f"<@{accounts[2]}>")
    await driver.http.delete(f"/api/internal/process/ballot.vote/{process}", headers=HEADER)
    await drains.until_idle()
    for account in accounts:
        assert (await deletion.carry_out(mirror, account)).finished
    outcome = (await shown(driver, process))["outcome"]
    assert [(each["option"], each["count"], each["voters"]) for each in outcome["options"]] == [
        ("yes", 2, ["(forgotten 2)", "(forgotten)"]),
        ("no", 0, []),
        ("(forgotten 3)", 1, ["bob"]),
    ]
    assert await replayed(mirror, process) == outcome
    assert await traces(mirror.gateway.db.pool, accounts) == {}


async def test_where_a_history_cannot_be_repeated_a_pseudonym_votes(
    mirror: Mirrored, discord: FakeDiscord, driver: Driver, drains: Drains, deletion: Deletion
) -> None:
    _, person = await person_in(mirror, discord)
    account, pool = str(person.id), mirror.gateway.db.pool
    process = await ballot(driver)
    await cast(driver, process, **{f"_{account}": "yes", "_ada": "no"})
    await drains.until_idle()
    await pool.execute("UPDATE processes SET plugin = 'gone'")
    done = await deletion.carry_out(mirror, account)
    assert (done.finished, done.report.withdrawn, done.report.renamed) == (True, 0, 1)
    outcome = json.loads(await pool.fetchval("SELECT outcome::text FROM processes"))
    assert [each["voters"] for each in outcome["options"]] == [["(forgotten)"], ["ada"]]
    assert await pool.fetchval("SELECT count(state_digest) FROM process_transitions WHERE signals IS NOT NULL") == 0
    assert await traces(pool, [account]) == {}


async def test_a_process_in_a_workers_hands_is_left_for_later(
    mirror: Mirrored, discord: FakeDiscord, driver: Driver, drains: Drains, deletion: Deletion
) -> None:
    _, person = await person_in(mirror, discord)
    account, pool = str(person.id), mirror.gateway.db.pool
    process = await ballot(driver)
    await cast(driver, process, **{f"_{account}": "yes"})
    await drains.until_idle()
    await pool.execute("UPDATE processes SET lease_until = now() + interval '1 hour', epoch = epoch + 1")
    done = await deletion.carry_out(mirror, account)
    assert (done.finished, done.waits) == (False, "1 processes are in a worker's hands")
    await pool.execute("UPDATE processes SET lease_until = NULL")
    assert (await deletion.work(done.id)).finished
    assert await traces(pool, [account]) == {}


async def test_what_waits_is_handled_first(
    mirror: Mirrored, discord: FakeDiscord, drains: Drains, deletion: Deletion
) -> None:
    _, person = await person_in(mirror, discord)
    pool, account = mirror.gateway.db.pool, str(person.id)
    await pool.execute(
        "INSERT INTO receipts (id, community_id, instance_id, plugin, hook, headers, body, next_at) "
        "SELECT 'rct_01kf0000000000000000000001', community_id, id, plugin, 'interactions', '[]', $2, "
        "now() + interval '1 day' FROM instances WHERE id = $1",
        mirror.instance,
        json.dumps({"user": {"id": account}}).encode(),
    )
    done = await deletion.carry_out(mirror, account)
    assert not done.finished
    assert done.waits == "1 webhooks that name them have still to be handled"
    assert all("receipts" in name for name in (await traces(pool, [account]))[account])
    assert not (await deletion.work(done.id)).finished
    await pool.execute("UPDATE receipts SET next_at = NULL, status = 'done'")
    done = await deletion.work(done.id)
    assert (done.finished, done.waits, done.report.receipts) == (True, None, 1)
    assert await traces(pool, [account]) == {}


def cut_off(steps: tuple[Step, ...], number: int, *, before: bool) -> tuple[Step, ...]:
    """The steps, of which one ends with the lease still held, as in a process that was killed before or after it."""

    async def die(erasure: Erasure) -> None:
        if not before:
            await steps[number].run(erasure)
        raise ZeroDivisionError

    return (*steps[:number], Step(steps[number].name, die), *steps[number + 1 :])


@pytest.mark.parametrize("number", range(13))
async def test_cut_off_anywhere_a_worker_finishes_it(books: Mirrored, deletion: Deletion, number: int) -> None:
    fill(2)
    for notes in SHELF.notes.values():
        for note in notes:
            note["by"]["name"] = EVE if note["by"]["name"] == "eve" else note["by"]["name"]
    SHELF.books[0]["blurb"] = {"by": [f"@{EVE}", "others"], "liked_by": [EVE, "ada"]}
    SHELF.likes["1"] = ["ada", EVE]
    await books.sync()
    await deletion.archive(books)
    steps = tuple(deletion.forgetting.steps)
    assert len(steps) == 13
    request = await deletion.ask(books, EVE)
    broken = Forgetting(deletion.gateway.mirrors, cut_off(steps, number, before=number % 2 == 0))
    stopped = await forget_now(broken, request)
    assert (stopped.finished, stopped.waits, stopped.held_by_worker) == (False, None, True)
    done = await deletion.work(request)
    assert done.finished, done.waits
    assert await traces(deletion.gateway.db.pool, [EVE]) == {}
    assert await deletion.head_has(books, [EVE]) == set()
    assert [held.seq for held in done.report.held] == [1]
    assert done.report.rows == {"shelf.note": 6, "shelf.liked": 1}
    stands = await books.sync(sweep=True)
    assert {each["name"]: each["rows"] for each in stands["tables"]} == {
        "shelf.book": 2,
        "shelf.liked": 3,
        "shelf.note": 8,
    }
    assert await traces(deletion.gateway.db.pool, [EVE]) == {}


async def test_a_page_that_was_read_before_is_not_stored_after(books: Mirrored, deletion: Deletion) -> None:
    fill(2)
    SHELF.books[0]["owner"] = EVE
    await books.ask()
    async with books.gateway.db.begin() as session:
        (partition,) = await work.claim(session, MirrorPartition, limit=1, lease=work.LEASE)
    assert (await deletion.carry_out(books, EVE)).finished
    async with books.gateway.db.begin() as session:
        assert not await work.extend(session, partition, work.LEASE)
    await books.work()
    assert await traces(deletion.gateway.db.pool, [EVE]) == {}
    assert (await books.status())["state"] == "idle"


async def test_asked_for_again_it_is_gone_through_again(books: Mirrored, deletion: Deletion) -> None:
    fill(1)
    await books.sync()
    first = await deletion.carry_out(books, "nobody-4711")
    assert first.finished
    await books.gateway.db.pool.execute("UPDATE mirror_shelf.note SET text = 'by nobody-4711' WHERE id = 1")
    again = await deletion.carry_out(books, "nobody-4711")
    assert (again.id, again.finished, again.report.texts) == (first.id, True, 1)


async def test_a_text_of_others_goes_only_if_it_is_named(books: Mirrored, deletion: Deletion) -> None:
    fill(1)
    SHELF.notes["b0"][0]["text"] = "Zorblax said so, as Zorblaxes do"
    await books.sync()
    await deletion.carry_out(books, EVE)
    assert (await books.rows("note"))["1"]["text"] == "Zorblax said so, as Zorblaxes do"
    await deletion.carry_out(books, EVE, ["Zorblax"])
    assert (await books.rows("note"))["1"]["text"] == "(forgotten) said so, as Zorblaxes do"
    SHELF.notes["b0"].append({**SHELF.notes["b0"][0], "id": 99, "text": "Zorblax again"})
    await books.sync()
    assert (await books.rows("note"))["99"]["text"] == "(forgotten) again"


async def test_an_old_snapshot_brings_nobody_back(books: Mirrored, deletion: Deletion) -> None:
    fill(2)
    SHELF.notes["b1"][0]["by"]["name"] = EVE
    SHELF.notes["b1"][1]["text"] = f"as @{EVE} said"
    await books.sync()
    await deletion.archive(books)
    (held,) = (await deletion.carry_out(books, EVE)).report.held
    instance, spec = await found(books)
    async with (
        deletion.archives.reader(instance.community_id, "town", "shelf", held.snapshot) as reader,
        open_sink(books.gateway.db, instance, spec, books.use.vault) as sink,
    ):
        assert await restore(reader, sink) == 20
    assert await traces(books.gateway.db.pool, [EVE]) == {}
    stands = {each["name"]: each["rows"] for each in (await books.status())["tables"]}
    assert stands == {"shelf.book": 2, "shelf.liked": 4, "shelf.note": 13}
    assert (await books.rows("note"))["102"]["text"] == "as (forgotten) said"


async def test_the_worker_carries_out_requests(books: Mirrored, deletion: Deletion, drains: Drains) -> None:
    fill(1)
    await books.sync()
    request = await deletion.ask(books, "bob")
    await drains.until_idle()
    done = await deletion.work(request)
    assert done.finished
    assert done.report.rows == {"shelf.liked": 1, "shelf.note": 4}
