"""Records: one class per mirrored table, and how a platform's JSON becomes its rows.

Reading loses nothing and never fails: what does not fit a field is left out of it, kept whole in `extra`, and flagged.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, NamedTuple, Self, TypeAlias

from pydantic import JsonValue, PrivateAttr
from pydantic.fields import FieldInfo

from metagov_sdk.errors import ManifestError
from metagov_sdk.models import Model
from metagov_sdk.provider.values import Kind, ReadValue, reader, storable

Key: TypeAlias = tuple[str | int, ...]
"""The values of a record's key fields."""

LONGEST_KEY = 500
"""Characters of a text that is part of a key: an index has to hold it."""
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_LONGEST_NAME = 50
_RESERVED = frozenset({"instance_id", "community_id", "extra", "first_seen", "synced_at", "deleted_at"})


def at(*path: str) -> Any:
    """A path into the platform's object, for a field that it calls otherwise. Names from the top, one per level."""
    return FieldInfo(default=None, json_schema_extra={"path": list(path)})


@dataclass(frozen=True, slots=True)
class Column:
    """A field of a record as its table has it; `path` is where it stands in the platform's object."""

    name: str
    kind: Kind
    path: tuple[str, ...]
    in_key: bool


class Record(Model):
    """One row of a mirrored table. The docstring describes the table.

        class Message(Record):
            \"\"\"A message of a channel.\"\"\"

            table = "message"
            key = ("id",)
            partition = "channel_id"
            time = "timestamp"

            id: str
            channel_id: str | None
            author_id: str | None = at("author", "id")
            timestamp: datetime | None

    Fields are `str`, `int`, `bool`, `datetime`, `list[str]` or JSON (`JsonValue`), and all but those of the key may be
    None: platforms leave things out. There are no floats, which two machines may write differently.

    table      its name within the provider: "message" of the provider "discord" is the table "discord.message".
    key        the fields that tell rows apart.
    partition  the field that names the parent; archives cut a table by it.
    time       the field that archives cut long partitions by.
    ignored    what of the platform's object is not worth keeping: names at its top level whose rest is dropped, for
               what other tables hold, and for what changes without meaning anything.
    people     the fields that hold the platform's id of an account, for `metagov mirror forget`.
    names      the fields that show how this account is called: `metagov mirror forget` takes `@name` out of texts.
    """

    table: ClassVar[str]
    key: ClassVar[tuple[str, ...]]
    partition: ClassVar[str | None] = None
    time: ClassVar[str | None] = None
    ignored: ClassVar[tuple[str, ...]] = ()
    people: ClassVar[tuple[str, ...]] = ()
    names: ClassVar[tuple[str, ...]] = ()

    _extra: dict[str, Any] = PrivateAttr(default_factory=dict)
    _extra_json: str = PrivateAttr(default="{}")
    _flags: tuple[str, ...] = PrivateAttr(default=())

    columns: ClassVar[tuple[Column, ...]] = ()
    """Derived from the fields, in their order."""
    _steps: ClassVar[tuple[_Step, ...]] = ()
    _known: ClassVar[frozenset[str]] = frozenset()
    _nested: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Objects of which fields are read, and the names within them that are."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls.columns = _columns(cls)
        cls._steps = tuple(
            _Step(
                column.name,
                column.path[0],
                column.path[1:],
                reader(column.kind, cls.model_fields[column.name].annotation),
                column.in_key,
                ".".join(column.path),
            )
            for column in cls.columns
        )
        cls._known = frozenset(column.path[0] for column in cls.columns) | set(cls.ignored)
        cls._nested = tuple(
            (column.path[0], column.path[1])
            for column in cls.columns
            if len(column.path) > 1 and column.path[0] not in cls.ignored
        )

    @classmethod
    def read(cls, raw: object, /, **given: Any) -> Self:
        """The platform's object as a row; `given` are fields that it does not name itself. Never raises.

        Unknown fields are kept in `extra`. A value of the wrong type leaves its field None, stays in `extra`, and is
        named in `flags` ("type:content"); a text with characters that no database takes is flagged "text:…", and has
        the replacement character for them.
        """
        source: dict[str, Any] = raw if isinstance(raw, dict) else {}
        flags: list[str] = []
        kept: dict[str, Any] = {} if isinstance(raw, dict) else {"": raw}
        values: dict[str, Any] = {}
        for name, root, deeper, read_value, in_key, path in cls._steps:
            value = given[name] if name in given else source.get(root)
            if deeper and name not in given:
                if value is not None and not isinstance(value, dict):
                    # Nothing can be found in it, and it is not to get lost, also where an object would be ignored.
                    flags.append(f"type:{name}")
                    kept[root] = value
                value = _find(value, deeper)
            if value is None:
                values[name] = None
                continue
            read, flag = read_value(value)
            if in_key and isinstance(read, str) and not 0 < len(read) <= LONGEST_KEY:
                read, flag = None, "key"
            if flag is not None:
                flags.append(f"{flag}:{name}")
                if flag != "huge":
                    kept[path] = value
            values[name] = read
        unknown = {name: source[name] for name in source if name not in cls._known}
        extra, odd, text = storable({**_rest(cls._nested, source), **unknown, **kept})
        if odd:
            flags.append("text:extra")
        # What pydantic's model_construct does, without what it looks up for each field of each row anew.
        row = cls.__new__(cls)
        put = object.__setattr__
        put(row, "__dict__", values)
        put(row, "__pydantic_fields_set__", set(values))
        put(row, "__pydantic_extra__", None)
        put(row, "__pydantic_private__", {"_extra": extra, "_extra_json": text, "_flags": tuple(flags)})
        return row

    def _private(self, name: str) -> Any:
        # What pydantic's own look-up comes to, at a fraction of its time: pages have many rows.
        return (self.__pydantic_private__ or {})[name]

    @property
    def extra(self) -> dict[str, Any]:
        """What the platform said beyond the fields; JSON values."""
        extra: dict[str, Any] = self._private("_extra")
        return extra

    @property
    def extra_json(self) -> str:
        """The same as a JSON document."""
        document: str = self._private("_extra_json")
        return document

    @property
    def flags(self) -> tuple[str, ...]:
        """What was wrong with what the platform said: "type:<field>", "text:<field>", "huge:<field>" and the like."""
        flags: tuple[str, ...] = self._private("_flags")
        return flags

    @property
    def key_values(self) -> Key | None:
        """The values of the key, None when one is missing or unreadable: such a row cannot be stored as one."""
        values = tuple(getattr(self, name) for name in self.key)
        return None if None in values else values

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The table's JSON Schema: what a row looks like in an archive. Equal on every machine."""
        types_of = {
            "text": {"type": "string"},
            "integer": {"type": "integer"},
            "boolean": {"type": "boolean"},
            "time": {"type": "string", "format": "date-time"},
            "json": {},
        }
        properties: dict[str, Any] = {}
        for column in cls.columns:
            shape: dict[str, Any] = dict(types_of[column.kind])
            if "type" in shape and not column.in_key:
                shape["type"] = [shape["type"], "null"]
            description = cls.model_fields[column.name].description
            properties[column.name] = {**shape, **({"description": description} if description else {})}
        properties["extra"] = {"type": "object"}
        properties["mirror_flags"] = {"type": ["array", "null"], "items": {"type": "string"}}
        properties["deleted_at"] = {"type": ["string", "null"], "format": "date-time"}
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": cls.table,
            "description": " ".join((cls.__doc__ or "").split()),
            "type": "object",
            "properties": properties,
            "required": list(cls.key),
        }


