"""What operators and their tools look at: health, readiness, metrics."""

from __future__ import annotations

import secrets
from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from redis.exceptions import RedisError
from starlette.responses import JSONResponse

from app.accounts.auth import api_key_of, authenticate
from app.console.heartbeats import alive
from app.core.db import Database, is_away
from app.core.errors import Unauthenticated
from app.core.settings import Settings
from app.host.binding import Host
from app.mirrors.mirrors import Mirrors
from app.mirrors.schema import find_pending

router = APIRouter(include_in_schema=False)


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(request: Request, verbose: str | None = None) -> Response:
    """Whether requests can be served: 200 with the database there, else 503. Redis away is not fatal, and shown.

    `?verbose` names broken plugins, drift between processes, and providers whose tables wait for a migration; the
    reasons only with an API key.
    """
    state = request.app.state
    host: Host = state.host
    checks = {"database": await _database(state.db), "redis": await _redis(state)}
    ready = checks["database"] == "ok"
    body: dict[str, Any] = {"status": "ready" if ready else "unavailable", "checks": checks}
    if verbose is not None:
        reasons = ready and await _has_key(request)
        body["plugins"] = {
            "loaded": sorted(host.plugins.loaded),
            "broken": [
                {"name": broken.name, **({"reason": broken.reason, "package": broken.distribution} if reasons else {})}
                for broken in host.plugins.broken
            ],
        }
        if ready:
            processes = await alive(state.db)
            body["workers"] = sum(role == "worker" for role, _ in processes)
            body["drift"] = any(digest != host.plugins.digest for _, digest in processes)
            body["mirrors"] = {"pending": await _pending_mirrors(state, reasons)}
    headers = {} if ready else {"retry-after": "1"}
    return JSONResponse(body, 200 if ready else 503, headers)


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Prometheus metrics, for the holder of METAGOV_METRICS_TOKEN."""
    settings: Settings = request.app.state.settings
    token = settings.metrics_token.get_secret_value()
    given = api_key_of(request.headers.get("authorization"))
    if not settings.metrics_open and not (token and secrets.compare_digest(given.encode(), token.encode())):
        raise Unauthenticated("metrics need METAGOV_METRICS_TOKEN as a bearer token")
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


async def _database(db: Database) -> str:
    try:
        await db.pool.fetchval("SELECT 1 FROM era", timeout=1)
    except Exception as error:
        if is_away(error):
            return "cannot be reached"
        return "has no tables: run `metagov migrate`"
    return "ok"


async def _pending_mirrors(state: Any, reasons: bool) -> list[dict[str, str]]:
    mirrors: Mirrors = state.mirrors
    async with mirrors.db.begin() as session:
        pending = await find_pending(session, mirrors.specs())
    return [
        {"provider": provider, **({"reason": reason} if reasons else {})}
        for provider, reason in sorted(pending.items())
    ]


async def _redis(state: Any) -> str:
    try:
        await state.gateway.redis.ping()
    except (RedisError, OSError, TimeoutError):
        return "cannot be reached; work goes on by sweeping"
    return "ok"


async def _has_key(request: Request) -> bool:
    try:
        await authenticate(request.app.state.db, request.headers.get("authorization"), None)
    except Unauthenticated:
        return False
    return True
