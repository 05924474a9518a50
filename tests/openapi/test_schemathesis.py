"""The running server keeps to its document, whatever it is sent: schemathesis over every operation."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.sourcecred import FakeSourceCred, account, accounts_file
from tests.support.servers import Server

pytestmark = pytest.mark.slow

SECONDS = 30
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
# 502 is a plugin's refusal ("nobody by that name"). 503 has no excuse here: database and platform are there.
_CONFIG = """
workers = 2
continue-on-failure = true

[headers]
Authorization = "Bearer {key}"
X-Metagov-Community = "{slug}"

[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "502"]

[dictionaries]
plugins = {{ values = ["randomness", "sourcecred", "github"] }}
instances = {{ values = ["{instance}"] }}
endpoints = {{ values = ["{endpoint}"] }}
processes = {{ values = ["{process}"] }}
kinds = {{ values = ["randomness.delayed-stochastic-vote"] }}
communities = {{ values = ["{slug}"] }}
people = {{ values = ["{person}"] }}

[parameters]
"path.plugin" = {{ dictionary = "plugins", probability = 0.7 }}
"path.instance_id" = {{ dictionary = "instances", probability = 0.7 }}
"path.endpoint_id" = {{ dictionary = "endpoints", probability = 0.7 }}
"path.process_id" = {{ dictionary = "processes", probability = 0.7 }}
"path.name" = {{ dictionary = "kinds", probability = 0.7 }}
"path.community" = {{ dictionary = "communities", probability = 0.7 }}
"path.slug" = {{ dictionary = "communities", probability = 0.7 }}
"query.external_id" = {{ dictionary = "people", probability = 0.7 }}

# What these change or remove, the other operations need: they get a community and an instance of their own.
[[operations]]
include-operation-id = ["put_community", "delete_community"]
parameters = {{ "path.slug" = "{slug}-doomed" }}

[[operations]]
include-operation-id = ["update_instance", "delete_instance"]
parameters = {{ "path.plugin" = "github", "path.instance_id" = "{doomed}" }}

[[operations]]
include-operation-id = ["delete_endpoint"]
parameters = {{ "path.endpoint_id" = "end_none" }}
"""


async def test_every_operation_keeps_to_the_document(server: Server, tmp_path: Path) -> None:
    people = accounts_file(account("ada", [1.5, 2.0]), account("bo", [0.5]))
    async with FakeSourceCred(people) as platform:
        headers = {"Authorization": f"Bearer {server.api_key}"}
        async with httpx.AsyncClient(base_url=server.url, headers=headers, trust_env=False, timeout=30) as http:
            facts = await set_up(http, platform.url)
            document = without_examples((await http.get("/openapi.json")).json())
        # An answer without end, which schemathesis would wait for.
        del document["paths"]["/api/internal/events/stream"]
        # It would change the secret that other tests on this server verify with.
        del document["paths"]["/api/internal/driver/rotate-secret"]
        (tmp_path / "openapi.json").write_text(json.dumps(document))
        (tmp_path / "schemathesis.toml").write_text(_CONFIG.format(key=server.api_key, **facts))
        code, printed = await run_schemathesis(server.url, tmp_path)
    assert code == 0, printed
    operations = sum(len(item) for item in document["paths"].values())
    assert f"Tested: {operations}" in printed, printed


async def set_up(http: httpx.AsyncClient, platform: str) -> dict[str, str]:
    """A community with something of everything; the ids that paths can name."""
    slug = f"fuzzed-{uuid.uuid4().hex[:12]}"
    plugins = [
        {"name": "ballot", "config": {}},
        {"name": "randomness", "config": {"default_low": 1, "default_high": 6}},
        {"name": "sourcecred", "config": {"server_url": platform}},
        {"name": "github", "config": {"webhook_secret": "a secret of the fuzzed community's own"}},
    ]
    community = await http.put(f"/api/internal/community/{slug}", json={"plugins": plugins})
    instances = {plugin["name"]: plugin["id"] for plugin in community.raise_for_status().json()["plugins"]}
    # Nothing is delivered there: no event is called that.
    endpoint = await http.post("/api/internal/driver/endpoints", json={"url": f"{platform}/none", "events": ["none"]})
    started = await http.post(
        "/api/internal/process/randomness.delayed-stochastic-vote",
        json={"options": ["ash", "oak"], "delay": 60},
        headers={"X-Metagov-Community": slug},
    )
    people = await http.post("/api/internal/identity/create_id", json={"community_slug": slug})
    return {
        "slug": slug,
        "person": people.raise_for_status().json()[0],
        "instance": instances["randomness"],
        "doomed": instances["github"],
        "endpoint": endpoint.raise_for_status().json()["id"],
        "process": started.raise_for_status().json()["id"],
    }


def without_examples(document: dict[str, Any]) -> dict[str, Any]:
    """The document without its example requests: they name hosts outside, which the server would try to reach."""
    for item in document["paths"].values():
        for operation in item.values():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                content.pop("example", None)
    return document


async def run_schemathesis(url: str, folder: Path) -> tuple[int, str]:
    """Its exit code and what it printed. Its budget of seconds ends it in good order."""
    arguments = ["--config-file", "schemathesis.toml", "run", "openapi.json", "--url", url, "--no-color"]
    budget = ["--workers", "1", "--phases", "coverage,fuzzing", "--max-examples", "15", "--max-time", str(SECONDS)]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "schemathesis.cli",
        *arguments,
        *budget,
        "--checks",
        ",".join(CHECKS),
        cwd=folder,
        env={**os.environ, "NO_PROXY": "127.0.0.1", "PYTHONIOENCODING": "utf-8"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        printed, _ = await asyncio.wait_for(process.communicate(), SECONDS + 25)
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode or 0, printed.decode()
