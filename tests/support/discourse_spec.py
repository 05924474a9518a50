"""Holds recorded requests to Discourse's published OpenAPI document: path, method, query and headers.

    spec = load_spec()                       # skips the test, saying why, where the document is absent
    assert spec.faults(forum.requests) == []

The document lies beside the repository, not in it. With METAGOV_TEST_SPECS=required its absence is a failure.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import jsonschema_rs
import pytest

SPEC = Path(__file__).parents[3] / "shared" / "specs" / "discourse.openapi.json"
REQUIRED = "METAGOV_TEST_SPECS"

EXCEPTIONS: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "GET /categories.json": (
        {"page": {"type": "integer", "minimum": 2}, "parent_category_id": {"type": "integer"}},
        "discourse/discourse, app/models/category_list.rb",
    ),
    "GET /latest.json": (
        {"topic_ids": {"type": "string", "pattern": r"^\d+(,\d+)*$"}},
        "discourse/discourse, lib/topic_query.rb: public_valid_options; app/controllers/application_controller.rb: "
        "param_to_integer_list",
    ),
    "GET /post_action_users.json": (
        {
            "id": {"type": "integer", "minimum": 1},
            "post_action_type_id": {"enum": [2]},
            "page": {"type": "integer", "minimum": 0},
            "limit": {"type": "integer", "minimum": 1, "maximum": 200},
        },
        "discourse/discourse, app/controllers/post_action_users_controller.rb",
    ),
}
"""Parameters of a query that the document leaves out, of a path that it may leave out too; and where they stand."""
_STRICTER: Mapping[str, Mapping[str, Any]] = {
    "GET /latest.json": {
        "per_page": {"type": "integer", "minimum": 1, "maximum": 100},
        "order": {"enum": ["default", "created", "activity", "views", "posts", "category", "likes", "op_likes"]},
    }
}
"""What the document says of a parameter in words alone."""


class Request(Protocol):
    """What is checked; the fake's `Recorded` is one."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path: the schemas of its parameters, and the names of those that it requires."""

    line: str
    pattern: re.Pattern[str]
    query: Mapping[str, Any]
    path_values: Mapping[str, Any]
    required: frozenset[str]


class Spec:
    """The document, with what it leaves out."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.operations = [
            _read_operation("GET", path, item["get"]) for path, item in document["paths"].items() if "get" in item
        ]
        known = {each.line for each in self.operations}
        for line, (query, _) in EXCEPTIONS.items():
            if line not in known:
                path = re.compile(re.escape(line.split(" ")[1]))
                self.operations.append(Operation(line, path, query, {}, frozenset({"id", "post_action_type_id"})))

    def faults(self, requests: Iterable[Request]) -> list[str]:
        """What does not fit, one line each."""
        return [f"{each.method} {each.path}: {fault}" for each in requests for fault in self.check(each)]

    def check(self, request: Request) -> list[str]:
        """What is wrong with one request."""
        if request.method != "GET":
            return ["the plugin only reads"]
        # The path with fewer names to fill in comes first.
        fitting = sorted(
            (each for each in self.operations if each.pattern.fullmatch(request.path)),
            key=lambda each: len(each.path_values),
        )
        if not fitting:
            return ["there is no such operation"]
        operation = fitting[0]
        found = operation.pattern.fullmatch(request.path)
        assert found is not None
        given = {**request.query, **found.groupdict()}
        schemas = {**operation.query, **operation.path_values}
        missing = [f"{name} is missing" for name in sorted(operation.required - given.keys())]
        unknown = [f"the query has no {name}" for name in given if name not in schemas]
        wrong = [
            f"{name}: no reading of {text!r} fits"
            for name, text in given.items()
            if name in schemas and not _fits_as_text(schemas[name], text)
        ]
        return [*missing, *unknown, *wrong, *_check_headers(request)]


def _check_headers(request: Request) -> list[str]:
    faults = [f"the header {name} is missing" for name in ("Api-Key", "Api-Username") if not _given(request, name)]
    return [*faults, *(["a GET has no body"] if request.body else [])]


def _given(request: Request, name: str) -> str:
    return request.headers.get(name.lower(), "")


def _fits_as_text(schema: Mapping[str, Any], text: str) -> bool:
    """Text in a URL may stand for a number or a truth value."""
    readings: list[Any] = [text]
    with suppress(ValueError):
        readings.append(json.loads(text))
    return any(jsonschema_rs.is_valid(dict(schema), reading) for reading in readings)


def _read_operation(method: str, path: str, operation: dict[str, Any]) -> Operation:
    line = f"{method} {path}"
    parameters = [each for each in operation.get("parameters", ()) if each["in"] != "header"]
    query = {each["name"]: each["schema"] for each in parameters if each["in"] == "query"}
    # Ids are words in the document; they are numbers, some below 0.
    path_values = {
        each["name"]: {"type": "integer"} if each["name"] == "id" else each["schema"]
        for each in parameters
        if each["in"] == "path"
    }
    return Operation(
        line=line,
        pattern=re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(path))),
        query={**query, **_STRICTER.get(line, {}), **EXCEPTIONS.get(line, ({},))[0]},
        path_values=path_values,
        required=frozenset(each["name"] for each in parameters if each.get("required")),
    )


def is_here() -> bool:
    """Whether requests can be checked, or have to be."""
    return SPEC.exists() or os.environ.get(REQUIRED) == "required"


@cache
def _loaded() -> Spec:
    return Spec(json.loads(SPEC.read_text()))


def load_spec() -> Spec:
    """The published document. Skips the running test where it is absent; fails where it is required."""
    if not SPEC.exists():
        reason = "Discourse's OpenAPI document is not beside the repository (../shared/specs/discourse.openapi.json)"
        if os.environ.get(REQUIRED) == "required":
            pytest.fail(f"{reason}, and {REQUIRED}=required")
        pytest.skip(reason)
    return _loaded()
