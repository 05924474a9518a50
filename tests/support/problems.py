"""What every error answer has to be: problem details, and nothing of the inside."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import httpx

PROBLEM = "application/problem+json"


def problem(answer: httpx.Response, status: int, slug: str = "") -> Any:
    """The problem details of an answer; asserts that it is one, with this status (and this `type`)."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    document = answer.json()
    assert {"type", "title", "status", "detail"} <= set(document) <= {"type", "title", "status", "detail", "errors"}
    assert document["status"] == status
    assert document["title"] == HTTPStatus(status).phrase
    assert document["type"] == (f"urn:metagov:{slug}" if slug else document["type"])
    assert document["detail"]
    assert "Traceback" not in answer.text
    assert 'File "' not in answer.text
    for error in document.get("errors", []):
        assert set(error) == {"pointer", "detail"}
        assert error["pointer"] == "" or error["pointer"].startswith("/")
    return document


def pointers(answer: httpx.Response) -> list[str]:
    """The JSON pointers of a 422, sorted."""
    return sorted(error["pointer"] for error in problem(answer, 422).get("errors", []))
