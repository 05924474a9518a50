"""The SourceCred plugin against a server that behaves, and one that does not."""

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from metagov_sdk import Rejected, Retry
from metagov_sdk.testing import NOW, Ran, bind, perform
from plugins.sourcecred import manifest
from plugins.sourcecred.accounts import parse_accounts
from plugins.sourcecred.fetch import CACHE, LARGEST_FILE, Cache, Kept
from tests.fakes.sourcecred import FakeSourceCred, account, accounts_file, discord_alias, github_alias

ADA = account("ada", [1.0, 2.5, 0.0], [discord_alias("1001"), github_alias("ada-l")])
BOB = account("bob", [4.0, 0.0, 0.25], [discord_alias("1002"), github_alias("7")])
CAT = account("cat", [4.0, 0.25, 0.0], [discord_alias("7")])


@pytest.fixture(autouse=True)
def _empty_cache() -> Iterator[None]:
    CACHE.clear()
    yield
    CACHE.clear()


@pytest.fixture
async def server() -> AsyncIterator[FakeSourceCred]:
    async with FakeSourceCred(accounts_file(ADA, CAT, BOB)) as fake:
        yield fake


async def ask(server: FakeSourceCred, slug: str, params: dict[str, Any] | None = None, *, after: float = 0) -> Ran:
    """Perform an action `after` seconds from the start of the test's time."""
    async with httpx.AsyncHTTPTransport() as transport:
        return await perform(
            manifest,
            slug,
            params,
            config={"server_url": server.url},
            now=NOW + timedelta(seconds=after),
            transport=transport,
        )


@pytest.mark.parametrize(
    "params",
    [{"username": "ada"}, {"id": "1001"}, {"id": "ada-l"}, {"id": ADA["account"]["identity"]["id"]}],
    ids=["name", "discord id", "github login", "identity id"],
)
async def test_a_persons_cred_by_any_of_their_names(server: FakeSourceCred, params: dict[str, Any]) -> None:
    assert (await ask(server, "user-cred", params)).result == {"value": 3.5, "age_seconds": 0}


async def test_the_communitys_cred(server: FakeSourceCred) -> None:
    assert (await ask(server, "total-cred")).result == {"value": 12.0, "age_seconds": 0}


async def test_cred_by_week_of_a_person(server: FakeSourceCred) -> None:
    result = (await ask(server, "weekly-cred", {"username": "ada", "weeks": 2})).result
    assert result == {
        "weeks": [
            {"starts_at": "2026-01-11T00:00:00Z", "ends_at": "2026-01-18T00:00:00Z", "value": 2.5},
            {"starts_at": "2026-01-18T00:00:00Z", "ends_at": "2026-01-25T00:00:00Z", "value": 0.0},
        ],
        "age_seconds": 0,
    }


async def test_cred_by_week_of_the_community(server: FakeSourceCred) -> None:
    result = (await ask(server, "weekly-cred")).result
    assert [week["value"] for week in result["weeks"]] == [9.0, 2.75, 0.25]


async def test_weeks_of_an_older_sourcecred_that_gives_end_points(server: FakeSourceCred) -> None:
    del server.document["intervals"]
    server.document["intervalEndpoints"] = [1_768_089_600_000, 1_768_694_400_000, None]
    weeks = (await ask(server, "weekly-cred", {"username": "ada"})).result["weeks"]
    assert [(week["starts_at"], week["ends_at"]) for week in weeks] == [
        (None, "2026-01-11T00:00:00Z"),
        ("2026-01-11T00:00:00Z", "2026-01-18T00:00:00Z"),
        ("2026-01-18T00:00:00Z", None),
    ]


async def test_weeks_without_times_are_still_counted(server: FakeSourceCred) -> None:
    server.document["intervals"] = []
    weeks = (await ask(server, "weekly-cred", {"username": "ada"})).result["weeks"]
    assert [(week["ends_at"], week["value"]) for week in weeks] == [(None, 1.0), (None, 2.5), (None, 0.0)]


