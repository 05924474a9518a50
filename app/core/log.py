"""Structured logs: JSON lines for machines, coloured lines for people. Every line of a request carries its id."""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from app.core.settings import Settings

REQUEST_ID: ContextVar[str] = ContextVar("request_id")
"""The id of the request that is being answered; each line that is logged meanwhile carries it."""


def configure_logging(settings: Settings) -> None:
    """Set up logging for this process. Idempotent."""
    level = getattr(logging, settings.log_level.upper())
    shared: list[Processor] = [
        _add_request_id,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if settings.log_format == "json"
        # The renderer's own choice of traceback shows local variables, secrets among them.
        else [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    )
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render]
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(level, logging.INFO))
    for noisy in ("uvicorn.access", "httpx", "httpcore", "arq.worker", "alembic.runtime.plugins.setup"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _add_request_id(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    request_id = REQUEST_ID.get("")
    if request_id:
        event["request_id"] = request_id
    return event
