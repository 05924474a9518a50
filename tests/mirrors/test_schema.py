"""The tables of providers: made, extended and filled by `apply_schemas`; refused where rows cannot follow."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.core.db import Database
from app.core.settings import Settings
from app.gateway import Gateway
from app.mirrors.columns import tables_of
from app.mirrors.schema import apply_schemas, find_pending
from app.mirrors.walking import sync_due
from metagov_sdk import DataProvider, Page, Place, Record, listing
from metagov_sdk.provider import ProviderSpec
from tests.conftest import Driver
from tests.mirrors.conftest import Mirrored
from tests.mirrors.shelf import SHELF


def provider(name: str, annotations: dict[str, Any], key: tuple[str, ...] = ("id",)) -> ProviderSpec:
    """A provider of one table with these fields."""
    namespace = {
        "__annotations__": annotations,
        "__doc__": "A thing.",
        "__module__": __name__,
        "table": "thing",
        "key": key,
    }
    record: type[Record] = type("Thing", (Record,), namespace)

    class Things(DataProvider[Any]):
        """Things."""

        @listing(record)
        async def things(self, place: Place) -> Page:
            return Page()

    return ProviderSpec(Things, name)


BASE: dict[str, Any] = {"id": str, "title": str | None, "size": int | None}


async def pending(db: Database, spec: ProviderSpec) -> dict[str, str]:
    async with db.begin() as session:
        return await find_pending(session, [spec])


@pytest.fixture
async def made(gateway: Gateway) -> Any:
    """The table of a provider, with three rows of an instance."""
    spec = provider("evolving", BASE)
    await gateway.db.pool.execute("DROP SCHEMA IF EXISTS mirror_evolving CASCADE")
    await gateway.db.pool.execute("DELETE FROM mirror_tables WHERE provider = 'evolving'")
    assert await pending(gateway.db, spec) != {}
    done = await apply_schemas(gateway.db, [spec])
    assert done.made == ["evolving.thing"]
    for number, extra in enumerate([{"colour": "red", "at": "2026-01-01T00:00:00Z", "rest": 1}, {"colour": 5}, {}]):
        await gateway.db.pool.execute(
            "INSERT INTO mirror_evolving.thing "
            "(instance_id, community_id, id, title, extra, mirror_pass, first_seen, synced_at) "
            "VALUES ('ins', 'com', $1, 't', $2::jsonb, 0, now(), now())",
            f"t{number}",
            json.dumps(extra),
        )
    yield spec
    await gateway.db.pool.execute("DROP SCHEMA mirror_evolving CASCADE")
    await gateway.db.pool.execute("DELETE FROM mirror_tables WHERE provider = 'evolving'")


async def test_applying_again_changes_nothing(gateway: Gateway, made: ProviderSpec) -> None:
    done = await apply_schemas(gateway.db, [made])
    assert (done.made, done.extended, done.refused) == ([], {}, {})
    assert await pending(gateway.db, made) == {}


async def test_new_fields_are_filled_from_what_was_kept(gateway: Gateway, made: ProviderSpec) -> None:
    more = provider("evolving", {**BASE, "colour": str | None, "at": datetime | None})
    reason = (await pending(gateway.db, more))["evolving"]
    assert reason == "the table evolving.thing lacks colour, at: run `metagov migrate`"
    done = await apply_schemas(gateway.db, [more])
    assert done.extended == {"evolving.thing": ["colour", "at"]}
    assert await pending(gateway.db, more) == {}
    rows = await gateway.db.pool.fetch("SELECT id, colour, at::text, extra FROM mirror_evolving.thing ORDER BY id")
    assert [(row["id"], row["colour"], row["at"], json.loads(row["extra"])) for row in rows] == [
        ("t0", "red", "2026-01-01 00:00:00+00", {"rest": 1}),
        ("t1", "5", None, {"colour": 5}),
        ("t2", None, None, {}),
    ]


async def test_filling_goes_on_where_it_was_cut_off(gateway: Gateway, made: ProviderSpec) -> None:
    more = provider("evolving", {**BASE, "colour": str | None})
    await apply_schemas(gateway.db, [more])
    await gateway.db.pool.execute(
        "UPDATE mirror_evolving.thing SET colour = NULL, extra = '{\"colour\": \"blue\"}' WHERE id = 't2'"
    )
    await gateway.db.pool.execute("UPDATE mirror_tables SET filling = '[\"colour\"]' WHERE provider = 'evolving'")
    assert await pending(gateway.db, more) != {}
    await apply_schemas(gateway.db, [more])
    assert await gateway.db.pool.fetchval("SELECT colour FROM mirror_evolving.thing WHERE id = 't2'") == "blue"
    assert await pending(gateway.db, more) == {}


@pytest.mark.parametrize(
    ("fields", "key", "reason"),
    [
        ({**BASE, "size": str | None}, ("id",), "size was integer and is now text"),
        ({**BASE, "id": int}, ("id",), "id was text and is now integer"),
        ({"id": str, "title": str}, ("id", "title"), "its key was id and is now id, title"),
    ],
)
async def test_what_rows_cannot_follow_is_refused(
    gateway: Gateway, made: ProviderSpec, fields: dict[str, Any], key: tuple[str, ...], reason: str
) -> None:
    changed = provider("evolving", fields, key)
    done = await apply_schemas(gateway.db, [changed])
    assert reason in done.refused["evolving"]
    assert await pending(gateway.db, changed) != {}
    assert await pending(gateway.db, made) == {}


async def test_a_field_that_is_gone_leaves_its_column(gateway: Gateway, made: ProviderSpec) -> None:
    less = provider("evolving", {"id": str, "title": str | None})
    await apply_schemas(gateway.db, [less])
    assert await pending(gateway.db, less) == {}
    assert await gateway.db.pool.fetchval("SELECT count(size) FROM mirror_evolving.thing") == 0


async def test_nothing_is_read_while_a_migration_is_pending(books: Mirrored) -> None:
    SHELF.books = [{"id": "b0"}]
    await books.ask()
    pool = books.gateway.db.pool
    await pool.execute(
        "UPDATE mirror_tables SET filling = '[\"title\"]' WHERE provider = 'shelf' AND table_name = 'book'"
    )
    books.use._looked_at = -100.0
    await sync_due(books.use)
    assert SHELF.asked == []
    answer = await books.driver.post("mirror/shelf/sync", {})
    assert answer.status_code == 409
    assert "metagov migrate" in answer.json()["detail"]
    await pool.execute("UPDATE mirror_tables SET filling = '[]'")
    await books.work()
    assert (await books.status())["state"] == "idle"


def test_shapes_tell_the_tables_apart() -> None:
    one, other = provider("a", BASE), provider("a", {**BASE, "colour": str | None})
    assert tables_of(one)["thing"].sha256 != tables_of(other)["thing"].sha256
    assert tables_of(one)["thing"].sha256 == tables_of(provider("a", BASE))["thing"].sha256


@pytest.fixture
async def behind(gateway: Gateway) -> AsyncIterator[None]:
    """Discord's plugin is newer than the tables that are there: one lacks a column, of another the key has changed."""
    pool = gateway.db.pool
    kept = await pool.fetch("SELECT table_name, shape::text AS shape FROM mirror_tables WHERE provider = 'discord'")
    await pool.execute(
        "UPDATE mirror_tables SET shape = (shape::jsonb #- '{columns,content}')::json "
        "WHERE provider = 'discord' AND table_name = 'message'"
    )
    yield
    for row in kept:
        await pool.execute(
            "UPDATE mirror_tables SET shape = $2::json WHERE provider = 'discord' AND table_name = $1",
            row["table_name"],
            row["shape"],
        )


