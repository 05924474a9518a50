"""A plugin's own types as components, each named with the plugin before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaWarningKind

from app.openapi.names import Names, prefixed
from metagov_sdk import Manifest, OpenEvent

REF = "#/components/schemas/{model}"

Schema = dict[str, Any]
Role = Literal["action-params", "action-result", "process-params", "process-outcome", "event"]
Key = tuple[Role, str]


class PlainSchemas(GenerateJsonSchema):
    """JSON schemas without invented titles, from which generators would derive names that clash.

    What JSON schema has no word for is described as "anything": one odd type must not cost the whole document.
    """

    ignored_warning_kinds: set[JsonSchemaWarningKind] = {  # noqa: RUF012 -- pydantic declares it so
        "skipped-choice",
        "non-serializable-default",
    }

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Never: a field's name says enough."""
        return False

    def default_schema(self, schema: Any) -> Schema:
        """Without a default of null: generators take a field that has a default for one that is always there."""
        described = super().default_schema(schema)
        if described.get("default", ...) is None:
            del described["default"]
        return described

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Schema:
        """Anything."""
        return {}


@dataclass(frozen=True, slots=True)
class PluginSchemas:
    """A plugin's components, and for each of its actions, processes and events the schema that points into them.

    Open families of events have none: their data is whatever the platform sends.
    """

    components: Mapping[str, Schema]
    schemas: Mapping[Key, Schema]

    def of(self, role: Role, name: str) -> Schema:
        """The schema as it may stand in an operation: mostly a `$ref`."""
        return self.schemas[role, name]

    def resolved(self, role: Role, name: str) -> Schema:
        """The same with a leading `$ref` followed, to see its properties."""
        schema = self.schemas[role, name]
        while "$ref" in schema:
            schema = self.components[schema["$ref"].removeprefix(REF.format(model=""))]
        return schema


def describe_types(manifest: Manifest, names: Names) -> PluginSchemas:
    """The schemas of all that goes in and out of a plugin. Takes the components' names out of `names`."""
    for number in count(1):
        prefix = manifest.name if number == 1 else f"{manifest.name}-{number}"
        described = _describe(manifest, prefix)
        if names.are_free(described.components):
            break
    for name in described.components:
        names.give(name)
    return described


def _describe(manifest: Manifest, prefix: str) -> PluginSchemas:
    class Prefixed(PlainSchemas):
        def normalize_name(self, name: str) -> str:
            return prefixed(prefix, super().normalize_name(name))

    found, definitions = TypeAdapter.json_schemas(_inputs(manifest), ref_template=REF, schema_generator=Prefixed)
    components = {name: {**schema, "title": name} for name, schema in sorted(definitions.get("$defs", {}).items())}
    return PluginSchemas(components, {key: schema for (key, _), schema in found.items()})


def _inputs(manifest: Manifest) -> Iterator[tuple[Key, JsonSchemaMode, TypeAdapter[Any]]]:
    for action in manifest.actions.values():
        yield ("action-params", action.slug), "validation", action.params
        yield ("action-result", action.slug), "serialization", action.result
    for process in manifest.processes.values():
        yield ("process-params", process.name), "validation", TypeAdapter(process.params)
        yield ("process-outcome", process.name), "serialization", TypeAdapter(process.outcome)
    for event in manifest.events:
        if not issubclass(event, OpenEvent):
            yield ("event", event.event_type), "serialization", TypeAdapter(event)


def core_schema(model: type[Any], mode: JsonSchemaMode = "serialization") -> tuple[Schema, dict[str, Schema]]:
    """One of the gateway's own models: its schema, and the components that it refers to."""
    schema = TypeAdapter(model).json_schema(mode=mode, ref_template=REF, schema_generator=PlainSchemas)
    return schema, schema.pop("$defs", {})
