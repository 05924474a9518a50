"""The HTTP yardsticks: FastAPI routes that read one row, or write one, over asyncpg, and nothing else."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
from fastapi import FastAPI, Request
from pydantic import BaseModel

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


class Vote(BaseModel):
    """Who chooses what."""

    voter: str
    choice: str


@app.post("/vote")
async def store_vote(request: Request, vote: Vote) -> dict[str, Any]:
    """One row, committed."""
    statement = "INSERT INTO benchmark_bodies (body) VALUES ($1) RETURNING id"
    return {"position": await request.app.state.pool.fetchval(statement, vote.model_dump_json().encode())}
