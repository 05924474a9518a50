"""How records lie in Postgres: names, types, and the statements that write them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from metagov_sdk import Record
from metagov_sdk.provider import Column, ProviderSpec

TYPES = {
    "text": 'text COLLATE "C"',
    "integer": "bigint",
    "boolean": "boolean",
    "time": "timestamptz",
    "json": "jsonb",
}

_PLAIN = {**TYPES, "text": "text"}


def quoted(name: str) -> str:
    """A name of ours in SQL. Names are checked when the plugin is loaded: no quote can be in one."""
    return f'"{name}"'


def schema_name(provider: str) -> str:
    """The Postgres schema of a provider's tables: `mirror_discord`."""
    return "mirror_" + provider.replace("-", "_")


def key_text(key: tuple[str | int, ...]) -> str:
    """A row's key in one text, as partitions name the row they hang on: a JSON array."""
    return json.dumps([str(value) for value in key], separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True)
class Table:
    """One record's table of one provider."""

    provider: str
    record: type[Record]

    @cached_property
    def name(self) -> str:
        """`discord.message`, as archives and answers call it."""
        return f"{self.provider}.{self.record.table}"

    @cached_property
    def sql(self) -> str:
        """`"mirror_discord"."message"`."""
        return f"{quoted(schema_name(self.provider))}.{quoted(self.record.table)}"

    @property
    def columns(self) -> tuple[Column, ...]:
        """The record's own."""
        return self.record.columns

    @cached_property
    def shape(self) -> dict[str, Any]:
        """What the registry keeps, and compares with the plugin's code."""
        return {
            "columns": {column.name: column.kind for column in self.columns},
            "paths": {column.name: list(column.path) for column in self.columns},
            "key": list(self.record.key),
            "partition": self.record.partition,
            "time": self.record.time,
        }

    @cached_property
    def sha256(self) -> str:
        """The hash of the table's JSON Schema, as manifests of archives name it."""
        canonical = json.dumps(self.record.json_schema(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    @cached_property
    def key_sql(self) -> str:
        """The expression for `key_text` of a row."""
        values = ", ".join(f"t.{quoted(name)}::text" for name in self.record.key)
        return f"array_to_json(ARRAY[{values}])::text"

    @cached_property
    def upsert(self) -> str:
        """Writes rows, one statement however many; returns by how many live ones the table has grown.

        A row's `synced_at` is the time at which it got its present values. Parameters: rows, a JSON array of objects
        with the record's fields, extra and mirror_flags; instance, community, source, pass, now, revive. As one JSON
        document rows cost a fraction of what an array per column does to be written down, and to be read.
        """
        names = [quoted(column.name) for column in self.columns]
        given = ", ".join(f"{quoted(column.name)} {_PLAIN[column.kind]}" for column in self.columns)
        keys = [quoted(name) for name in self.record.key]
        joined = " AND ".join(f"o.{name} = new.{name}" for name in keys)
        plain = [name for name in names if name not in keys]
        values = [*plain, "extra", "mirror_flags"]
        old = ", ".join(f"t.{name}" for name in values)
        fresh = ", ".join(f"excluded.{name}" for name in values)
        changed = f"(CAST(:revive AS boolean) AND t.deleted_at IS NOT NULL) OR ROW({old}) IS DISTINCT FROM ROW({fresh})"
        return f"""
            WITH new AS MATERIALIZED (
                SELECT * FROM json_to_recordset(CAST(:rows AS json))
                    AS new({given}, extra jsonb, mirror_flags jsonb)
            ), there AS MATERIALIZED (
                SELECT count(*) FILTER (WHERE o.deleted_at IS NULL) AS live,
                       count(*) FILTER (WHERE o.deleted_at IS NOT NULL) AS dead
                FROM new CROSS JOIN LATERAL (
                    -- One by one through the key's index: a plan made while the table was small reads all of it.
                    SELECT o.deleted_at FROM {self.sql} o WHERE o.instance_id = :instance AND {joined} LIMIT 1) o
            ), written AS (
                INSERT INTO {self.sql} AS t (
                    instance_id, community_id, {", ".join(names)}, extra, mirror_flags,
                    mirror_source, mirror_pass, first_seen, synced_at
                )
                SELECT :instance, :community, {", ".join(f"new.{name}" for name in names)}, new.extra, new.mirror_flags,
                       CAST(:source AS bigint), CAST(:pass AS integer), :now, :now
                FROM new ORDER BY {", ".join(f"new.{name}" for name in keys)}
                ON CONFLICT (instance_id, {", ".join(keys)}) DO UPDATE SET
                    {"".join(f"{name} = excluded.{name}, " for name in values)}
                    mirror_source = coalesce(excluded.mirror_source, t.mirror_source),
                    mirror_pass = CASE WHEN excluded.mirror_source IS NULL THEN t.mirror_pass
                                       ELSE excluded.mirror_pass END,
                    synced_at = CASE WHEN {changed} THEN excluded.synced_at ELSE t.synced_at END,
                    deleted_at = CASE WHEN CAST(:revive AS boolean) THEN NULL ELSE t.deleted_at END
            )
            SELECT (SELECT count(*) FROM new) - live - CASE WHEN CAST(:revive AS boolean) THEN 0 ELSE dead END
            FROM there
        """  # noqa: S608 -- names checked when the plugin was loaded

    def create(self) -> list[str]:
        """The statements that make the table."""
        columns = ", ".join(
            f"{quoted(column.name)} {TYPES[column.kind]}{' NOT NULL' if column.in_key else ''}"
            for column in self.columns
        )
        keys = ", ".join(quoted(name) for name in self.record.key)
        index = quoted(f"ix_{self.record.table}_source")
        changed = quoted(f"ix_{self.record.table}_changed")
        return [
            f"""
            CREATE TABLE {self.sql} (
                instance_id text COLLATE "C" NOT NULL, community_id text COLLATE "C" NOT NULL, {columns},
                extra jsonb NOT NULL, mirror_flags jsonb,
                mirror_source bigint, mirror_pass integer NOT NULL,
                first_seen timestamptz NOT NULL, synced_at timestamptz NOT NULL, deleted_at timestamptz,
                PRIMARY KEY (instance_id, {keys})
            ) WITH (fillfactor = 85)
            """,
            f"CREATE INDEX {index} ON {self.sql} (mirror_source)",
            f"CREATE INDEX {changed} ON {self.sql} (instance_id, synced_at)",
        ]


def tables_of(spec: ProviderSpec) -> dict[str, Table]:
    """A provider's tables, by their names within it."""
    return {name: Table(spec.name, record) for name, record in spec.records.items()}
