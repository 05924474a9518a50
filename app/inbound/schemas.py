"""The wire shape of receipts."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from app.core.http import Answer, Body, Moment

ReceiptStatus = Literal["stored", "running", "done", "retrying", "dead"]


class ReceiptOut(Answer):
    """A webhook as it came in, and how far its handling is."""

    id: str
    community: str
    plugin: str
    instance: str
    status: ReceiptStatus
    attempts: int
    error: str | None
    received_at: datetime
    headers: list[list[str]]
    """`[[name, value], …]` in their order; Authorization and Cookie left out."""
    body_base64: str
    """The raw body; what the plugin declares secret in it is masked."""


class ReceiptsPage(Answer):
    """A community's receipts, newest first."""

    receipts: list[ReceiptOut]
    next: str | None


class ReplayIn(Body):
    """Which of a community's receipts to hand to their handlers again."""

    status: Literal["stored", "done", "retrying", "dead"] = "dead"
    plugin: Annotated[str, Field(max_length=64)] | None = None
    """Absent: of all plugins."""
    since: Moment | None = None
    """Received then or later."""
    until: Moment | None = None
    """Received before then."""


class ReplayOut(Answer):
    """How many receipts will be handled again."""

    replayed: int
