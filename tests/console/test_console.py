"""What operators look at: health, readiness, metrics."""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from app.console.heartbeats import beat
from app.core.embedded import Postgres
from app.gateway import Gateway
from app.main import create_app
from tests.conftest import Driver, make_settings


async def test_health_and_readiness_are_open(anonymous: httpx.AsyncClient) -> None:
    assert (await anonymous.get("/healthz")).json() == {"status": "ok"}
    ready = await anonymous.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]) == (200, {"database": "ok", "redis": "ok"})


async def test_drift_between_processes_shows(anonymous: httpx.AsyncClient, gateway: Gateway) -> None:
    await beat(gateway.db, "w1", "worker", gateway.host.plugins.digest)
    fine = (await anonymous.get("/readyz?verbose")).json()
    assert (fine["workers"], fine["drift"]) == (1, False)
    await beat(gateway.db, "w2", "worker", "other")
    drifted = (await anonymous.get("/readyz?verbose")).json()
    assert (drifted["workers"], drifted["drift"]) == (2, True)


async def test_metrics_count_routes_not_paths(anonymous: httpx.AsyncClient, driver: Driver) -> None:
    secret = "s"
    await driver.put("named-town", plugins=[{"name": "probe", "config": {"label": "a", "webhook_secret": secret}}])
    await driver.act("probe.count", slug="named-town")
    signature = "sha256=" + hmac.new(secret.encode(), b"{}", hashlib.sha256).hexdigest()
    await anonymous.post("/api/hooks/named-town/probe", content=b"{}", headers={"X-Signature": signature})
    await anonymous.get("/nothing/named-town")
    text = (await anonymous.get("/metrics")).text
    assert "named-town" not in text, "labels have no communities in them"
    routes = set(re.findall(r'metagov_http_requests_total\{[^}]*route="([^"]+)"', text))
    assert {"/api/internal/community/{slug}", "/api/action/{name}", "/api/hooks/{path:path}", "unmatched"} <= routes
    assert re.search(r'metagov_receipts_total\{plugin="probe",result="stored"\} [1-9]', text)


async def test_metrics_want_their_token(gateway: Gateway, plugins: object) -> None:
    closed = gateway.settings.model_copy(update={"metrics_open": False, "metrics_token": SecretStr("t0ken")})
    api = create_app(closed)
    async with api.router.lifespan_context(api), _client(api) as http:
        assert (await http.get("/metrics")).status_code == 401
        assert (await http.get("/metrics", headers={"Authorization": "Bearer wrong"})).status_code == 401
        assert (await http.get("/metrics", headers={"Authorization": "Bearer t0ken"})).status_code == 200
    unset = create_app(closed.model_copy(update={"metrics_token": SecretStr("")}))
    async with unset.router.lifespan_context(unset), _client(unset) as http:
        assert (await http.get("/metrics", headers={"Authorization": "Bearer "})).status_code == 401


async def test_a_database_without_tables_is_not_ready(tmp_path: Path) -> None:

    postgres = Postgres(tmp_path, fast=True)
    settings = make_settings(postgres.start())
    try:
        api = create_app(settings)
        async with api.router.lifespan_context(api), _client(api) as http:
            answer = await http.get("/readyz")
            assert answer.status_code == 503
            assert "metagov migrate" in answer.json()["checks"]["database"]
            postgres.stop()
            away = await http.get("/readyz")
            assert (away.status_code, away.headers["retry-after"]) == (503, "1")
            assert away.json()["checks"]["database"] == "cannot be reached"
            refused = await http.get("/api/internal/community", headers={"Authorization": "Bearer mgk_x"})
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert refused.headers["content-type"] == "application/problem+json"
            assert (await http.get("/healthz")).status_code == 200
    finally:
        postgres.stop()


async def test_redis_away_is_shown_and_not_fatal(gateway: Gateway) -> None:
    api = create_app(gateway.settings.model_copy(update={"redis_url": "redis://127.0.0.1:1"}))
    async with api.router.lifespan_context(api), _client(api) as http:
        answer = await http.get("/readyz")
        assert answer.status_code == 200
        assert "sweeping" in answer.json()["checks"]["redis"]


@pytest.mark.parametrize("given", ["mine-1", None, "x" * 65, "bad id"])
async def test_every_answer_carries_a_request_id(anonymous: httpx.AsyncClient, given: str | None) -> None:
    answer = await anonymous.get("/healthz", headers={"X-Request-Id": given} if given else {})
    expected = "mine-1" if given == "mine-1" else r"req_\w{26}"
    assert re.fullmatch(expected, answer.headers["x-request-id"])


def _client(api: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(api, raise_app_exceptions=False), base_url="http://gateway.test"
    )
