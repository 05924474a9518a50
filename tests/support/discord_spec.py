"""Holds recorded requests to Discord's published OpenAPI document: path, method, query and JSON body.

    spec = load_spec()                       # skips the test, saying why, where the document is absent
    assert spec.faults(discord.requests) == []

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
from urllib.parse import unquote

import jsonschema_rs
import pytest

SPEC = Path(__file__).parents[3] / "shared" / "specs" / "discord.openapi.json"
REQUIRED = "METAGOV_TEST_SPECS"

EXCEPTIONS: Mapping[str, tuple[frozenset[str], str]] = {
    "POST /oauth2/token": (
        frozenset({"grant_type", "code", "redirect_uri", "code_verifier", "refresh_token"}),
        "docs.discord.com/developers/topics/oauth2#authorization-code-grant: the document leaves the token URL out",
    ),
    "POST /oauth2/token/revoke": (
        frozenset({"token", "token_type_hint"}),
        "docs.discord.com/developers/topics/oauth2#token-revocation-example: the document leaves the token URL out",
    ),
}
"""Requests that the document does not describe: the form's fields that are documented elsewhere, and where."""

METHODS = ("get", "post", "put", "patch", "delete")


class Request(Protocol):
    """What is checked; the fake's `Recorded` is one."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    content_type: str
    body: Any


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path: its schemas by the name of the parameter, and its JSON body's."""

    line: str
    pattern: re.Pattern[str]
    literals: int
    query: Mapping[str, Any]
    path_values: Mapping[str, Any]
    body: dict[str, Any] | None
    body_required: bool
    security: frozenset[str]


class Spec:
    """The document, its objects closed: it leaves them open, and a field that it does not name is a slip all the same.

    Schemas are compiled when they are first needed.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        _close(document)
        self._components = document["components"]
        self._compiled: dict[int, Any] = {}
        self.operations = [
            _read_operation(method.upper(), path, item, item[method])
            for path, item in document["paths"].items()
            for method in METHODS
            if method in item
        ]
        self._by_method: dict[str, list[Operation]] = {}
        for operation in sorted(self.operations, key=lambda each: -each.literals):
            self._by_method.setdefault(operation.line.split(" ")[0], []).append(operation)

    def find(self, method: str, path: str) -> Operation | None:
        """The operation of a path below /api/v10; the one with most literal parts where several fit."""
        return next((each for each in self._by_method.get(method, ()) if each.pattern.fullmatch(path)), None)

    def faults(self, requests: Iterable[Request]) -> list[str]:
        """What does not fit, one line each."""
        return [f"{each.method} {each.path}: {fault}" for each in requests for fault in self.check(each)]

    def check(self, request: Request) -> list[str]:
        """What is wrong with one request."""
        if exception := EXCEPTIONS.get(f"{request.method} {request.path}"):
            return _check_form(request, exception[0])
        operation = self.find(request.method, request.path)
        if operation is None:
            return ["there is no such operation"]
        return [
            *self._check_path(operation, request.path),
            *self._check_query(operation, request.query),
            *self._check_body(operation, request),
            *_check_credentials(operation, request.headers.get("authorization", "")),
        ]

    def _check_path(self, operation: Operation, path: str) -> list[str]:
        found = operation.pattern.fullmatch(path)
        assert found is not None
        return [
            f"{name}: no reading of {value!r} fits"
            for name, value in found.groupdict().items()
            if not self._fits_as_text(operation.path_values[name], unquote(value))
        ]

    def _check_query(self, operation: Operation, query: dict[str, str]) -> list[str]:
        unknown = [f"the query has no {name}" for name in query if name not in operation.query]
        return unknown + [
            f"query {name}: no reading of {text!r} fits"
            for name, text in query.items()
            if name in operation.query and not self._fits_as_text(operation.query[name], text)
        ]

    def _check_body(self, operation: Operation, request: Request) -> list[str]:
        if request.body is None:
            return ["the body is missing"] if operation.body_required else []
        if operation.body is None:
            return ["the operation takes no body"]
        if request.content_type != "application/json":
            return [f"should be JSON, not {request.content_type}"]
        return self._errors(operation.body, request.body)

    def _fits_as_text(self, schema: dict[str, Any], text: str) -> bool:
        """Text in a URL may stand for a number or a truth value."""
        readings: list[Any] = [text]
        with suppress(ValueError):
            readings.append(json.loads(text))
        return any(not self._errors(schema, reading) for reading in readings)

    def _errors(self, schema: dict[str, Any], value: Any) -> list[str]:
        if id(schema) not in self._compiled:
            whole = {**schema, "components": self._components}
            self._compiled[id(schema)] = jsonschema_rs.Draft202012Validator(whole)
        errors = self._compiled[id(schema)].iter_errors(value)
        return [f"{'/'.join(map(str, error.instance_path))}: {error.message[:300]}" for error in errors]


def _close(schema: Any, *, in_all_of: bool = False) -> None:
    """Forbid unnamed fields in every object but those that are one part of several (`allOf`)."""
    if isinstance(schema, list):
        for each in schema:
            _close(each, in_all_of=in_all_of)
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "object" and "properties" in schema and not in_all_of and "allOf" not in schema:
        schema.setdefault("additionalProperties", False)
    for name, each in schema.items():
        _close(each, in_all_of=name == "allOf")


def _read_operation(method: str, path: str, item: dict[str, Any], operation: dict[str, Any]) -> Operation:
    parameters = [*item.get("parameters", ()), *operation.get("parameters", ())]
    body = operation.get("requestBody", {})
    return Operation(
        line=f"{method} {path}",
        pattern=re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(path))),
        literals=sum("{" not in part for part in path.split("/")),
        query={each["name"]: each["schema"] for each in parameters if each["in"] == "query"},
        path_values={each["name"]: each["schema"] for each in parameters if each["in"] == "path"},
        body=body.get("content", {}).get("application/json", {}).get("schema"),
        body_required=body.get("required", False),
        security=frozenset(name for each in operation.get("security", [{}]) for name in each),
    )


def _check_form(request: Request, fields: frozenset[str]) -> list[str]:
    if request.content_type != "application/x-www-form-urlencoded":
        return [f"should be a form, not {request.content_type}"]
    return [f"the field {name} is not documented" for name in sorted(request.body.keys() - fields)]


def _check_credentials(operation: Operation, header: str) -> list[str]:
    """Webhook and interaction URLs carry their own token and need no other, whatever the document lists."""
    if "{webhook_token}" in operation.line or "{interaction_token}" in operation.line:
        return [] if not header else ["the URL's own token is enough; no other credentials should be sent"]
    kind = {"Bot": "BotToken", "Bearer": "OAuth2"}.get(header.partition(" ")[0], "no")
    return [] if kind in operation.security else [f"{kind} credentials, and it takes {sorted(operation.security)}"]


@cache
def _loaded() -> Spec:
    return Spec(json.loads(SPEC.read_text()))


def load_spec() -> Spec:
    """The published document. Skips the running test where it is absent; fails where it is required."""
    if not SPEC.exists():
        reason = "Discord's OpenAPI document is not beside the repository (../shared/specs/discord.openapi.json)"
        if os.environ.get(REQUIRED) == "required":
            pytest.fail(f"{reason}, and {REQUIRED}=required")
        pytest.skip(reason)
    return _loaded()