async def test_the_top_accounts_in_order_equals_by_name(server: FakeSourceCred) -> None:
    accounts = (await ask(server, "top-accounts", {"limit": 2})).result["accounts"]
    assert [(item["name"], item["value"]) for item in accounts] == [("bob", 4.25), ("cat", 4.25)]
    assert accounts[0]["id"] == BOB["account"]["identity"]["id"]


async def test_a_community_without_cred(server: FakeSourceCred) -> None:
    server.document = accounts_file()
    assert (await ask(server, "total-cred")).result["value"] == 0
    assert (await ask(server, "weekly-cred")).result["weeks"] == []
    assert (await ask(server, "top-accounts")).result["accounts"] == []


async def test_somebody_unknown_is_refused_by_name(server: FakeSourceCred) -> None:
    with pytest.raises(Rejected, match="no account with the name 'dan'"):
        await ask(server, "user-cred", {"username": "dan"})


async def test_an_id_of_two_people_on_different_platforms_is_refused(server: FakeSourceCred) -> None:
    with pytest.raises(Rejected, match="2 accounts have the id '7'"):
        await ask(server, "user-cred", {"id": "7"})


async def test_nobody_named_is_a_fault_of_the_parameters(server: FakeSourceCred) -> None:
    with pytest.raises(ValidationError, match="by username or by id"):
        await ask(server, "user-cred", {})
    assert server.requests == []


async def test_all_actions_are_public() -> None:
    assert {slug for slug, action in manifest.actions.items() if action.public} == set(manifest.actions)


async def test_within_a_minute_the_server_is_asked_once_and_the_age_is_told(server: FakeSourceCred) -> None:
    await ask(server, "total-cred")
    assert (await ask(server, "user-cred", {"username": "ada"}, after=59)).result == {"value": 3.5, "age_seconds": 59}
    assert len(server.requests) == 1


async def test_after_a_minute_the_server_is_asked_whether_anything_changed(server: FakeSourceCred) -> None:
    await ask(server, "total-cred")
    assert (await ask(server, "total-cred", after=61)).result == {"value": 12.0, "age_seconds": 0}
    assert (await ask(server, "total-cred", after=100)).result["age_seconds"] == 39
    (_, first), (_, second) = server.requests
    assert "if-none-match" not in first
    assert second["if-none-match"].startswith('"')


async def test_a_changed_file_is_read_anew(server: FakeSourceCred) -> None:
    await ask(server, "total-cred")
    server.document = accounts_file(ADA)
    assert (await ask(server, "total-cred", after=61)).result == {"value": 3.5, "age_seconds": 0}


async def test_a_clock_that_goes_back_gives_no_negative_age(server: FakeSourceCred) -> None:
    await ask(server, "total-cred", after=30)
    assert (await ask(server, "total-cred", after=0)).result["age_seconds"] == 0


async def test_old_figures_are_not_passed_off_when_the_server_fails(server: FakeSourceCred) -> None:
    await ask(server, "total-cred")
    server.status = 500
    with pytest.raises(Retry):
        await ask(server, "total-cred", after=61)


