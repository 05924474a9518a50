"""The wire shape of receipts."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from app.core.http import Answer

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
