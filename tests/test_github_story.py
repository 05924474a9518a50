"""The main job, over real sockets: GitHub's signed webhook in, the signed event out to the driver, once."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json

import httpx

from tests.plugins.github_payloads import issues_opened
from tests.support.servers import Server
from tests.support.sink import Sink

SECRET = "the repository's webhook secret"
PATH = "/api/hooks/story/github"


def delivery(body: bytes, delivery_id: str) -> dict[str, str]:
    return {
        "content-type": "application/json",
        "X-GitHub-Event": "issues",
        "X-GitHub-Delivery": delivery_id,
        "X-Hub-Signature-256": "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest(),
    }


async def test_an_issue_reaches_the_driver_signed_and_once(server: Server, sink: Sink) -> None:
    payload = issues_opened()
    body = json.dumps(payload).encode()
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=20) as http:
        http.headers["Authorization"] = f"Bearer {server.api_key}"
        wanted = {"plugins": [{"name": "github", "config": {"webhook_secret": SECRET}}]}
        put = await http.put("/api/internal/community/story", json=wanted)
        assert put.json()["plugins"][0]["config"] == {"webhook_secret": "********"}
        registration = {"url": sink.url, "events": ["github.issues.*"], "communities": ["story"]}
        endpoint = (await http.post("/api/internal/driver/endpoints", json=registration)).json()

        first = await http.post(PATH, content=body, headers=delivery(body, "d-1"))
        again = await http.post(PATH, content=body, headers=delivery(body, "d-1"))
        assert (first.status_code, again.status_code) == (202, 200)
        (posted,) = await sink.wait_for(1)
        event = posted.verify(endpoint["secret"])
        assert (event["source"], event["event_type"]) == ("github", "issues.opened")
        assert event["data"] == payload
        assert event["initiator"]["user_id"] == str(payload["sender"]["id"])

        flipped = body.replace(b"opened", b"openee", 1)
        assert (await http.post(PATH, content=flipped, headers=delivery(body, "d-2"))).status_code == 401
        listed = await http.get("/api/internal/receipts", headers={"X-Metagov-Community": "story"})
        assert len(listed.json()["receipts"]) == 1
        await asyncio.sleep(1.5)
        assert len(sink.posts) == 1
