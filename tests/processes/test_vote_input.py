"""What a vote is refused for, over HTTP: the answer names the field, is short, and leaves nothing behind."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from app.gateway import Gateway
from app.worker import Drains
from tests.conftest import Driver
from tests.support.problems import pointers, problem

VOTE = "/api/internal/process/ballot.vote"
CAST = "/api/action/ballot.cast"
ASKED = {"title": '"Lunch?"', "options": '["soup", "salad"]'}
TOWN = {"X-Metagov-Community": "town", "Content-Type": "application/json"}
_LEFT_BEHIND = """
SELECT (SELECT count(*) FROM processes) AS processes, (SELECT count(*) FROM process_transitions) AS transitions,
    (SELECT count(*) FROM signals) AS signals, (SELECT count(*) FROM effects) AS effects,
    (SELECT count(*) FROM events) AS events, (SELECT count(*) FROM endpoints) AS endpoints
"""
LONGEST_ANSWER = 20_000
"""In bytes: whatever the size of what was wrong."""


@pytest.fixture
async def town(driver: Driver) -> Driver:
    put = await driver.put(plugins=[{"name": "ballot", "config": {}}])
    assert put.status_code == 201
    return driver


def spelt(**fields: str) -> bytes:
    """A start's body; each field as the JSON it is to be spelt with, "" to leave it out. Not all of it need be JSON."""
    pairs = {**ASKED, **fields}
    return ("{" + ", ".join(f'"{name}": {value}' for name, value in pairs.items() if value) + "}").encode()


async def start(driver: Driver, body: bytes) -> httpx.Response:
    return await driver.http.post(VOTE, content=body, headers=TOWN)


async def left_behind(gateway: Gateway) -> dict[str, int]:
    return dict(await gateway.db.pool.fetchrow(_LEFT_BEHIND))


