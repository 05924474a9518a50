"""Two drivers, route by route: what names another's community, id or platform id is answered as if it did not exist.

`tests/support/foreign.py` has a case for each operation of the OpenAPI document; a new one without a case fails here.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import httpx
import pytest
from fastapi import FastAPI
from standardwebhooks import WebhookVerificationError

from app.gateway import Gateway
from app.installs.oauth.grants import fill, open_grant
from app.worker import Drains
from metagov_sdk import Installed
from tests.archives.memory import make_source
from tests.conftest import PROBE_SECRET, Driver
from tests.events.test_stream import reading
from tests.support.foreign import ASKED, CASES, FILLED, OPEN, Try
from tests.support.problems import problem
from tests.support.servers import listening
from tests.support.sink import Posted, Sink

SECRET = "theirs"
COMMUNITY = "#/components/parameters/Community"
INTERNAL = "/api/internal"
GRAPHS = {"name": "props", "config": {"props_channels": ["1"]}}


@dataclass(frozen=True, slots=True)
class Scene:
    """Our driver with its town, the other with its city and one of everything, and the same things made up."""

    driver: Driver
    theirs: dict[str, str]
    made_up: dict[str, str]
    document: dict[str, Any]

    told: ClassVar = ("sink", "own_person", "cursor")
    """Names of what is ours, or may be shown to anybody."""

    def operations(self) -> dict[str, dict[str, Any]]:
        """`METHOD /path` -> what the document says of it."""
        return {
            f"{method.upper()} {path}": operation
            for path, item in self.document["paths"].items()
            for method, operation in item.items()
            if isinstance(operation, dict) and "responses" in operation
        }

    async def send(self, operation: str, one: Try, names: Mapping[str, str], header: str) -> httpx.Response:
        """Make the request, with these names filled in."""
        method, _, template = operation.partition(" ")
        path = _fill(one.path or _fill(template, FILLED), names)
        return await self.driver.http.request(
            method,
            path,
            json=_fill(one.body, names),
            params=_fill(one.query, names),
            headers={"X-Metagov-Community": _fill(header, names), "X-Signature": "sha256=" + "0" * 64},
        )


@pytest.fixture
async def scene(
    app: FastAPI, gateway: Gateway, driver: Driver, other_driver: Driver, anonymous: httpx.AsyncClient, drains: Drains,
    sink: Sink,
) -> Scene:  # fmt: skip
    theirs = await one_of_everything(gateway, other_driver, anonymous, drains, sink)
    plugins = [
        {"name": "probe", "config": {"label": "ours", "webhook_secret": "ours"}},
        {"name": "ballot", "config": {}},
        GRAPHS,
    ]
    assert (await driver.put(plugins=plugins)).status_code == 201
    own_person = (await driver.http.post(f"{INTERNAL}/identity/create_id", json={"community_slug": "town"})).json()[0]
    made_up = {name: f"{value[:4]}{'0' * (len(value) - 4)}" for name, value in theirs.items()}
    shared = {"own_person": own_person, "sink": sink.url, "cursor": "", "their_url": theirs["their_url"]}
    made_up |= shared | {"slug": "nonesuch"}
    return Scene(
        driver, theirs | {**shared, "cursor": theirs["cursor"]}, made_up, json.loads(json.dumps(app.openapi()))
    )


async def one_of_everything(
    gateway: Gateway, other: Driver, anonymous: httpx.AsyncClient, drains: Drains, sink: Sink
) -> dict[str, str]:
    """The other's ids."""
    plugins = [
        {"name": "probe", "config": {"label": "a", "webhook_secret": SECRET, "team": "T0123456"}},
        {"name": "ballot", "config": {}},
        GRAPHS,
    ]
    assert (await other.put("city", plugins=plugins)).status_code == 201
    endpoint = await other.http.post(f"{INTERNAL}/driver/endpoints", json={"url": f"{sink.url}/theirs"})
    person = (await other.http.post(f"{INTERNAL}/identity/create_id", json={"community_slug": "city"})).json()[0]
    account = {"platform_type": "probe", "platform_identifier": "u1", "community_slug": "city", "external_id": person}
    assert (await other.http.post(f"{INTERNAL}/identity/link_account", json=account)).status_code == 200
    vote = await other.post(
        "process/ballot.vote", {**ASKED, "eligible_voters": ["ada"], "callback_url": f"{sink.url}/theirs"}, slug="city"
    )
    cast = {"process_id": vote.json()["id"], "voter": "ada", "choice": "pear"}
    assert (await other.act("ballot.cast", cast, slug="city")).status_code == 200
    signature = "sha256=" + hmac.new(SECRET.encode(), b"{}", hashlib.sha256).hexdigest()
    hook = await anonymous.post(
        "/api/hooks/city/probe", content=b"{}", headers={"X-Signature": signature, "X-Team": "T0123456"}
    )
    assert hook.status_code == 202
    at_rest = "SELECT NOT EXISTS (SELECT FROM processes WHERE next_at IS NOT NULL)"
    async with asyncio.timeout(10):
        while not await gateway.db.pool.fetchval(at_rest):
            await drains.until_idle()
            await asyncio.sleep(0.05)
    community_id = await gateway.db.pool.fetchval("SELECT id FROM communities WHERE slug = 'city'")
    state, _ = gateway.oauth.states.make("probe", "app", other.id, community_id, f"{sink.url}/theirs", None)
    state_hash = await open_grant(gateway.db, gateway.oauth.states.read(state, "probe")[0])
    assert state_hash is not None
    oauth_code = await fill(gateway.db, gateway.vault, state_hash, Installed("T0123456"))
    archived = await gateway.archives.write(community_id, make_source(messages=5, community="city", provider="probe"))
    manifest = await other.get(f"archive/probe/manifest/{archived.head.snapshot}", slug="city")
    share = (await other.post("graph/props/shares", slug="city")).json()
    await drains.until_idle()
    events = (await other.get("events", slug="city")).json()
    instances = {one["name"]: one["id"] for one in (await other.get("plugin", slug="city")).json()["plugins"]}
    return {
        "slug": "city",
        "team": "T0123456",
        "instance": instances["probe"],
        "ballot_instance": instances["ballot"],
        "process": vote.json()["id"],
        "endpoint": endpoint.json()["id"],
        "receipt": (await other.get("receipts", slug="city")).json()["receipts"][0]["id"],
        "delivery": (await other.get("deliveries", slug="city")).json()["deliveries"][0]["id"],
        "event": events["events"][0]["id"],
        "cursor": events["next"],
        "person": person,
        "driver": other.id,
        "community": community_id,
        "oauth_code": oauth_code,
        "snapshot": archived.head.snapshot,
        "blob": manifest.json()["tables"][0]["chunks"][0]["sha256"],
        "share": share["id"],
        "token": share["graph_url"].split("/")[-2],
        "their_url": f"{sink.url}/theirs",
    }