@pytest.mark.parametrize(
    ("status", "headers", "after"),
    [
        (500, {}, None),
        (503, {"Retry-After": "7"}, 7.0),
        (429, {"Retry-After": "999999999"}, 86_400.0),
        (502, {"Retry-After": "soon"}, None),
    ],
)
async def test_a_server_that_fails_is_tried_again(
    server: FakeSourceCred, status: int, headers: dict[str, str], after: float | None
) -> None:
    server.status, server.headers = status, headers
    with pytest.raises(Retry, match=f"answers {status}") as raised:
        await ask(server, "total-cred")
    assert raised.value.after == after


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (404, "run `sourcecred analysis`"),
        (302, "set server_url to where it leads"),
        (304, "answers 304"),
        (403, "answers 403"),
        (204, "answers 204"),
    ],
)
async def test_a_server_that_has_nothing_for_us_is_refused(server: FakeSourceCred, status: int, words: str) -> None:
    server.status, server.headers = status, {"Location": "http://127.0.0.1:1/"}
    with pytest.raises(Rejected, match=words):
        await ask(server, "total-cred")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the file"),
        (b"<html>", "the file"),
        (b"[]", "the file"),
        (b"{}", "accounts"),
        (b'{"accounts": [{"totalCred": 1}]}', "accounts.0.account"),
        (b'{"accounts": [{"account": {"identity": {"id": "a", "name": "b"}}, "totalCred": NaN}]}', "totalCred"),
        (b'{"accounts": [{"account": {"identity": {"id": "a", "name": "b"}}, "totalCred": 1e300}]}', "totalCred"),
        (b'{"accounts": [], "intervals": [{"startTimeMs": 1e300}]}', "startTimeMs"),
        (b"[" * 100_000, "the file"),
        (b"\xff\xfe", "the file"),
    ],
)
async def test_a_file_that_is_not_sourcecreds_is_refused(server: FakeSourceCred, body: bytes, words: str) -> None:
    server.body = body
    with pytest.raises(Rejected, match="not a SourceCred accounts file") as raised:
        await ask(server, "total-cred")
    assert words in raised.value.reason
    assert len(raised.value.reason) < 300


async def test_a_file_too_large_is_given_up_on(server: FakeSourceCred) -> None:
    server.body = b" " * (LARGEST_FILE + 1)
    with pytest.raises(Rejected, match="larger than 8 MiB"):
        await ask(server, "total-cred")


async def test_a_compressed_answer_that_cannot_be_unpacked_is_refused(server: FakeSourceCred) -> None:
    server.headers = {"Content-Encoding": "gzip"}
    with pytest.raises(Rejected, match="cannot be read"):
        await ask(server, "total-cred")


async def test_a_server_that_is_away_is_tried_again() -> None:
    async with FakeSourceCred() as gone:
        pass
    with pytest.raises(Retry, match="cannot be reached"):
        await ask(gone, "total-cred")


def test_the_cache_forgets_the_least_recently_used() -> None:
    cache = Cache(largest=100)
    file = parse_accounts(b'{"accounts": []}', "test")
    for name in ("a", "b"):
        cache.put(name, Kept(file, None, 40, NOW))
    cache.get("a")
    cache.put("c", Kept(file, None, 40, NOW))
    assert [name for name in "abc" if cache.get(name)] == ["a", "c"]
    cache.put("huge", Kept(file, None, 101, NOW))
    assert cache.get("huge") is None


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://cred.example.org", "https://cred.example.org"),
        ("HTTPS://Cred.Example.org:443/", "https://cred.example.org"),
        ("http://cred.example.org:80/Team//", "http://cred.example.org/Team"),
        ("https://cred.example.org:8443/team", "https://cred.example.org:8443/team"),
        ("http://[::1]:6006/", "http://[::1]:6006"),
    ],
)
def test_a_server_has_one_spelling(given: str, kept: str) -> None:
    plugin = bind(manifest, config={"server_url": given})
    assert plugin.community_platform_id == kept


@pytest.mark.parametrize(
    "given",
    [
        "",
        "cred.example.org",
        "ftp://cred.example.org",
        "https://",
        "https://user:word@cred.example.org",
        "https://cred.example.org/?a=1",
        "https://cred.example.org/#top",
        "https://cred.example.org:99999",
        "https://cred.example.org/a b",
        "https://cred.example.org/\n",
        "https://[::1",
        "https://" + "a" * 500,
    ],
)
def test_what_is_no_servers_address_is_refused_by_field(given: str) -> None:
    with pytest.raises(ValidationError) as raised:
        bind(manifest, config={"server_url": given})
    assert [error["loc"] for error in raised.value.errors()] == [("server_url",)]


async def test_the_path_of_the_server_is_kept() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, json=accounts_file(ADA))

    await perform(
        manifest,
        "total-cred",
        config={"server_url": "https://cred.example.org/team/"},
        transport=httpx.MockTransport(answer),
    )
    assert asked == ["https://cred.example.org/team/output/accounts.json"]