@pytest.mark.usefixtures("behind")
async def test_readyz_names_what_waits_for_a_migration_and_says_why_with_a_key(app: FastAPI, driver: Driver) -> None:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as stranger:
        openly = (await stranger.get("/readyz?verbose")).json()
    assert openly["mirrors"] == {"pending": [{"provider": "discord"}]}
    told = (await driver.http.get("/readyz?verbose")).json()
    reason = "the table discord.message lacks content: run `metagov migrate`"
    assert told["mirrors"] == {"pending": [{"provider": "discord", "reason": reason}]}
    assert told["status"] == "ready"


@pytest.mark.usefixtures("behind")
async def test_doctor_names_what_waits_and_what_is_refused(gateway: Gateway, settings: Settings) -> None:
    async def doctor() -> str:
        environment = {
            **os.environ,
            "METAGOV_DATABASE_URL": settings.database_url,
            "METAGOV_REDIS_URL": settings.redis_url,
            "METAGOV_SECRET_KEYS": settings.secret_keys.get_secret_value(),
            "COLUMNS": "300",
        }
        command = [sys.executable, "-m", "app.cli", "doctor"]
        done = await asyncio.to_thread(
            subprocess.run, command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        return next(line for line in done.stdout.splitlines() if " mirrors " in line)

    said = await doctor()
    assert said.startswith("bad")
    assert "discord rests: the table discord.message lacks content: run `metagov migrate`" in said
    await gateway.db.pool.execute(
        "UPDATE mirror_tables SET shape = jsonb_set(shape::jsonb, '{key}', '[\"name\"]')::json "
        "WHERE provider = 'discord' AND table_name = 'channel'"
    )
    assert "discord.channel: its key was name and is now id" in await doctor()