WRONG: list[tuple[str, dict[str, str], list[str]]] = [
    ("nothing is asked", {"title": ""}, ["/title"]),
    ("empty title", {"title": '""'}, ["/title"]),
    ("blank title", {"title": '" \\t\\u3000"'}, ["/title"]),
    ("title with NUL", {"title": '"a\\u0000b"'}, ["/title"]),
    ("title with half a pair", {"title": '"a\\ud800b"'}, ["/title"]),
    ("title as number", {"title": "5"}, ["/title"]),
    ("title of 1 MB", {"title": json.dumps("x" * 1_000_000)}, ["/title"]),
    ("details of 1 MB", {"details": json.dumps("x" * 1_000_000)}, ["/details"]),
    ("details with NUL", {"details": '"\\u0000"'}, ["/details"]),
    ("details with half a pair", {"details": '"\\udfff"'}, ["/details"]),
    ("no options", {"options": ""}, ["/options"]),
    ("null options", {"options": "null"}, ["/options"]),
    ("an empty ballot", {"options": "[]"}, ["/options"]),
    ("options as text", {"options": '"soup"'}, ["/options"]),
    ("options as object", {"options": '{"soup": 1}'}, ["/options"]),
    ("an option twice", {"options": '["soup", "salad", "soup"]'}, ["/options"]),
    ("an empty option", {"options": '["soup", ""]'}, ["/options/1"]),
    ("a blank option", {"options": '["soup", "\\u2003"]'}, ["/options/1"]),
    ("an option as number", {"options": '["soup", 1]'}, ["/options/1"]),
    ("a null option", {"options": '["soup", null]'}, ["/options/1"]),
    ("an option with NUL", {"options": '["soup", "a\\u0000"]'}, ["/options/1"]),
    ("an option with half a pair", {"options": '["\\udc00", "salad"]'}, ["/options/0"]),
    ("an option of 1001 characters", {"options": json.dumps(["soup", "x" * 1001])}, ["/options/1"]),
    ("10,000 options", {"options": json.dumps([f"option {n}" for n in range(10_000)])}, ["/options"]),
    ("101 ranked options", {"options": json.dumps([str(n) for n in range(101)]), "kind": '"ranked"'}, ["/options"]),
    ("a kind there is not", {"kind": '"lottery"'}, ["/kind"]),
    ("a kind in capitals", {"kind": '"SINGLE"'}, ["/kind"]),
    ("a null kind", {"kind": "null"}, ["/kind"]),
    ("closed already", {"closing_at": '"2020-01-01T00:00:00Z"'}, ["/closing_at"]),
    ("closed since 1970", {"closing_at": '"1970-01-01T00:00:00+14:00"'}, ["/closing_at"]),
    ("no zone", {"closing_at": '"2030-01-01T00:00:00"'}, ["/closing_at"]),
    ("a date alone", {"closing_at": '"2030-01-01"'}, ["/closing_at"]),
    ("no such day", {"closing_at": '"2030-02-30T00:00:00Z"'}, ["/closing_at"]),
    ("no such zone", {"closing_at": '"2030-01-01T00:00:00+99:00"'}, ["/closing_at"]),
    ("not a time", {"closing_at": '"soon"'}, ["/closing_at"]),
    ("an empty time", {"closing_at": '""'}, ["/closing_at"]),
    ("beyond ten years", {"closing_at": '"2099-01-01T00:00:00Z"'}, ["/closing_at"]),
    ("the last time there is", {"closing_at": '"9999-12-31T23:59:59-12:00"'}, ["/closing_at"]),
    ("the year 10000", {"closing_at": '"10000-01-01T00:00:00Z"'}, ["/closing_at"]),
    ("a time as list", {"closing_at": "[]"}, ["/closing_at"]),
    ("a time as truth", {"closing_at": "true"}, ["/closing_at"]),
    ("a time beyond counting", {"closing_at": "1e300"}, ["/closing_at"]),
    ("nobody eligible", {"eligible_voters": "[]"}, ["/eligible_voters"]),
    ("an empty voter", {"eligible_voters": '["ada", ""]'}, ["/eligible_voters/1"]),
    ("a blank voter", {"eligible_voters": '["ada", "\\u00a0"]'}, ["/eligible_voters/1"]),
    ("a voter as number", {"eligible_voters": '["ada", 7]'}, ["/eligible_voters/1"]),
    ("a voter with NUL", {"eligible_voters": '["a\\u0000"]'}, ["/eligible_voters/0"]),
    ("a voter with half a pair", {"ineligible_voters": '["\\ud83d"]'}, ["/ineligible_voters/0"]),
    ("a voter of 501 characters", {"ineligible_voters": json.dumps(["x" * 501])}, ["/ineligible_voters/0"]),
    ("weights as list", {"weights": '["ada"]'}, ["/weights"]),
    ("a negative weight", {"weights": '{"ada": -1}'}, ["/weights/ada"]),
    ("a weight below all", {"weights": '{"ada": -1e-300}'}, ["/weights/ada"]),
    ("a weight as text", {"weights": '{"ada": "2"}'}, ["/weights/ada"]),
    ("a weight as truth", {"weights": '{"ada": true}'}, ["/weights/ada"]),
    ("a null weight", {"weights": '{"ada": null}'}, ["/weights/ada"]),
    ("an infinite weight", {"weights": '{"ada": 1e999}'}, ["/weights/ada"]),
    ("a weight too small", {"weights": '{"ada": 1e-12}'}, ["/weights/ada"]),
    ("weights too large together", {"weights": '{"ada": 9e15, "bob": 9e15}'}, ["/weights"]),
    ("a negative quorum", {"quorum": "-1"}, ["/quorum"]),
    ("a quorum of one and a half", {"quorum": "1.5"}, ["/quorum"]),
    ("a share of nobody knows whom", {"quorum": "0.5"}, ["/quorum"]),
    ("a quorum as text", {"quorum": '"3"'}, ["/quorum"]),
    ("a quorum as truth", {"quorum": "true"}, ["/quorum"]),
    ("an infinite quorum", {"quorum": "1e999"}, ["/quorum"]),
    ("a negative threshold", {"threshold": "-0.1"}, ["/threshold"]),
    ("a threshold above all", {"threshold": "1.0000001"}, ["/threshold"]),
    ("a threshold in percent", {"threshold": "50"}, ["/threshold"]),
    ("a threshold as text", {"threshold": '"0.5"'}, ["/threshold"]),
    ("an infinite threshold", {"threshold": "1e999"}, ["/threshold"]),
    ("no choices at all", {"kind": '"multiple"', "max_choices": "0"}, ["/max_choices"]),
    ("fewer choices than none", {"kind": '"multiple"', "max_choices": "-1"}, ["/max_choices"]),
    ("one and a half choices", {"kind": '"multiple"', "max_choices": "1.5"}, ["/max_choices"]),
    ("more choices than options may be", {"kind": '"multiple"', "max_choices": "1001"}, ["/max_choices"]),
    ("choices beyond counting", {"kind": '"multiple"', "max_choices": "1e999"}, ["/max_choices"]),
    ("two choices in a single vote", {"max_choices": "2"}, ["/max_choices"]),
    ("anonymous, perhaps", {"anonymous": '"perhaps"'}, ["/anonymous"]),
    ("null for anonymous", {"anonymous": "null"}, ["/anonymous"]),
    ("a field there is not", {"qourum": "3"}, ["/qourum"]),
    ("a field with a slash", {"a/b~c": "3"}, ["/a~1b~0c"]),
    ("several at once", {"options": "[]", "quorum": "-1", "kind": "7"}, ["/kind", "/options", "/quorum"]),
    ("a callback that is no URL", {"callback_url": '"ftp://example.org/"'}, ["/callback_url"]),
    ("a correlation id too long", {"correlation_id": json.dumps("x" * 501)}, ["/correlation_id"]),
    ("choices as text", {"kind": '"multiple"', "max_choices": '"2"'}, ["/max_choices"]),
    ("choices as truth", {"kind": '"multiple"', "max_choices": "true"}, ["/max_choices"]),
    ("anonymous as text", {"anonymous": '"yes"'}, ["/anonymous"]),
    ("anonymous as number", {"anonymous": "1"}, ["/anonymous"]),
    ("a time as number", {"closing_at": "1893456000"}, ["/closing_at"]),
    ("a time as number in a text", {"closing_at": '"1893456000"'}, ["/closing_at"]),
    ("a weight for an empty voter", {"weights": '{"": 1}'}, ["/weights/"]),
]

