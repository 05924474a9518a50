"""Shares open three files to whoever has the token, and nothing else, until they end."""

from __future__ import annotations

import gzip
import json
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.core import asgi
from app.gateway import Gateway
from app.graphs.public import takes_gzip
from app.graphs.shares import FILES
from tests.conftest import Driver
from tests.graphs.service.towns import PROPS_CONFIG, Place, small_town
from tests.support.problems import problem

INTERNAL = "/api/internal/graph"


@pytest.fixture
async def built(place: Place) -> Place:
    await place.enable(props=PROPS_CONFIG)
    await place.work()
    return place


def path_of(url: str) -> str:
    return url.removeprefix("http://127.0.0.1:8000")


async def test_a_share_opens_the_three_files(built: Place, anonymous: httpx.AsyncClient) -> None:
    share = await built.share("props")
    assert share.keys() == {"id", "graph_url", "declaration_url", "identity_proposals_url"}
    graph = await anonymous.get(path_of(share["graph_url"]))
    assert graph.status_code == 200
    assert graph.headers["content-type"] == "application/json"
    assert [each["type"] for each in graph.json() if "type" in each] == ["sourcecred/weightedGraph"]
    assert (await anonymous.get(path_of(share["declaration_url"]))).json()["name"] == "Props"
    people = (await anonymous.get(path_of(share["identity_proposals_url"]))).json()
    assert {each["name"] for each in people} == {"ann", "quiet", "B-a--b--amp---co-"}
    assert share["declaration_url"].endswith("/declaration.json")
    assert share["identity_proposals_url"].endswith("/identityProposals.json")


async def test_a_token_is_long_random_and_stored_as_its_hash(built: Place, gateway: Gateway) -> None:
    made = [await built.share("props") for _ in range(5)]
    tokens = {each["graph_url"].split("/")[-2] for each in made}
    assert len(tokens) == 5
    assert all(len(token.removeprefix("mgg_")) * 6 >= 256 for token in tokens)
    own = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    tables = [row["relname"] for row in await gateway.db.pool.fetch(own)]
    for table in tables:
        for (text,) in await gateway.db.pool.fetch(f'SELECT t::text FROM "{table}" t'):
            assert not any(token in text for token in tokens), table
    shown = (await built.graphs())["props"]
    assert not any(token in json.dumps(shown) for token in tokens)
    assert {each["id"] for each in shown["shares"]} == {each["id"] for each in made}


async def test_no_token_is_in_the_log(
    built: Place, anonymous: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = path_of((await built.share("props"))["graph_url"])
    token = url.split("/")[-2]
    logged: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(asgi, "_log", SimpleNamespace(info=lambda event, **fields: logged.append((event, fields))))
    for path in (url, f"/api/graphs/{token}/other", f"/api/graphs/{token}"):
        await anonymous.get(path)
    assert [fields["path"] for _, fields in logged] == ["/api/graphs/…"] * 3
    assert token not in json.dumps(logged, default=str)
    assert token not in (await anonymous.get("/metrics")).text


async def test_what_is_wrong_with_a_token_is_not_told(
    built: Place, anonymous: httpx.AsyncClient, gateway: Gateway
) -> None:
    async def answer(url: str) -> tuple[int, Any, str]:
        got = await anonymous.get(url)
        return got.status_code, got.json(), got.headers["cache-control"]

    good = await built.share("props")
    unknown = await answer("/api/graphs/mgg_" + "A" * 43 + "/graph.json")
    assert unknown[0] == 404
    assert unknown[2] == "no-store"
    assert await answer(path_of(good["graph_url"]).replace("graph.json", "index.sqlite")) == unknown
    for name in ("..%2fgraph.json", "", "graph.json/x", "Graph.json", "graph.json%00"):
        assert (await anonymous.get(path_of(good["graph_url"]).replace("graph.json", name))).status_code in (404, 422)
    assert await answer(f"/api/graphs/{'a' * 5000}/graph.json") == unknown
    token = good["graph_url"].split("/")[-2]
    assert await answer(f"/api/graphs/{token.swapcase()}/graph.json") == unknown

    revoked = await built.driver.http.delete(
        f"{INTERNAL}/props/shares/{good['id']}", headers={"X-Metagov-Community": "town"}
    )
    assert revoked.status_code == 204
    assert await answer(path_of(good["graph_url"])) == unknown

    expired = await built.share("props", expires_at="2999-01-01T00:00:00Z")
    assert (await anonymous.get(path_of(expired["graph_url"]))).status_code == 200
    await gateway.db.pool.execute("UPDATE graph_shares SET expires_at = clock_timestamp()")
    assert await answer(path_of(expired["graph_url"])) == unknown
    assert (await built.graphs())["props"]["shares"] == []

    other = await built.share("props")
    await built.enable()
    assert await answer(path_of(other["graph_url"])) == unknown, "the plugin is disabled"
    await built.enable(props=PROPS_CONFIG)
    assert (await anonymous.get(path_of(other["graph_url"]))).status_code == 200
    await built.driver.http.delete("/api/internal/community/town")
    assert await answer(path_of(other["graph_url"])) == unknown, "the community is deleted"


async def test_a_share_of_a_graph_that_was_never_built_is_as_no_share(
    place: Place, anonymous: httpx.AsyncClient
) -> None:
    await place.enable(props=PROPS_CONFIG)
    share = await place.share("props")
    assert (await anonymous.get(path_of(share["graph_url"]))).status_code == 404
    await place.work()
    assert (await anonymous.get(path_of(share["graph_url"]))).status_code == 200


async def test_known_versions_are_spared(built: Place, anonymous: httpx.AsyncClient) -> None:
    url = path_of((await built.share("props"))["graph_url"])
    plain = await anonymous.get(url, headers={"Accept-Encoding": "identity"})
    packed = await anonymous.get(url, headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert plain.content == packed.content, "httpx has unpacked it"
    assert int(plain.headers["content-length"]) == len(plain.content)
    assert int(packed.headers["content-length"]) < len(plain.content)
    assert plain.headers["etag"] != packed.headers["etag"]
    for answer in (plain, packed):
        assert answer.headers["cache-control"] == "private, no-cache"
        assert answer.headers["vary"].lower() == "accept-encoding"
        assert answer.headers["x-content-type-options"] == "nosniff"
        known = await anonymous.get(url, headers={"If-None-Match": answer.headers["etag"]})
        assert (known.status_code, known.content) == (304, b"")
    assert (await anonymous.get(url, headers={"If-None-Match": '"other"'})).status_code == 200

    await built.archive(small_town(praises=9))
    await built.work()
    moved = await anonymous.get(url, headers={"If-None-Match": plain.headers["etag"]})
    assert moved.status_code == 200
    assert len(moved.content) > len(plain.content)


async def test_head_answers_as_get_without_a_body(built: Place, anonymous: httpx.AsyncClient) -> None:
    share = await built.share("props")
    for name in ("graph_url", "declaration_url", "identity_proposals_url"):
        for coding in ("gzip", "identity"):
            whole = await anonymous.get(path_of(share[name]), headers={"Accept-Encoding": coding})
            head = await anonymous.head(path_of(share[name]), headers={"Accept-Encoding": coding})
            assert head.content == b""
            ours = {key: value for key, value in head.headers.items() if key != "x-request-id"}
            assert ours == {key: value for key, value in whole.headers.items() if key != "x-request-id"}
    assert (await anonymous.post(path_of(share["graph_url"]))).status_code == 405


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("", False), ("gzip", True), ("deflate, gzip;q=0.5", True), ("gzip;q=0", False), ("gzip; q=0.000", False),
        ("*", True), ("identity", False), ("br,GZIP", True), ("notgzip", False), ("gzip;q=1.000, br", True),
    ],
)  # fmt: skip
def test_gzip_is_sent_where_it_is_accepted(header: str, wanted: bool) -> None:
    assert takes_gzip(header) is wanted


