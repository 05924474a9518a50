"""HTTP for what plugins there are, and the schemas of what they offer."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import TypeAdapter

from app.accounts.auth import DriverId
from app.core.http import Answer
from app.host.binding import Host
from app.host.discovery import Loaded
from app.installs.routes import PluginName

router = APIRouter(prefix="/api/internal", tags=["plugins"])

Schema = dict[str, Any]


class Offer(Answer):
    """An action, event or process: its id, what it is for, and the schemas of what goes in and comes out."""

    id: str
    description: str
    parameters_schema: Schema | None
    response_schema: Schema | None


class Offers(Answer):
    """All that a plugin offers."""

    config: Schema
    actions: list[Offer]
    events: list[Offer]
    processes: list[Offer]


class PluginMetadata(Answer):
    """What a driver needs to know to use a plugin."""

    name: str
    description: str
    version: str
    auth_type: Literal["none", "api_key", "oauth"]
    uses_webhook: bool
    schemas: Offers


@router.get("/plugin-schemas", operation_id="list_plugin_schemas")
async def list_plugin_schemas(request: Request, _: DriverId) -> dict[str, Schema]:
    """The config schema of every plugin, by name."""
    host: Host = request.app.state.host
    return {name: loaded.manifest.config.model_json_schema() for name, loaded in host.plugins.loaded.items()}


@router.get("/plugin/{plugin}/metadata", operation_id="get_plugin_metadata")
async def get_plugin_metadata(request: Request, _: DriverId, plugin: PluginName) -> PluginMetadata:
    """What a plugin offers, with its JSON schemas."""
    host: Host = request.app.state.host
    return _metadata(host.loaded(plugin))


def _metadata(loaded: Loaded) -> PluginMetadata:
    manifest = loaded.manifest
    return PluginMetadata.model_validate(
        {
            "name": manifest.name,
            "description": manifest.description,
            "version": loaded.version,
            "auth_type": manifest.auth_type,
            "uses_webhook": bool(manifest.webhooks),
            "schemas": {
                "config": manifest.config.model_json_schema(),
                "actions": [
                    _offer(spec.slug, spec.description, spec.params, spec.result) for spec in manifest.actions.values()
                ],
                "events": [
                    _offer(event.event_type, (event.__doc__ or "").strip(), None, TypeAdapter(event))
                    for event in manifest.events
                ],
                "processes": [
                    _offer(spec.name, spec.description, TypeAdapter(spec.params), TypeAdapter(spec.outcome))
                    for spec in manifest.processes.values()
                ],
            },
        }
    )


def _offer(
    slug: str, description: str, params: TypeAdapter[Any] | None, result: TypeAdapter[Any] | None
) -> dict[str, Any]:
    return {
        "id": slug,
        "description": description,
        "parameters_schema": params.json_schema() if params else None,
        "response_schema": result.json_schema(mode="serialization") if result else None,
    }
