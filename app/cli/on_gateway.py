"""Commands that need all of the gateway: opened for one of them, with errors in one line."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from app.cli.serve import require_settings
from app.core.db import is_away
from app.core.errors import Problem
from app.core.log import configure_logging
from app.core.settings import load_settings
from app.gateway import Gateway, open_gateway

ResultT = TypeVar("ResultT")


def run_on_gateway(work: Callable[[Gateway], Awaitable[ResultT]]) -> ResultT:
    """Do the work of a command, and return what came of it. Raises ClickException, in plain words."""
    require_settings()
    settings = load_settings()
    configure_logging(settings)

    async def opened() -> ResultT:
        async with open_gateway(settings) as gateway:
            return await work(gateway)

    try:
        return asyncio.run(opened())
    except Problem as problem:
        raise click.ClickException(problem.detail) from problem
    except Exception as error:
        if is_away(error):
            raise click.ClickException("the database cannot be reached; check METAGOV_DATABASE_URL") from error
        raise
