"""Putting the document together."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, iter_route_contexts

from app.accounts.auth import community_in_header
from app.host.discovery import Plugins
from app.openapi import open_paths, problems
from app.openapi.examples import REQUESTS
from app.openapi.names import Names
from app.openapi.operations import PluginOperations
from app.openapi.parameters import PARAMETERS, SECURITY_SCHEMES, WITH_KEY, shared
from app.openapi.plugin_schemas import describe_types
from app.openapi.webhooks import Webhooks

_DESCRIPTION = """Between governance engines (drivers) and the platforms where communities live.

Put a community with its plugins, perform actions, start governance processes, and hear of what happens through
endpoints or by reading events. What a plugin offers has operations of its own here, under the plugin's name."""
_TAGS = {
    "communities": "Communities and their plugin instances.",
    "plugins": "What plugins there are, and the schemas of what they offer.",
    "processes": "Governance processes of all plugins.",
    "events": "What happened, and where to post it.",
    "identity": "MetagovIDs: which platform accounts are one person's.",
    "receipts": "The webhooks that platforms have posted.",
    "graphs": "Graphs built from archives, in SourceCred's formats, and shares of them.",
    "oauth": "Installing at a platform, and signing in there.",
    "hooks": "Where platforms post webhooks.",
    "health": "For whoever operates the gateway.",
}
_METHODS = ("get", "put", "post", "patch", "delete")


def build_document(api: FastAPI, plugins: Plugins) -> dict[str, Any]:
    """The OpenAPI 3.1 document: the same for the same routes and plugins, however often it is built."""
    document = get_openapi(
        title=api.title,
        version=version("metagov-gateway"),
        description=_DESCRIPTION,
        routes=api.routes,
        license_info={"name": "MIT", "identifier": "MIT"},
        servers=[{"url": "/", "description": "This gateway."}],
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for replaced in ("HTTPValidationError", "ValidationError"):
        schemas.pop(replaced, None)
    schemas |= problems.SCHEMAS | open_paths.SCHEMAS
    _complete_own(document["paths"], _community_paths(api))
    document["paths"] |= (
        open_paths.hook_paths() | open_paths.graph_paths() | open_paths.auth_paths() | open_paths.health_paths()
    )
    _add_plugins(document, schemas, plugins)
    document["components"] = {
        "schemas": dict(sorted(schemas.items())),
        "responses": problems.RESPONSES,
        "parameters": PARAMETERS,
        "securitySchemes": SECURITY_SCHEMES,
    }
    document["security"] = WITH_KEY
    document["tags"] = [{"name": name, "description": text} for name, text in _tags(plugins).items()]
    return document


def _add_plugins(document: dict[str, Any], schemas: dict[str, Any], plugins: Plugins) -> None:
    operation_ids = Names(operation["operationId"] for _, _, operation in _operations(document["paths"]))
    names = Names([*schemas, "EventOut", "InitiatorOut", "ProcessOut"])
    webhooks = Webhooks(names, operation_ids)
    webhooks.add_core()
    for _, loaded in sorted(plugins.loaded.items()):
        types = describe_types(loaded.manifest, names)
        operations = PluginOperations(loaded.manifest, types, names, operation_ids)
        document["paths"] |= operations.paths
        schemas |= operations.components
        webhooks.add_plugin(loaded.manifest, types)
    for name, schema in webhooks.components.items():
        schemas.setdefault(name, schema)
    document["webhooks"] = webhooks.entries


def _complete_own(paths: dict[str, Any], with_community: set[tuple[str, str]]) -> None:
    """Add to FastAPI's operations what it cannot know: headers, problems, examples."""
    for path, method, operation in _operations(paths):
        in_header = (path, method) in with_community
        added = shared("Community") if in_header else []
        if method == "post":
            added += shared("IdempotencyKey")
        if added:
            operation["parameters"] = [*operation.get("parameters", ()), *added]
        problems.complete_responses(operation, problems.usual_statuses(method, path, with_community=in_header))
        example = REQUESTS.get(operation["operationId"])
        if example is not None:
            operation["requestBody"]["content"]["application/json"]["example"] = example


def _operations(paths: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in paths.items():
        for method in _METHODS:
            if method in item:
                yield path, method, item[method]


def _community_paths(api: FastAPI) -> set[tuple[str, str]]:
    """The (path, method) of each route that acts for the community in the header."""
    return {
        (route.path_format or "", method.lower())
        for route in iter_route_contexts(api.routes)
        if isinstance(route.original_route, APIRoute) and _asks_for_community(route.dependant)
        for method in route.methods or ()
    }


def _asks_for_community(dependant: Dependant) -> bool:
    return dependant.call is community_in_header or any(map(_asks_for_community, dependant.dependencies))


def _tags(plugins: Plugins) -> dict[str, str]:
    of_plugins = {name: loaded.manifest.description for name, loaded in sorted(plugins.loaded.items())}
    return {**of_plugins, **_TAGS}
