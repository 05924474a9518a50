"""The HTTP yardstick: a FastAPI route that reads one row over asyncpg and answers with it as JSON, and nothing else."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
from fastapi import FastAPI, Request

DSN_VARIABLE = "BENCHMARK_DSN"


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(os.environ[DSN_VARIABLE], min_size=10, max_size=10) as pool:
        app.state.pool = pool
        yield


app = FastAPI(lifespan=_lifespan)


@app.get("/row/{row_id}")
async def read_row(request: Request, row_id: int) -> dict[str, Any]:
    """One row."""
    row = await request.app.state.pool.fetchrow("SELECT id, title FROM benchmark_rows WHERE id = $1", row_id)
    return dict(row)