STARTS = [pytest.param(*case[1:], id=case[0]) for case in WRONG]


@pytest.mark.parametrize(("fields", "wrong"), STARTS)
async def test_a_vote_that_cannot_be_is_refused_where_it_is_wrong(
    town: Driver, gateway: Gateway, fields: dict[str, str], wrong: list[str]
) -> None:
    before = await left_behind(gateway)
    answer = await start(town, spelt(**fields))
    assert pointers(answer) == wrong
    assert len(answer.content) < LONGEST_ANSWER
    assert await left_behind(gateway) == before


async def test_many_faults_are_answered_in_few_words(town: Driver, gateway: Gateway) -> None:
    """What is wrong ten thousand times over is not told ten thousand times."""
    before = await left_behind(gateway)
    answer = await start(town, spelt(eligible_voters=json.dumps([""] * 10_000), weights=json.dumps({"x" * 900: -1})))
    assert problem(answer, 422)["errors"]
    assert len(answer.content) < LONGEST_ANSWER
    assert await left_behind(gateway) == before


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"[]", 422),
        (b'"vote"', 422),
        (b"null", 422),
        (b"{", 400),
        (spelt(weights='{"ada": NaN}'), 400),
        (spelt(weights='{"ada": Infinity}'), 400),
        (spelt(quorum="-Infinity"), 400),
        (spelt(threshold="NaN"), 400),
        (spelt(title='"\\ud8"'), 400),
        (b'{"title": "\xff", "options": ["a"]}', 400),
        (spelt(details="[" * 150 + "]" * 150), 400),
        (spelt(details=json.dumps("x" * (1 << 20))), 413),
    ],
)
async def test_a_body_that_is_no_start_is_refused(town: Driver, gateway: Gateway, body: bytes, status: int) -> None:
    before = await left_behind(gateway)
    answer = await start(town, body)
    problem(answer, status)
    assert len(answer.content) < LONGEST_ANSWER
    assert await left_behind(gateway) == before


