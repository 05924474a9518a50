"""How an account is told from what only looks like it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.identity.person import Person

SNOWFLAKE = Person("157440819074", ("ada", "Ada L."), ("<@157440819074>", "@ada"), ("mid_01abc",))
WORD = Person("ada", (), ("@ada",))
NUMBER = Person("3", ("ada",), ("@ada",))


@pytest.mark.parametrize(
    ("person", "value"),
    [
        (SNOWFLAKE, {"avatar": "https://cdn.test/157440819074/x.png"}),
        (SNOWFLAKE, {"anything": 157440819074}),
        (SNOWFLAKE, {"anything": ["a", "157440819074"]}),
        (SNOWFLAKE, {"157440819074": 1}),
        (SNOWFLAKE, {"username": "ada"}),
        (SNOWFLAKE, {"initiator": {"external_id": "mid_01abc"}}),
        (SNOWFLAKE, "hello @ada, well met"),
        (WORD, {"reactions": ["bob", "ada"]}),
        (NUMBER, {"user_id": 3}),
        (NUMBER, {"post": {"user": {"id": 3, "username": "eve"}}}),
        (NUMBER, {"votes": {"3": "yes"}}),
        (NUMBER, {"eligible_voters": ["3", "4"]}),
        (NUMBER, {"initiator": {"user_id": "3"}}),
    ],
)
def test_named(person: Person, value: Any) -> None:
    assert person.is_in(value)
    assert not person.is_in(person.out_of(value))
    assert person.may_be_in(json.dumps(value))
    assert person.is_in_body(json.dumps(value).encode())


@pytest.mark.parametrize(
    ("person", "value"),
    [
        (SNOWFLAKE, {"id": "1574408190741", "text": "x157440819074"}),
        (SNOWFLAKE, {"text": "ada", "title": "Ada L.", "channel": "ada"}),
        (SNOWFLAKE, "hello @adam"),
        (WORD, {"text": "ada and I", "from": "x@ada.example"}),
        (NUMBER, {"count": 3, "id": 3, "score": "3", "choice": "3", "topic": {"id": 3, "title": "three"}}),
        (NUMBER, {"user_id": 33, "flags": [3, 4]}),
        (NUMBER, {"user_id": True}),
    ],
)
def test_not_named(person: Person, value: Any) -> None:
    assert person.out_of(value) == value
    assert not person.is_in_body(json.dumps(value).encode())


def test_what_stands_in_their_place() -> None:
    told = {"to": ["157440819074", "2"], "by": {"id": "157440819074", "username": "ada"}, "voter": "157440819074"}
    assert SNOWFLAKE.out_of(told) == {"to": ["2"], "by": "(forgotten)", "voter": "(forgotten)"}
    kept = SNOWFLAKE.out_of({"voters": ["157440819074", "ada2"]}, "zz", keep_places=True)
    assert kept == {"voters": ["ada2", "zz"]}


@pytest.mark.parametrize(
    "body", [b"user=157440819074&a=1", b"payload=%7B%22id%22%3A%22157440819074%22%7D", b"<@157440819074>"]
)
def test_bodies_that_are_no_json(body: bytes) -> None:
    assert SNOWFLAKE.is_in_body(body)
    assert not NUMBER.is_in_body(b"user=3")


def test_a_number_of_another_platform_is_anybodys() -> None:
    assert not NUMBER.elsewhere().is_in({"user_id": 3, "username": "ada"})
    assert SNOWFLAKE.elsewhere() == SNOWFLAKE


def test_actors_are_told_from_those_who_are_chosen() -> None:
    assert WORD.acts_in({"voter": "ada", "choice": "bob"})
    assert not WORD.acts_in({"voter": "bob", "choice": "ada"})
