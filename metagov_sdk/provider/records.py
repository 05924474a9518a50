"""Records: one class per mirrored table, and how a platform's JSON becomes its rows.

Reading loses nothing and never fails: what does not fit a field is left out of it, kept whole in `extra`, and flagged.
"""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, Self, TypeAlias

from pydantic import JsonValue, PrivateAttr
from pydantic.fields import FieldInfo

from metagov_sdk.errors import ManifestError
from metagov_sdk.models import Model

Kind: TypeAlias = Literal["text", "integer", "boolean", "time", "json"]
"""What a column holds."""
Key: TypeAlias = tuple[str | int, ...]
"""The values of a record's key fields."""

LONGEST_KEY = 500
"""Characters of a text that is part of a key: an index has to hold it."""
HUGE = 1_000_000
"""Characters from which on a text is flagged; it is kept all the same."""
_MOST = 2**63 - 1
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_LONGEST_NAME = 50
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
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
    """

    table: ClassVar[str]
    key: ClassVar[tuple[str, ...]]
    partition: ClassVar[str | None] = None
    time: ClassVar[str | None] = None
    ignored: ClassVar[tuple[str, ...]] = ()
    people: ClassVar[tuple[str, ...]] = ()

    _extra: dict[str, Any] = PrivateAttr(default_factory=dict)
    _extra_json: str = PrivateAttr(default="{}")
    _flags: tuple[str, ...] = PrivateAttr(default=())

    columns: ClassVar[tuple[Column, ...]] = ()
    """Derived from the fields, in their order."""
    _steps: ClassVar[tuple[_Step, ...]] = ()
    _known: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls.columns = _columns(cls)
        cls._steps = tuple(
            _Step(column, _reader(column, cls.model_fields[column.name].annotation)) for column in cls.columns
        )
        cls._known = frozenset(column.path[0] for column in cls.columns) | set(cls.ignored)

    @classmethod
    def read(cls, raw: object, /, **given: Any) -> Self:
        """The platform's object as a row; `given` are fields that it does not name itself. Never raises.

        Unknown fields are kept in `extra`. A value of the wrong type leaves its field None, stays in `extra`, and is
        named in `flags` ("type:content"); a text with characters that no database takes is flagged "text:…", and has
        the replacement character for them.
        """
        source: Mapping[str, Any] = raw if isinstance(raw, dict) else {}
        flags: list[str] = []
        kept: dict[str, Any] = {} if isinstance(raw, dict) else {"": raw}
        values: dict[str, Any] = {}
        for step in cls._steps:
            column = step.column
            name = column.name
            value = given[name] if name in given else _find(source, column.path)
            if value is None:
                values[name] = None
                continue
            read, flag = step.read(value)
            if read is not None and column.in_key and isinstance(read, str) and not 0 < len(read) <= LONGEST_KEY:
                read, flag = None, "key"
            if flag is not None:
                flags.append(f"{flag}:{name}")
                if flag != "huge":
                    kept[".".join(column.path)] = value
            values[name] = read
        unknown = {name: value for name, value in source.items() if name not in cls._known}
        extra, odd, text = _storable({**_rest(cls, source), **unknown, **kept})
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

    @property
    def extra(self) -> dict[str, Any]:
        """What the platform said beyond the fields; JSON values."""
        return self._extra

    @property
    def extra_json(self) -> str:
        """The same as a JSON document."""
        return self._extra_json

    @property
    def flags(self) -> tuple[str, ...]:
        """What was wrong with what the platform said: "type:<field>", "text:<field>", "huge:<field>" and the like."""
        return self._flags

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


@dataclass(frozen=True, slots=True)
class _Step:
    """How one column is read: the value for it (None: there is none that fits) and the flag."""

    column: Column
    read: Callable[[Any], tuple[Any, str | None]]


def _find(source: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = source
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def _rest(cls: type[Record], source: Mapping[str, Any]) -> dict[str, Any]:
    """What nested objects hold beside the fields that were read from them."""
    rest: dict[str, Any] = {}
    for column in cls.columns:
        root = column.path[0]
        if len(column.path) == 1 or root in cls.ignored or root not in source:
            continue
        inner = source[root]
        if isinstance(inner, dict):
            inner = {name: value for name, value in rest.get(root, inner).items() if name != column.path[1]}
        rest[root] = inner
    return {name: value for name, value in rest.items() if value}


def _read_text(value: Any) -> tuple[Any, str | None]:
    if not isinstance(value, str):
        # An id that a platform writes as a number today is still the id.
        return (str(value), "type") if isinstance(value, int) and not isinstance(value, bool) else (None, "type")
    if "\0" in value or (not value.isascii() and _LONE_SURROGATE.search(value)):
        return _LONE_SURROGATE.sub("\ufffd", value.replace("\0", "\ufffd")), "text"
    return value, "huge" if len(value) > HUGE else None


def _read_integer(value: Any) -> tuple[Any, str | None]:
    if isinstance(value, str) and len(value) < 25 and value.isascii() and value.lstrip("-").isdigit():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _MOST:
        return value, None
    return None, "type"


def _read_boolean(value: Any) -> tuple[Any, str | None]:
    return (value, None) if isinstance(value, bool) else (None, "type")


def _read_time(value: Any) -> tuple[Any, str | None]:
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
        elif isinstance(value, datetime):
            moment = value
        elif isinstance(value, int | float) and not isinstance(value, bool):
            moment = datetime.fromtimestamp(value, UTC)
        else:
            return None, "type"
        return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)), None
    except (ValueError, OverflowError, OSError):
        return None, "type"


def _read_json(value: Any) -> tuple[Any, str | None]:
    clean, odd, _ = _storable(value)
    return clean, "text" if odd else None


def _read_texts(value: Any) -> tuple[Any, str | None]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        return None, "type"
    return _read_json(value)


_READERS: dict[str, Callable[[Any], tuple[Any, str | None]]] = {
    "text": _read_text,
    "integer": _read_integer,
    "boolean": _read_boolean,
    "time": _read_time,
    "json": _read_json,
}


def _reader(column: Column, annotation: Any) -> Callable[[Any], tuple[Any, str | None]]:
    kinds = [typing.get_origin(part) or part for part in typing.get_args(annotation)]
    return _read_texts if list in kinds else _READERS[column.kind]


def _storable(value: Any) -> tuple[Any, bool, str]:
    """The value, if a database's JSON can hold it, whether it could not, and the JSON document.

    What it cannot (NUL, half a surrogate pair, NaN) is kept as the text of its JSON under "unstorable".
    """
    if value == {}:
        return value, False, "{}"
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()
        if "\\u0000" not in text:
            return value, False, text
    except (ValueError, TypeError, RecursionError):
        pass
    try:
        clean = {"unstorable": json.dumps(value, default=str)}
    except (ValueError, RecursionError):
        clean = {"unstorable": "nested too deep to be written down"}
    return clean, True, json.dumps(clean)


def _columns(cls: type[Record]) -> tuple[Column, ...]:
    what = f"record {cls.__name__}"
    for name in ("table", "key"):
        if name not in cls.__dict__ and not hasattr(cls, name):
            raise ManifestError(f"{what}: say its {name}")
    if not _NAME.fullmatch(cls.table) or len(cls.table) > _LONGEST_NAME:
        raise ManifestError(f"{what}: table = {cls.table!r} should be lower-case words joined by underscores")
    fields = cls.model_fields
    named = [*cls.key, *cls.people, *(name for name in (cls.partition, cls.time) if name)]
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