class _Step(NamedTuple):
    """How one column is read: where its value stands, and what makes one of it that fits, with the flag."""

    name: str
    root: str
    deeper: tuple[str, ...]
    read: ReadValue
    in_key: bool
    path: str


def _find(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def _rest(nested: Sequence[tuple[str, str]], source: Mapping[str, Any]) -> dict[str, Any]:
    """What nested objects hold beside the fields that were read from them."""
    rest: dict[str, Any] = {}
    for root, read in nested:
        if root not in source:
            continue
        inner = rest.get(root, source[root])
        if isinstance(inner, dict):
            inner = {name: value for name, value in inner.items() if name != read}
        rest[root] = inner
    return {name: value for name, value in rest.items() if value}


def _columns(cls: type[Record]) -> tuple[Column, ...]:
    what = f"record {cls.__name__}"
    for name in ("table", "key"):
        if name not in cls.__dict__ and not hasattr(cls, name):
            raise ManifestError(f"{what}: say its {name}")
    if not _NAME.fullmatch(cls.table) or len(cls.table) > _LONGEST_NAME:
        raise ManifestError(f"{what}: table = {cls.table!r} should be lower-case words joined by underscores")
    fields = cls.model_fields
    named = [*cls.key, *cls.people, *cls.names, *(name for name in (cls.partition, cls.time) if name)]
    if not cls.key or (missing := [name for name in named if name not in fields]):
        raise ManifestError(f"{what}: {'it has no key' if not cls.key else f'there is no field {missing[0]!r}'}")
    columns = []
    for name, field in fields.items():
        if name in _RESERVED or name.startswith("mirror_") or len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
            raise ManifestError(f"{what}: a field cannot be named {name!r}")
        kind, optional = _kind(field.annotation, f"{what}: field {name}")
        in_key = name in cls.key
        if in_key == optional:
            raise ManifestError(f"{what}: field {name} should {'not ' if in_key else ''}allow None")
        if in_key and kind not in ("text", "integer"):
            raise ManifestError(f"{what}: field {name} is part of the key, and should be a str or an int")
        shape = field.json_schema_extra
        path = shape.get("path") if isinstance(shape, dict) else None
        columns.append(Column(name, kind, tuple(typing.cast("Sequence[str]", path)) if path else (name,), in_key))
    kinds = {column.name: column.kind for column in columns}
    if cls.time is not None and kinds[cls.time] != "time":
        raise ManifestError(f"{what}: time = {cls.time!r} should be a datetime")
    if cls.partition is not None and kinds[cls.partition] not in ("text", "integer"):
        raise ManifestError(f"{what}: partition = {cls.partition!r} should be a str or an int")
    return tuple(columns)


def _kind(annotation: Any, what: str) -> tuple[Kind, bool]:
    if annotation in (JsonValue, Any):
        return "json", True
    parts = typing.get_args(annotation) if typing.get_origin(annotation) in (types.UnionType, typing.Union) else ()
    inner = [part for part in parts if part is not type(None)] if parts else [annotation]
    optional = len(inner) < len(parts)
    plain: dict[Any, Kind] = {str: "text", int: "integer", bool: "boolean", datetime: "time"}
    if len(inner) == 1:
        if inner[0] in plain:
            return plain[inner[0]], optional
        if inner[0] is JsonValue or typing.get_origin(inner[0]) in (list, dict):
            return "json", optional
    raise ManifestError(f"{what} should be a str, int, bool, datetime, list or JSON, not {annotation!r}")