def _fill(value: Any, names: Mapping[str, str]) -> Any:
    """The names in all texts; those there are none of stay."""
    if isinstance(value, dict):
        return {key: _fill(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, names) for item in value]
    if isinstance(value, str):
        for name, text in names.items():
            value = value.replace("{" + name + "}", text)
    return value


def _without(text: str, names: Mapping[str, str]) -> str:
    """The text with names in place of what they stand for."""
    for name, value in sorted(names.items(), key=lambda item: -len(item[1])):
        text = text.replace(value, "{" + name + "}") if value else text
    return text


async def database(gateway: Gateway) -> dict[str, set[str]]:
    """Every row of every table, as text."""
    tables = await gateway.db.pool.fetch(
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition "
        "AND relnamespace = 'public'::regnamespace AND relname <> 'heartbeats'"
    )
    return {
        name: {row[0] for row in await gateway.db.pool.fetch(f'SELECT t::text FROM "{name}" t')} for (name,) in tables
    }


async def test_every_operation_has_a_case(scene: Scene) -> None:
    operations = scene.operations()
    plain = {name for name in operations if not _is_plugins(name)}
    assert plain - CASES.keys() - OPEN.keys() == set(), "operations without a case"
    assert (CASES.keys() | OPEN.keys()) - operations.keys() == set(), "cases without an operation"
    for name, operation in operations.items():
        if _is_plugins(name) and name not in CASES:
            named = [each for each in _parameters(scene.document, operation) if each.endswith(("_id", "_ids"))]
            assert named == [], f"{name} takes ids, and has no case"


def _is_plugins(operation: str) -> bool:
    """Whether a plugin brings it: an action, or the start of a process."""
    return operation.startswith(("POST /api/action/", "POST /api/internal/process/"))


def _parameters(document: dict[str, Any], operation: dict[str, Any]) -> list[str]:
    """The names of what a plugin's operation takes; the gateway's own are left out."""
    if "requestBody" not in operation:
        return []
    schema = _resolved(document, operation["requestBody"]["content"]["application/json"]["schema"])
    schema = _resolved(document, schema["properties"].get("parameters", schema))
    return [name for name in schema.get("properties", {}) if name not in ("community_platform_id", "correlation_id")]


def _resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


