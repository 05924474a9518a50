"""Examples: written ones for the gateway's own requests, derived ones for what plugins declare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

_DEEPEST = 8

_COMMUNITY = {
    "readable_name": "Seed keepers",
    "plugins": [{"name": "randomness", "config": {"default_low": 1, "default_high": 6}}],
}
_ACCOUNT = {
    "external_id": "mid_06cvh0r1w0a1b2c3d4e5f6g7h8",
    "community_slug": "seed-keepers",
    "platform_type": "github",
    "platform_identifier": "583231",
}
REQUESTS: Mapping[str, Any] = {
    "put_community": _COMMUNITY,
    "create_community": {"slug": "seed-keepers", **_COMMUNITY},
    "enable_plugin": {"default_low": 1, "default_high": 20},
    "update_instance": {"config": {"default_high": 20}},
    "create_endpoint": {"url": "https://driver.example.org/events", "events": ["github.issues.*", "*.process.updated"]},
    "update_endpoint": {"status": "enabled"},
    "create_id": {"community_slug": "seed-keepers", "count": 2},
    "merge_ids": {
        "primary_instance_id": "mid_06cvh0r1w0a1b2c3d4e5f6g7h8",
        "secondary_instance_id": "mid_06cvh0r1w0j9k8m7n6p5q4r3s2",
    },
    "link_account": {**_ACCOUNT, "link_type": "oauth", "link_quality": "confirmed (strong)"},
    "unlink_account": _ACCOUNT,
}


def derive(schema: Mapping[str, Any], components: Mapping[str, Any], adapter: TypeAdapter[Any]) -> Any:
    """A value that the adapter accepts, every field filled or only the required ones; None when neither will do."""
    for full in (True, False):
        value = _sample(schema, components, full, 0)
        try:
            adapter.validate_python(value)
        except ValidationError:
            continue
        return value
    return None


def _sample(schema: Mapping[str, Any], components: Mapping[str, Any], full: bool, depth: int) -> Any:
    if depth > _DEEPEST:
        return None
    if "$ref" in schema:
        return _sample(components[schema["$ref"].rpartition("/")[2]], components, full, depth + 1)
    if schema.get("examples"):
        return schema["examples"][0]
    for keyword in ("const", "default"):
        if schema.get(keyword) is not None:
            return schema[keyword]
    if "enum" in schema:
        return schema["enum"][0]
    for keyword in ("anyOf", "oneOf", "allOf"):
        if schema.get(keyword):
            return _sample(schema[keyword][0], components, full, depth + 1)
    if schema.get("type") == "object":
        wanted = schema.get("properties", {}) if full else schema.get("required", ())
        return {name: _sample(schema["properties"][name], components, full, depth + 1) for name in wanted}
    if schema.get("type") == "array":
        item = schema.get("items", {})
        return [_sample(item, components, full, depth + 1) for _ in range(schema.get("minItems", 1))]
    return _scalar(schema)


def _scalar(schema: Mapping[str, Any]) -> Any:
    kind = schema.get("type")
    if kind in ("integer", "number"):
        least = max(1, schema.get("minimum", 1))
        return min(least, schema.get("maximum", least))
    if kind == "string":
        formats = {"date-time": "2030-01-31T12:00:00Z", "date": "2030-01-31", "uri": "https://example.org/"}
        return formats.get(schema.get("format", ""), "example")
    return True if kind == "boolean" else None
