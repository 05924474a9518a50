"""Where in a database or an archive a text is still to be found, whatever tables and columns there are."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

import asyncpg

from app.archives.format import blob_name, manifest_name, unpack
from app.archives.read import VerifiedReader

_COLUMNS = """
SELECT format('%I.%I', c.table_schema, c.table_name) AS name,
    string_agg(
        format(CASE WHEN c.data_type = 'bytea' THEN $f$encode(%I, 'escape')$f$ ELSE '%I::text' END, c.column_name),
        ', ' ORDER BY c.ordinal_position) AS columns
FROM information_schema.columns c JOIN information_schema.tables t USING (table_schema, table_name)
WHERE t.table_type = 'BASE TABLE' AND c.table_schema NOT IN ('pg_catalog', 'information_schema')
GROUP BY 1
"""


async def traces(pool: asyncpg.Pool[asyncpg.Record], texts: Iterable[str]) -> dict[str, list[str]]:
    """By text: the tables with a row that has it in any column, compressed bodies included."""
    found: dict[str, list[str]] = {}
    tables = await pool.fetch(_COLUMNS)
    assert len(tables) > 30, "the search has to see the tables"
    bodies = [zlib.decompress(row["body"]) for row in await pool.fetch("SELECT body FROM mirror_bodies")]
    for text in texts:
        for table in tables:
            row = f"position($1 IN concat_ws(' ', {table['columns']})) > 0"
            if await pool.fetchval(f"SELECT EXISTS (SELECT FROM {table['name']} WHERE {row})", text):
                found.setdefault(text, []).append(table["name"])
        if any(text.encode() in body for body in bodies):
            found.setdefault(text, []).append("public.mirror_bodies")
    return found


async def in_archive(reader: VerifiedReader, texts: Iterable[str]) -> set[str]:
    """Those of the texts that the snapshot has in its manifest or in any of its blobs."""
    names = [
        blob_name(digest)
        for table in reader.manifest.tables
        for digest in [table.schema_sha256, *(chunk.sha256 for chunk in table.chunks)]
    ]
    stored: list[Any] = [await reader.archive.read(manifest_name(reader.snapshot), 1 << 27)]
    stored += [unpack(await reader.archive.read(name, 1 << 27), name, 1 << 27) for name in names]
    return {text for text in texts if any(text.encode() in data for data in stored)}
