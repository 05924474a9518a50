"""What the gateway posts to a driver's endpoints: one entry per type of event, open families as one."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from app.events.schemas import EventOut
from app.openapi.names import Names, prefixed, snake
from app.openapi.parameters import SIGNED
from app.openapi.plugin_schemas import PluginSchemas, Schema, core_schema
from app.processes.schemas import ProcessOut
from metagov_sdk import Event, Manifest, OpenEvent

_CORE_EVENTS = {
    "endpoint.disabled": "One of your endpoints was disabled.",
    "endpoint.enabled": "One of your endpoints was enabled again.",
    "instance.needs_auth": "A platform refuses an instance's credentials; they have to be renewed.",
    "instance.disabled": "A plugin instance was taken out of use.",
    "graph.built": "A graph was built from an archive.",
    "graph.failed": "A graph cannot be built; what was built before is still served.",
    "mirror.completed": "A mirror was read, and nothing of it is missing.",
    "mirror.failed": "A mirror was read, and not all of it: `data.failures` names what failed or is refused.",
    "test": "Sent because you asked for a test.",
}


class Webhooks:
    """Gathers webhook entries and the components they need."""

    def __init__(self, names: Names, operation_ids: Names) -> None:
        self._names = names
        self._ids = operation_ids
        self.entries: dict[str, Any] = {}
        self._event, self.components = core_schema(EventOut)

    def add_core(self) -> None:
        """The gateway's own events, and the updates of processes of whatever plugin."""
        process, further = core_schema(ProcessOut)
        self.components.update({"ProcessOut": {**process, "title": "ProcessOut"}, **further})
        self._add(
            "process.updated",
            "process-updated",
            "A process has a new status or outcome. `source` is its plugin, `data` the process.",
            "processes",
            {
                "event_type": {"const": "process.updated", "type": "string"},
                "data": {"$ref": "#/components/schemas/ProcessOut"},
            },
        )
        for event_type, description in _CORE_EVENTS.items():
            fixed = {
                "source": {"const": "metagov", "type": "string"},
                "event_type": {"const": event_type, "type": "string"},
            }
            self._add(f"metagov.{event_type}", f"metagov-{event_type}", description, "events", fixed)

    def add_plugin(self, manifest: Manifest, types: PluginSchemas) -> None:
        """A plugin's events."""
        for event in manifest.events:
            fixed: dict[str, Schema] = {"source": {"const": manifest.name, "type": "string"}}
            if not issubclass(event, OpenEvent):
                fixed["event_type"] = {"const": event.event_type, "type": "string"}
                fixed["data"] = types.of("event", event.event_type)
            self._add(
                f"{manifest.name}.{event.event_type}",
                prefixed(manifest.name, event.event_type),
                _description(event),
                manifest.name,
                fixed,
            )

    def _add(self, key: str, name: str, description: str, tag: str, fixed: Mapping[str, Schema]) -> None:
        component = self._names.give(prefixed("", f"{name}-envelope"))
        properties = {**self._event["properties"], **fixed}
        self.components[component] = {
            **self._event,
            "title": component,
            "description": description,
            "properties": properties,
        }
        schema = {"$ref": f"#/components/schemas/{component}"}
        self.entries[key] = {
            "post": {
                "operationId": self._ids.give(snake("on", key), "_"),
                "tags": [tag],
                "summary": key,
                "description": description,
                "security": [],
                "parameters": SIGNED,
                "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
                "responses": {"2XX": {"description": "Received. Anything else is tried again for a day and a half."}},
            }
        }


def _description(event: type[Event]) -> str:
    return inspect.cleandoc(event.__doc__ or event.event_type)
