"""A governance driver in one file: puts a community, rolls a die, lets a vote be decided by lot, and waits to be told.

Start the gateway (`make run`), then `python driver.py`. Settings: METAGOV_URL, METAGOV_API_KEY and
METAGOV_SIGNING_SECRET; without them those of the gateway whose data is in ./.metagov.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from standardwebhooks import Webhook, WebhookVerificationError

COMMUNITY = "python-example"
DEV_FILE = Path(".metagov/dev.json")
PATIENCE_SECONDS = 60
COLOURED = sys.stdout.isatty() and "NO_COLOR" not in os.environ


class Problem(Exception):
    """Something the person at the keyboard can mend."""


def main() -> None:
    """The story of the README."""
    key, secret = setting("api_key"), setting("signing_secret")
    gateway = httpx.Client(
        base_url=setting("url"),
        headers={"Authorization": f"Bearer {key}", "X-Metagov-Community": COMMUNITY},
        timeout=20,
    )
    with gateway, callbacks(secret) as (callback_url, inbox):
        call(
            gateway,
            "PUT",
            f"/api/internal/community/{COMMUNITY}",
            {
                "readable_name": "Python example",
                "plugins": [{"name": "randomness", "config": {"default_low": 1, "default_high": 6}}],
            },
        )
        say(f"community {bold(COMMUNITY)} has the plugin randomness")

        rolled = call(gateway, "POST", "/api/action/randomness.random-int", {"parameters": {}})
        say(f"the die shows {bold(rolled['value'])}")

        started = call(
            gateway,
            "POST",
            "/api/internal/process/randomness.delayed-stochastic-vote",
            {"options": ["apple tree", "pear tree", "cherry tree"], "delay": 0.03, "callback_url": callback_url},
        )
        say(f"the vote {bold(started['id'])} is {started['status']}; waiting for its callback …")

        process = wait_for(inbox, started["id"])
        say(f"callback received, signature verified: {process['status']}")
        say(f"the winner is {bold(process['outcome']['winner'])}")


def setting(name: str) -> str:
    """METAGOV_<NAME>, or what the running gateway has written into its data folder."""
    value = os.environ.get(f"METAGOV_{name.upper()}")
    if value:
        return value
    try:
        return str(json.loads(DEV_FILE.read_text())[name])
    except (OSError, KeyError) as error:
        raise Problem(f"set METAGOV_{name.upper()}, or start `make run` and come back to its folder") from error


def call(gateway: httpx.Client, method: str, path: str, body: Any) -> Any:
    """One request; the gateway's own words when it refuses."""
    try:
        answer = gateway.request(method, path, json=body)
    except httpx.TransportError as error:
        raise Problem(f"the gateway does not answer at {gateway.base_url}: start it with `make run`") from error
    if answer.is_error:
        raise Problem(f"{method} {path}: {answer.status_code}, {answer.json()['detail']}")
    return answer.json()


@contextmanager
def callbacks(secret: str) -> Iterator[tuple[str, queue.Queue[dict[str, Any]]]]:
    """A little HTTP server of our own: its URL, and the genuine callbacks that came in."""
    inbox: queue.Queue[dict[str, Any]] = queue.Queue()

    class Receive(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                inbox.put(Webhook(secret).verify(body, dict(self.headers)))
                self.send_response(204)
            except WebhookVerificationError:
                self.send_response(401)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Receive) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/finished", inbox
        finally:
            server.shutdown()


def wait_for(inbox: queue.Queue[dict[str, Any]], process_id: str) -> dict[str, Any]:
    """The process once it is completed. Callbacks come at least once, so others are passed over."""
    while True:
        try:
            process = inbox.get(timeout=PATIENCE_SECONDS)
        except queue.Empty:
            raise Problem(f"no genuine callback within {PATIENCE_SECONDS} seconds: is the worker running?") from None
        if process["id"] == process_id and process["status"] == "completed":
            return process


def say(text: str) -> None:
    """One line of progress."""
    print(f"\033[32m✓\033[0m {text}" if COLOURED else f"✓ {text}", flush=True)


def bold(value: object) -> str:
    """For emphasis."""
    return f"\033[1m{value}\033[0m" if COLOURED else str(value)


if __name__ == "__main__":
    try:
        main()
    except Problem as problem:
        sys.exit(f"✗ {problem}")
