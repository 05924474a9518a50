"""One operation per plugin action, and one per governance process."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError

from app.actions.schemas import ActionCall
from app.openapi.examples import derive
from app.openapi.names import Names, prefixed, snake
from app.openapi.parameters import KEY_OPTIONAL, SIGNED, shared
from app.openapi.plugin_schemas import PluginSchemas, Schema, core_schema
from app.openapi.problems import problem_responses, usual_statuses
from app.processes.schemas import ProcessOut, StartOptions
from metagov_sdk import ActionSpec, Manifest, ProcessSpec

_OPTIONS_EXAMPLE = {"callback_url": "https://driver.example.org/callback", "correlation_id": "motion-7"}
_ACTS = {404, 409, 502}
"""The plugin is not enabled; which instance is not clear, or it needs auth; the platform refused."""


class PluginOperations:
    """The paths and the further components of one plugin."""

    def __init__(self, manifest: Manifest, types: PluginSchemas, names: Names, operation_ids: Names) -> None:
        self._plugin = manifest.name
        self._types = types
        self._names = names
        self._ids = operation_ids
        self.components: dict[str, Schema] = dict(types.components)
        self.paths: dict[str, Any] = {}
        for action in manifest.actions.values():
            path = f"/api/action/{manifest.name}.{action.slug}"
            self.paths[path] = {"post": self._action(action, path)}
        for process in manifest.processes.values():
            path = f"/api/internal/process/{manifest.name}.{process.name}"
            self.paths[path] = {"post": self._start(process, path)}

    def _add(self, name: str, schema: Schema) -> Schema:
        """Make a component; returns the reference to it."""
        name = self._names.give(prefixed(self._plugin, name))
        self.components[name] = {**schema, "title": name}
        return {"$ref": f"#/components/schemas/{name}"}

    def _action(self, spec: ActionSpec, path: str) -> dict[str, Any]:
        call, _ = core_schema(ActionCall, "validation")
        parameters = self._types.of("action-params", spec.slug)
        call["properties"] = {**call["properties"], "parameters": parameters}
        if not _accepts_nothing(spec.params):
            call["required"] = ["parameters"]
        call["description"] = f"A call to {self._plugin}.{spec.slug}."
        content: dict[str, Any] = {"schema": self._add(f"{spec.slug}-call", call)}
        example = derive(parameters, self.components, spec.params)
        if example is not None:
            content["example"] = {"parameters": example}
        result = {"description": "The result.", "content": _json(self._types.of("action-result", spec.slug))}
        statuses = usual_statuses("post", path, with_community=True) | _ACTS | ({429} if spec.public else set())
        return {
            "operationId": self._ids.give(snake(self._plugin, spec.slug), "_"),
            "tags": [self._plugin],
            "summary": _first_line(spec.description),
            "description": spec.description,
            "parameters": shared("Community", "IdempotencyKey"),
            "requestBody": {"required": True, "content": {"application/json": content}},
            "responses": {"200": result, **problem_responses(statuses)},
            **({"security": KEY_OPTIONAL} if spec.public else {}),
        }

    def _start(self, spec: ProcessSpec, path: str) -> dict[str, Any]:
        name = f"{self._plugin}.{spec.name}"
        body = self._start_body(spec)
        content: dict[str, Any] = {"schema": self._add(f"{spec.name}-start", body)}
        example = derive(self._types.of("process-params", spec.name), self.components, TypeAdapter(spec.params))
        if example is not None:
            content["example"] = {**_without_options(example), **_OPTIONS_EXAMPLE}
        process = self._add(f"{spec.name}-process", self._process(spec))
        accepted = {
            "description": "The process. It goes on after this answer unless its status is `completed`.",
            "headers": {"Location": {"description": "Where to read it.", "schema": {"type": "string"}}},
            "content": _json(process),
        }
        return {
            "operationId": self._ids.give(snake("start", self._plugin, spec.name), "_"),
            "tags": [self._plugin],
            "summary": f"Start {name}",
            "description": spec.description,
            "parameters": shared("Community", "IdempotencyKey", "Prefer"),
            "requestBody": {"required": bool(body.get("required")), "content": {"application/json": content}},
            "responses": {
                "202": accepted,
                **problem_responses(usual_statuses("post", path, with_community=True) | _ACTS),
            },
            "callbacks": {"processUpdated": {"{$request.body#/callback_url}": {"post": _callback(name, process)}}},
        }

    def _start_body(self, spec: ProcessSpec) -> Schema:
        """The gateway's options and the process's own parameters, side by side; the gateway's names win."""
        options, _ = core_schema(StartOptions, "validation")
        params = self._types.resolved("process-params", spec.name)
        body = {**params, "properties": {**params.get("properties", {}), **options["properties"]}}
        required = [name for name in body.pop("required", ()) if name not in options["properties"]]
        return {**body, "required": required} if required else body

    def _process(self, spec: ProcessSpec) -> Schema:
        process, _ = core_schema(ProcessOut)
        properties = {
            **process["properties"],
            "name": {"const": f"{self._plugin}.{spec.name}", "type": "string"},
            "outcome": {"anyOf": [self._types.of("process-outcome", spec.name), {"type": "null"}]},
        }
        return {**process, "description": spec.description, "properties": properties}


def _callback(name: str, process: Schema) -> dict[str, Any]:
    return {
        "summary": f"A {name} has a new status or outcome",
        "description": "Signed with your driver's own secret.",
        "security": [],
        "parameters": SIGNED,
        "requestBody": {"required": True, "content": _json(process)},
        "responses": {"2XX": {"description": "Received. Anything else is tried again."}},
    }


def _without_options(example: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in example.items() if name not in StartOptions.model_fields}


def _json(schema: Schema) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _accepts_nothing(params: TypeAdapter[Any]) -> bool:
    """Whether `{}`, which absent parameters count as, will do."""
    try:
        params.validate_python({})
    except ValidationError:
        return False
    return True


def _first_line(description: str) -> str:
    return description.partition("\n")[0].rstrip(".")
