"""A table's columns, as its JSON Schema tells them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Kind = Literal["text", "integer", "boolean", "moment", "json"]
"""How a column's values are written: a string, a number, a boolean, an RFC 3339 time, any JSON."""

_BY_TYPE: dict[str, Kind] = {"string": "text", "integer": "integer", "boolean": "boolean"}


def kinds_of(schema: Mapping[str, Any]) -> dict[str, Kind]:
    """The kind of each property of an object's JSON Schema. What is not one scalar type (or null) is `json`."""
    return {name: _kind(each, schema) for name, each in schema.get("properties", {}).items()}


def required_of(schema: Mapping[str, Any]) -> set[str]:
    """The properties that cannot be null."""
    return {name for name in schema.get("required", ()) if not _may_be_null(schema["properties"].get(name, {}))}


def _alternatives(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    options = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(options, list):
        return [option for option in options if isinstance(option, Mapping)]
    types = schema.get("type")
    return [{**schema, "type": one} for one in types] if isinstance(types, list) else [schema]


def _may_be_null(schema: Mapping[str, Any]) -> bool:
    return any(option.get("type") == "null" for option in _alternatives(schema))


def _kind(schema: Any, root: Mapping[str, Any]) -> Kind:
    if not isinstance(schema, Mapping):
        return "json"
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/$defs/"):
        target = root.get("$defs", {}).get(reference.removeprefix("#/$defs/"), {})
        return "json" if not isinstance(target, Mapping) or "$ref" in target else _kind(target, root)
    options = [option for option in _alternatives(schema) if option.get("type") != "null"]
    if len(options) != 1:
        return "json"
    (option,) = options
    if option is not schema and "$ref" in option:
        return _kind(option, root)
    if option.get("type") == "string" and option.get("format") == "date-time":
        return "moment"
    return _BY_TYPE.get(str(option.get("type")), "json")