@pytest.mark.parametrize("operation", CASES)
async def test_what_is_anothers_is_not_there(scene: Scene, operation: str) -> None:
    for one in CASES[operation]:
        answer = await scene.send(operation, one, scene.theirs, one.header)
        assert answer.status_code == one.status, (one, answer.text)
        if one.status >= 400:
            problem(answer, one.status, one.slug)
        ours = _without(answer.text, scene.theirs)
        if one.as_unknown:
            unknown = await scene.send(operation, one, scene.made_up, one.header)
            assert unknown.status_code == one.status, (one, unknown.text)
            assert ours == _without(unknown.text, scene.made_up), one
        if one.status < 300 and operation != "POST /api/internal/driver/endpoints":
            named = [name for name in scene.theirs if name not in scene.told and "{" + name + "}" in ours]
            assert named == [], f"{one}: it shows what is the other's"


async def test_anothers_community_in_the_header_is_as_an_unknown_one(scene: Scene) -> None:
    """In every operation that wants the header, whatever else is in the request."""
    count = 0
    for name, operation in scene.operations().items():
        if not any(each.get("$ref") == COMMUNITY for each in operation.get("parameters", [])):
            continue
        for one in CASES.get(name, [Try(400, {})]):
            foreign = await scene.send(name, one, scene.theirs, "{slug}")
            unknown = await scene.send(name, one, scene.made_up, "{slug}")
            assert "X-Metagov-Community" in problem(foreign, 400)["detail"], name
            assert foreign.content == unknown.content, name
            count += 1
        if name.startswith("POST /api/action/"):
            internal = Try(400, {}, path="/api/internal" + name.removeprefix("POST /api"))
            problem(await scene.send(name, internal, scene.theirs, "{slug}"), 400)
    assert count > 15


async def test_none_of_it_leaves_a_trace(scene: Scene, gateway: Gateway, drains: Drains, sink: Sink) -> None:
    """All the requests, one after the other: the other's rows are as they were, and nothing of it is elsewhere."""
    before = await database(gateway)
    posted = len(sink.posts)
    for operation, tries in CASES.items():
        for one in tries:
            await scene.send(operation, one, scene.theirs, one.header)
            await scene.send(operation, one, scene.theirs, "{slug}")
    await drains.until_idle()
    after = await database(gateway)
    for table, rows in before.items():
        theirs = {row for row in rows if any(scene.theirs[name] in row for name in ("driver", "community", "process"))}
        assert theirs <= after[table], f"{table}: rows of the other's have changed"
    ids = [scene.theirs[name] for name in ("driver", "community", "process", "instance", "person", "delivery", "event")]
    for table in after:
        fresh = after[table] - before[table]
        assert [row for row in fresh if any(each in row for each in ids)] == [], table
        if table in ("signals", "processes", "deliveries"):
            assert fresh == set(), table
    assert sink.posts[posted:] == []


def signer(posted: Posted, secrets: Mapping[str, str]) -> list[str]:
    """Whose secrets the post is signed with."""
    found = []
    for name, secret in secrets.items():
        try:
            posted.verify(secret)
        except WebhookVerificationError:
            continue
        found.append(name)
    return found


async def test_a_callback_url_of_anothers_brings_nothing_of_theirs(
    scene: Scene, other_driver: Driver, drains: Drains, sink: Sink
) -> None:
    """Both name one URL: each process's posts are signed by its own driver alone, and neither sees the other's."""
    driver, url = scene.driver, scene.theirs["their_url"]
    sink.posts.clear()
    ours = await driver.post("process/ballot.vote", {**ASKED, "callback_url": url})
    assert ours.status_code == 202
    for who, where in ((driver, ours.json()["id"]), (other_driver, scene.theirs["process"])):
        slug = "town" if who is driver else "city"
        path = f"{INTERNAL}/process/ballot.vote/{where}"
        assert (await who.http.delete(path, headers={"X-Metagov-Community": slug})).status_code == 200
    await drains.until_idle()
    callbacks = [post for post in sink.posts if "source" not in post.json]
    secrets = {"town": driver.signing_secret, "city": other_driver.signing_secret}
    assert {post.json["community"] for post in callbacks} == {"town", "city"}
    for post in callbacks:
        assert signer(post, secrets) == [post.json["community"]]
    shown = [(await who.http.get(f"{INTERNAL}/deliveries")).json()["deliveries"] for who in (driver, other_driver)]
    assert {one["id"] for one in shown[0]}.isdisjoint(one["id"] for one in shown[1])
    assert (await driver.http.get(f"{INTERNAL}/driver/endpoints")).json()["endpoints"] == []


