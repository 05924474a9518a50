"""The wire shapes of archives."""

from __future__ import annotations

from typing import Any

from app.archives.format import Manifest
from app.core.http import Answer


class ArchiveHeadOut(Answer):
    """An archive's newest snapshot."""

    provider: str
    community: str
    snapshot: str | None
    """The newest snapshot's id; null when nothing was archived yet."""
    seq: int
    """The snapshot's number, from 1; 0 when there is none."""
    created_at: str | None
    """When the newest of its tables was synced."""


class ArchiveManifest(Manifest):
    """A snapshot: its tables, their chunks and the snapshot before it. Its SHA-256 is its id."""


class ArchiveRows(Answer):
    """A page of a table's rows, in the order of partition, month and key."""

    rows: list[dict[str, Any]]
    """As they are archived: nulls left out, integers past 2^53 as strings; with `deleted_at` if they vanished."""
    snapshot: str
    """The snapshot they are of; the following pages are of the same."""
    next: str | None
