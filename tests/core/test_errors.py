"""Problem details and JSON pointers."""

from __future__ import annotations

import json
from http import HTTPStatus

import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from app.core import errors
from app.core.errors import Invalid, Problem, Unauthenticated, Unavailable, pointer


@pytest.mark.parametrize(
    ("path", "expected"),
    [((), ""), (("a",), "/a"), (("a", 0, "b"), "/a/0/b"), (("a/b", "c~d", "~1"), "/a~1b/c~0d/~01"), (("",), "/")],
)
def test_pointers(path: tuple[str | int, ...], expected: str) -> None:
    assert pointer(path) == expected


def test_every_kind_has_a_status_and_renders() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Problem)]
    assert len(kinds) >= 12
    for kind in kinds:
        document = json.loads(kind("in plain words").body())
        assert document == {
            "type": "about:blank",
            "title": HTTPStatus(kind.status).phrase,
            "status": kind.status,
            "detail": "in plain words",
        }
        assert kind.status != 500 or kind is Problem


def test_a_slug_names_the_type() -> None:
    assert json.loads(Problem("x", slug="slug-taken").body())["type"] == "urn:metagov:slug-taken"


def test_headers_that_go_with_a_status() -> None:
    assert Unavailable("x", retry_after=7).headers == {"retry-after": "7"}
    assert "Basic" in Unauthenticated("x").headers["www-authenticate"]


def test_half_a_surrogate_can_be_rendered() -> None:
    assert json.loads(Invalid.field("/\ud800", "odd").body())["errors"][0]["pointer"] == "/\ud800"


class Login(BaseModel):
    user: str
    password: SecretStr
    age: int


def test_schema_errors_name_the_fields_and_not_the_values() -> None:
    with pytest.raises(ValidationError) as caught:
        Login.model_validate({"user": ["hidden"], "password": {"hidden": "hidden"}, "age": "hidden"})
    problem = Invalid.schema(caught.value, ("plugins", 1, "config"))
    document = json.loads(problem.body())
    assert [error["pointer"] for error in document["errors"]] == [
        "/plugins/1/config/user",
        "/plugins/1/config/password",
        "/plugins/1/config/age",
    ]
    assert document["detail"].startswith("/plugins/1/config/user: ")
    assert document["detail"].endswith("(and 2 more)")
    assert b"hidden" not in problem.body()
