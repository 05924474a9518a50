"""Receive one finished process on a port of this machine, and verify its signature.

    SECRET=whsec_… .venv/bin/python examples/receive_callback.py 9000

Ends with 0 once a genuine callback of a completed process has come in, with 1 when none does within a minute.
"""

from __future__ import annotations

import os
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

PATIENCE_SECONDS = 60


class Callbacks(HTTPServer):
    """Keeps the process that came in last and was completed."""

    process: dict[str, Any] | None = None


class Receive(BaseHTTPRequestHandler):
    """Verifies each POST: a genuine one is answered 204, any other 401."""

    server: Callbacks

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            process = Webhook(os.environ["SECRET"]).verify(body, dict(self.headers))
        except WebhookVerificationError as error:
            print(f"✗ refused: {error}", flush=True)
            self.send_response(401)
        else:
            print(f"✓ callback received, signature verified: {process['status']} {process['outcome']}", flush=True)
            self.send_response(204)
            if process["status"] == "completed":
                self.server.process = process
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def main() -> int:
    """Listen on the port that the command line names (9000)."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9000
    deadline = time.monotonic() + PATIENCE_SECONDS
    with Callbacks(("127.0.0.1", port), Receive) as server:
        server.timeout = 1
        while server.process is None and time.monotonic() < deadline:
            server.handle_request()
    if server.process is None:
        print(f"✗ no callback within {PATIENCE_SECONDS} seconds", flush=True)
    return 0 if server.process else 1


if __name__ == "__main__":
    sys.exit(main())
