"""The requests that are measured, as the bytes a driver or a platform would send."""

from __future__ import annotations

import hashlib
import hmac
import json

import httpx

from benchmarks.pace import UNIQUE

COMMUNITY = "benchmark"
WEBHOOK_SECRET = "a secret of nobody's"


def prepare_community(port: int, api_key: str) -> None:
    """A community with four plugins, two of them with a secret in their config."""
    plugins = [
        {"name": "randomness", "config": {"default_low": 1, "default_high": 6}},
        {"name": "github", "config": {"webhook_secret": WEBHOOK_SECRET}},
        {"name": "stopwatch", "config": {"webhook_secret": WEBHOOK_SECRET}},
        {"name": "ballot", "config": {}},
    ]
    answer = httpx.put(
        f"http://127.0.0.1:{port}/api/internal/community/{COMMUNITY}",
        json={"readable_name": "A community", "plugins": plugins},
        headers={"Authorization": f"Bearer {api_key}"},
        trust_env=False,
        timeout=30,
    )
    answer.raise_for_status()


def bare_read() -> bytes:
    """GET of the yardstick's route."""
    return _request("GET", "/row/7", {})


def community_read(api_key: str) -> bytes:
    """GET of a community with its plugins."""
    return _request("GET", f"/api/internal/community/{COMMUNITY}", {"authorization": f"Bearer {api_key}"})


def random_int(api_key: str) -> bytes:
    """POST of an action that needs no platform."""
    body = b'{"parameters": {"low": 1, "high": 100}}'
    return _request("POST", "/api/action/randomness.random-int", _acting(api_key), body)


def cast(api_key: str, process_id: str) -> bytes:
    """POST of a vote, by another voter each time."""
    parameters = {"process_id": process_id, "voter": f"voter {UNIQUE.decode()}", "choice": "plum"}
    body = json.dumps({"parameters": parameters}).encode()
    return _request("POST", "/api/action/ballot.cast", _acting(api_key), body)


def bare_insert() -> bytes:
    """POST of the yardstick's route that stores a vote."""
    body = json.dumps({"voter": f"voter {UNIQUE.decode()}", "choice": "plum"}).encode()
    return _request("POST", "/vote", {"content-type": "application/json"}, body)


def _acting(api_key: str) -> dict[str, str]:
    return {
        "authorization": f"Bearer {api_key}",
        "x-metagov-community": COMMUNITY,
        "content-type": "application/json",
    }


def webhook(event: str = "issues") -> bytes:
    """POST of a signed GitHub webhook, its delivery id unique. A `ping` is verified and answered, not stored."""
    body = issues_opened()
    headers = {
        "content-type": "application/json",
        "user-agent": "GitHub-Hookshot/0000000",
        "x-github-event": event,
        "x-github-delivery": UNIQUE.decode(),
        "x-hub-signature-256": _signature(body),
    }
    return _request("POST", f"/api/hooks/{COMMUNITY}/github", headers, body)


def timed_webhook() -> bytes:
    """POST of a signed webhook of 1.5 KB to the plugin that notes when its handler starts."""
    body = issues_opened()
    headers = {"content-type": "application/json", "x-sent": UNIQUE.decode(), "x-signature": _signature(body)}
    return _request("POST", f"/api/hooks/{COMMUNITY}/stopwatch", headers, body)


def _signature(body: bytes) -> str:
    return "sha256=" + hmac.new(WEBHOOK_SECRET.encode(), body, hashlib.sha256).hexdigest()


def issues_opened() -> bytes:
    """A body of 1.5 KB, in the shape of GitHub's `issues.opened`. Its people are invented."""
    user = {"login": "monalisa", "id": 1001, "type": "User", "site_admin": False}
    body = {
        "action": "opened",
        "issue": {
            "id": 73464126,
            "number": 42,
            "title": "The bridge needs a second lane",
            "state": "open",
            "user": user,
            "labels": [],
            "comments": 0,
            "created_at": "2026-01-05T10:00:00Z",
            "body": "",
        },
        "repository": {"id": 35129377, "name": "hello-world", "full_name": "octo-org/hello-world", "private": False},
        "sender": user,
    }
    body["issue"]["body"] = "x" * (1500 - len(json.dumps(body)))  # type: ignore[index]
    return json.dumps(body).encode()


def _request(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", "accept: */*"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