@pytest.mark.parametrize("way", ["post", "put", "patch"])
async def test_a_platform_id_beside_the_config_is_no_claim_either(
    scene: Scene, anonymous: httpx.AsyncClient, drains: Drains, way: str
) -> None:
    """Webhooks under the deployment's secret go to none who named the team without credentials for it."""
    driver, team = scene.driver, "T7654321"
    header = {"X-Metagov-Community": "village"}
    bare = {"name": "probe", "config": {"label": "b"}}
    await driver.put("village")
    if way == "put":
        answer = await driver.put("village", plugins=[{**bare, "community_platform_id": team}])
    elif way == "post":
        url = f"{INTERNAL}/plugin/probe"
        query = {"community_platform_id": team}
        answer = await driver.http.post(url, json=bare["config"], params=query, headers=header)
    else:
        own = {"name": "probe", "config": {"label": "b", "team": team, "webhook_secret": "made up"}}
        made = (await driver.put("village", plugins=[own])).json()["plugins"][0]["id"]
        patch = {"config": {"team": None, "webhook_secret": None}}
        answer = await driver.http.patch(f"{INTERNAL}/plugin/probe/{made}", json=patch, headers=header)
    body = b'{"text": "private"}'
    signature = "sha256=" + hmac.new(PROBE_SECRET.encode(), body, hashlib.sha256).hexdigest()
    await anonymous.post("/api/hooks/probe", content=body, headers={"X-Signature": signature, "X-Team": team})
    await drains.until_idle()
    assert (await driver.get("receipts", slug="village")).json()["receipts"] == []
    problem(answer, 422)


async def test_one_idempotency_key_of_two_drivers_is_two_keys(scene: Scene, other_driver: Driver) -> None:
    started = await scene.driver.post("process/ballot.vote", ASKED, Idempotency_Key="k")
    theirs = await other_driver.post("process/ballot.vote", ASKED, slug="city", Idempotency_Key="k")
    assert started.json()["id"] != theirs.json()["id"]
    assert [each.json()["community"] for each in (started, theirs)] == ["town", "city"]
    answers = [
        await who.http.post(
            "/api/action/ballot.cast",
            json={"parameters": {"process_id": vote.json()["id"], "voter": "ada", "choice": "pear"}},
            headers={"X-Metagov-Community": slug, "Idempotency-Key": "cast"},
        )
        for who, vote, slug in ((scene.driver, started, "town"), (other_driver, theirs, "city"))
    ]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json()["position"] != answers[1].json()["position"]


async def test_a_vote_in_a_process_of_another_of_ones_own_communities_is_404(scene: Scene, gateway: Gateway) -> None:
    """What is one driver's is not yet one community's."""
    await scene.driver.put("village", plugins=[{"name": "ballot", "config": {}}])
    vote = (await scene.driver.post("process/ballot.vote", ASKED)).json()["id"]
    before = await gateway.db.pool.fetchval("SELECT count(*) FROM signals")
    cast = {"process_id": vote, "voter": "ada", "choice": "pear"}
    problem(await scene.driver.act("ballot.cast", cast, slug="village"), 404)
    header = {"X-Metagov-Community": "village"}
    for method, tail in (("GET", ""), ("DELETE", ""), ("GET", "/history")):
        path = f"{INTERNAL}/process/ballot.vote/{vote}{tail}"
        problem(await scene.driver.http.request(method, path, headers=header), 404)
    assert await gateway.db.pool.fetchval("SELECT count(*) FROM signals") == before


async def test_the_stream_is_ones_own(scene: Scene, app: FastAPI, other_driver: Driver, drains: Drains) -> None:
    async with listening(app) as url, reading(url, scene.driver, scene.theirs["cursor"]) as reader:
        await other_driver.act("probe.echo", {"text": "private"}, slug="city")
        await drains.until_idle()
        await scene.driver.act("probe.echo", {"text": "ours"})
        got = json.loads((await reader.next())["data"])
    assert (got["community"], got["data"]["text"]) == ("town", "ours")
    async with listening(app) as url, reading(url, scene.driver, after="", community="city") as reader:
        with pytest.raises((TimeoutError, StopAsyncIteration)):
            async with asyncio.timeout(0.5):
                await reader.next()


async def test_a_deadline_of_anothers_is_not_moved(scene: Scene, other_driver: Driver) -> None:
    """Not by any request that names it, and not by a vote that would be in time."""
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    vote = await other_driver.post("process/ballot.vote", {**ASKED, "closing_at": soon}, slug="city")
    path = f"{INTERNAL}/process/ballot.vote/{vote.json()['id']}"
    for header in ("town", "city"):
        answer = await scene.driver.http.delete(path, headers={"X-Metagov-Community": header})
        problem(answer, 404 if header == "town" else 400)
    shown = await other_driver.http.get(path, headers={"X-Metagov-Community": "city"})
    assert shown.json() == vote.json()