@pytest.mark.parametrize("prefer", ["", "respond-async"])
async def test_what_only_the_clock_finds_wrong_is_refused_before_anything_is_stored(
    town: Driver, gateway: Gateway, drains: Drains, prefer: str
) -> None:
    body = spelt(closing_at='"2020-01-01T00:00:00Z"', callback_url='"http://127.0.0.1:1/"')
    answer = await town.http.post(VOTE, content=body, headers={**TOWN, "Prefer": prefer})
    assert pointers(answer) == ["/closing_at"]
    assert await drains.until_idle() == 0
    assert await gateway.db.pool.fetchval("SELECT count(*) FROM processes") == 0


async def opened(town: Driver, **fields: str) -> str:
    """A vote's id."""
    answer = await start(town, spelt(**fields))
    assert answer.status_code == 202, answer.text
    process_id: str = answer.json()["id"]
    return process_id


def cast_body(vote: str, **fields: str) -> bytes:
    """A vote's body, its fields as the JSON they are to be spelt with."""
    pairs = {"process_id": json.dumps(vote), "voter": '"ada"', "choice": '"soup"', **fields}
    inner = ", ".join(f'"{name}": {value}' for name, value in pairs.items() if value)
    return f'{{"parameters": {{{inner}}}}}'.encode()


CAST_WRONG: list[tuple[str, str, dict[str, str], str]] = [
    ("an option there is not", "single", {"choice": '"pizza"'}, "/choice"),
    ("an option in capitals", "single", {"choice": '"Soup"'}, "/choice"),
    ("an option with a space more", "single", {"choice": '"soup "'}, "/choice"),
    ("an option's number", "single", {"choice": "0"}, "/choice"),
    ("the truth", "single", {"choice": "true"}, "/choice"),
    ("an empty text", "single", {"choice": '""'}, "/choice"),
    ("NUL", "single", {"choice": '"soup\\u0000"'}, "/choice"),
    ("half a pair", "single", {"choice": '"\\ud800"'}, "/choice"),
    ("no option", "single", {"choice": "[]"}, "/choice"),
    ("two options", "single", {"choice": '["soup", "salad"]'}, "/choice"),
    ("an object", "single", {"choice": '{"soup": 1}'}, "/choice"),
    ("1 MB", "single", {"choice": json.dumps("x" * 1_000_000)}, "/choice"),
    ("an option twice", "multiple", {"choice": '["soup", "soup"]'}, "/choice/1"),
    ("one of two there is not", "approval", {"choice": '["soup", "pizza"]'}, "/choice/1"),
    ("a null among options", "approval", {"choice": '["soup", null]'}, "/choice/1"),
    ("a list in a list", "ranked", {"choice": '[["soup"]]'}, "/choice/0"),
    ("too many", "ranked", {"choice": '["soup", "salad", "soup"]'}, "/choice/2"),
    ("scores as list", "score", {"choice": '["soup"]'}, "/choice"),
    ("scores as text", "score", {"choice": '"soup"'}, "/choice"),
    ("no score", "score", {"choice": "{}"}, "/choice"),
    ("a score for what is not there", "score", {"choice": '{"pizza": 1}'}, "/choice/pizza"),
    ("a pointer that needs escapes", "score", {"choice": '{"a/b~c": 1}'}, "/choice/a~1b~0c"),
    ("a score of 11", "score", {"choice": '{"soup": 11}'}, "/choice/soup"),
    ("a negative score", "score", {"choice": '{"soup": -1}'}, "/choice/soup"),
    ("a score as text", "score", {"choice": '{"soup": "5"}'}, "/choice/soup"),
    ("a score as truth", "score", {"choice": '{"soup": true}'}, "/choice/soup"),
    ("an infinite score", "score", {"choice": '{"soup": 1e999}'}, "/choice/soup"),
    ("a null score", "score", {"choice": '{"soup": null}'}, "/choice/soup"),
    ("no voter", "single", {"voter": ""}, "/voter"),
    ("an empty voter", "single", {"voter": '""'}, "/voter"),
    ("a blank voter", "single", {"voter": '"\\u2003"'}, "/voter"),
    ("a voter as number", "single", {"voter": "7"}, "/voter"),
    ("a null voter", "single", {"voter": "null"}, "/voter"),
    ("a voter with NUL", "single", {"voter": '"a\\u0000"'}, "/voter"),
    ("a voter with half a pair", "single", {"voter": '"\\udead"'}, "/voter"),
    ("a voter of 501 characters", "single", {"voter": json.dumps("é" * 501)}, "/voter"),
    ("no process", "single", {"process_id": ""}, "/process_id"),
    ("a process with NUL", "single", {"process_id": '"prc\\u0000"'}, "/process_id"),
    ("a process as number", "single", {"process_id": "1"}, "/process_id"),
    ("a process with a newline", "single", {"process_id": '"prc\\n"'}, "/process_id"),
    ("a field there is not", "single", {"weight": "1000"}, "/weight"),
]