async def test_files_that_have_gone_are_made_again(built: Place, anonymous: httpx.AsyncClient) -> None:
    url = path_of((await built.share("props"))["graph_url"])
    before = await anonymous.get(url)
    for path in built.gateway.graphs.require_files().folder.glob("*/*"):
        path.unlink()
    answer = await anonymous.get(url)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
    await built.work()
    assert (await anonymous.get(url)).content == before.content


async def test_strangers_are_held_to_the_public_rate(built: Place, anonymous: httpx.AsyncClient) -> None:
    url = path_of((await built.share("props"))["declaration_url"])
    statuses = [(await anonymous.get(url)).status_code for _ in range(80)]
    assert statuses.count(429) >= 10
    assert statuses[0] == 200


async def test_wishes_that_cannot_be(built: Place) -> None:
    for body, pointer in (
        ({"expires_at": "2001-01-01T00:00:00Z"}, "/expires_at"),
        ({"expires_at": "2999-01-01T00:00:00"}, "/expires_at"),
        ({"expires_at": "soon"}, "/expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-14:00"}, "/expires_at"),
        ({"expires_at": "0001-01-01T00:00:00+14:00"}, "/expires_at"),
        ({"token": "mine"}, "/token"),
    ):
        answer = await built.driver.post("graph/props/shares", body)
        assert problem(answer, 422)["errors"][0]["pointer"] == pointer


async def test_a_repeated_request_makes_one_share(built: Place) -> None:
    first = await built.driver.post("graph/props/shares", None, Idempotency_Key="share-1")
    again = await built.driver.post("graph/props/shares", None, Idempotency_Key="share-1")
    assert first.json() == again.json()
    assert len((await built.graphs())["props"]["shares"]) == 1


async def test_another_driver_has_none_of_it(built: Place, other_driver: Driver, anonymous: httpx.AsyncClient) -> None:
    share = await built.share("props")
    other = Place(built.gateway, other_driver, "city")
    await other.enable(props=PROPS_CONFIG)
    path = f"{INTERNAL}/props/shares/{share['id']}"
    for slug, wanted in (("town", 400), ("city", 404)):
        answer = await other_driver.http.delete(path, headers={"X-Metagov-Community": slug})
        problem(answer, wanted)
    assert (await other.graphs())["props"]["shares"] == []
    assert (await anonymous.get(path_of(share["graph_url"]))).status_code == 200
    problem(await anonymous.get(INTERNAL, headers={"X-Metagov-Community": "town"}), 401)


async def test_the_served_bytes_are_the_stored_ones(built: Place, app: FastAPI, anonymous: httpx.AsyncClient) -> None:
    share = await built.share("props")
    folder = built.gateway.graphs.require_files().folder
    stored = {gzip.decompress(path.read_bytes()) for path in folder.glob("*/*.gz")}
    urls = (share["graph_url"], share["declaration_url"], share["identity_proposals_url"])
    assert {(await anonymous.get(path_of(url))).content for url in urls} == stored
    assert len(FILES) == 3