@pytest.mark.parametrize(
    ("kind", "fields", "wrong"), [case[1:] for case in CAST_WRONG], ids=[case[0] for case in CAST_WRONG]
)
async def test_a_ballot_that_does_not_fit_is_refused_where_it_is_wrong(
    town: Driver, gateway: Gateway, kind: str, fields: dict[str, str], wrong: str
) -> None:
    vote = await opened(town, kind=f'"{kind}"')
    before = await left_behind(gateway)
    answer = await town.http.post(CAST, content=cast_body(vote, **fields), headers=TOWN)
    assert pointers(answer) == [f"/parameters{wrong}"]
    assert len(answer.content) < LONGEST_ANSWER
    assert await left_behind(gateway) == before


@pytest.mark.parametrize("spelling", ["NaN", "Infinity", "-Infinity", '"\\ud8"', "[" * 150 + "]" * 150])
async def test_a_ballot_that_is_no_json_is_refused(town: Driver, gateway: Gateway, spelling: str) -> None:
    vote = await opened(town, kind='"score"')
    body = cast_body(vote, choice=f'{{"soup": {spelling}}}')
    problem(await town.http.post(CAST, content=body, headers=TOWN), 400)
    assert await gateway.db.pool.fetchval("SELECT count(*) FROM signals") == 0


VOTERS = [
    "Ünïcode",
    "שלום",
    "مرحبا",
    "投票者",
    "👩‍👩‍👧‍👦",
    "\U0010ffff",
    "\uffff",
    "\ufeffada",
    "a\u202eda",
    "é",
    "e\u0301",
    "a\nb",
    "\u0001",
    "__proto__",
    "' OR 1=1 --",
    "<script>",
    '{"voter": "ada"}',
    "ada ",
    "x" * 500,
    "👍" * 500,
]


async def test_voters_of_any_script_vote_and_stay_apart(town: Driver, drains: Drains) -> None:
    """Ids are compared as they are: neither trimmed nor normalised."""
    weights = {voter: number for number, voter in enumerate(VOTERS, 1)}
    vote = await opened(town, eligible_voters=json.dumps(VOTERS), weights=json.dumps(weights))
    for voter in VOTERS:
        cast = await town.http.post(CAST, content=cast_body(vote, voter=json.dumps(voter)), headers=TOWN)
        assert cast.status_code == 200, (voter, cast.text)
    for stranger in ("ada", "E\u0301", "👩", "\ufeffAda"):
        refused = await town.http.post(CAST, content=cast_body(vote, voter=json.dumps(stranger)), headers=TOWN)
        assert refused.status_code == 403, stranger
    await drains.until_idle()
    closed = (await town.http.delete(f"{VOTE}/{vote}", headers=TOWN)).json()
    (soup, salad) = closed["outcome"]["options"]
    assert soup["voters"] == sorted(VOTERS)
    assert (soup["weight"], salad["voters"]) == (sum(weights.values()), [])


async def test_weights_and_exclusions_of_unknown_voters_change_nothing(town: Driver, drains: Drains) -> None:
    vote = await opened(
        town, eligible_voters='["ada"]', ineligible_voters='["zoe"]', weights='{"eve": 1000, "zoe": 7}', quorum="1.0"
    )
    for voter, status in (("ada", 200), ("eve", 403), ("zoe", 403)):
        cast = await town.http.post(CAST, content=cast_body(vote, voter=json.dumps(voter)), headers=TOWN)
        assert cast.status_code == status
    closed: dict[str, Any] = (await town.http.delete(f"{VOTE}/{vote}", headers=TOWN)).json()
    assert closed["outcome"]["options"][0] == {"option": "soup", "count": 1, "weight": 1, "voters": ["ada"]}
    assert closed["outcome"]["quorum_met"]
