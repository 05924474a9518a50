"""The paths that need no API key: where platforms post webhooks, where people authorize, and health."""

from __future__ import annotations

from typing import Any

from app.openapi.problems import problem_responses

_HOOK = """A platform's webhook. Its signature stands in for an API key; a plugin without a secret refuses everything.

Answers what the plugin owes the platform at once, else 202 (stored) or 200 (a repeat that was stored before)."""
_PART = {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[A-Za-z0-9_-]+$"}
_BYTES = {
    "required": True,
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}


def hook_paths() -> dict[str, Any]:
    """The three addresses of webhooks."""
    return {
        "/api/hooks/{community}/{plugin}": _hook("post_community_hook", "community", "plugin"),
        "/api/hooks/{community}/{plugin}/{hook}": _hook("post_named_hook", "community", "plugin", "hook"),
        "/api/hooks/{plugin}": _hook("post_shared_hook", "plugin"),
    }


def _hook(operation_id: str, *parts: str) -> dict[str, Any]:
    return {
        "post": {
            "operationId": operation_id,
            "tags": ["hooks"],
            "summary": "Receive a platform's webhook",
            "description": _HOOK,
            "security": [],
            "parameters": [{"name": part, "in": "path", "required": True, "schema": _PART} for part in parts],
            "requestBody": _BYTES,
            "responses": {
                "200": {"description": "The plugin's own reply, or stored before."},
                "202": {"description": "Stored."},
                **problem_responses({400, 401, 404, 409, 413, 429, 503}),
            },
        }
    }


_SHARED = """Part of a shared graph. The token stands in for an API key; one that is expired or revoked is not found.

Compressed where gzip is accepted. `ETag` and `If-None-Match` spare what is known already."""
_SHARED_FILES = {
    "graph.json": ("get_shared_graph", "A graph with its weights (SourceCred's weightedGraph 0.1.0)"),
    "declaration.json": ("get_shared_declaration", "The graph's kinds of nodes and edges"),
    "identityProposals.json": ("get_shared_identity_proposals", "The graph's participants"),
}


def graph_paths() -> dict[str, Any]:
    """The three files that a share opens."""
    token = {"name": "token", "in": "path", "required": True, "schema": {"type": "string", "maxLength": 100}}
    return {
        f"/api/graphs/{{token}}/{name}": {
            "get": {
                "operationId": operation_id,
                "tags": ["graphs"],
                "summary": summary,
                "description": _SHARED,
                "security": [],
                "parameters": [token],
                "responses": {
                    "200": {
                        "description": "The file.",
                        "headers": {"ETag": {"description": "Of these bytes.", "schema": {"type": "string"}}},
                        "content": {"application/json": {"schema": {}}},
                    },
                    "304": {"description": "You have it already: its ETag is in If-None-Match."},
                    **problem_responses({404, 422, 429, 503}),
                },
            }
        }
        for name, (operation_id, summary) in _SHARED_FILES.items()
    }


_AUTHORIZE = """Where to send a person who is to install the plugin's app for a community, or to sign in.

They come back to `redirect_uri?state&community&code`, or with `error` and `error_description` instead of the code:
access_denied, wrong_workspace, plugin_not_enabled, provider_refused, temporarily_unavailable or server_error."""
_CALLBACK = "Where the platform sends the person back to. Its query is the platform's own; register this URL there."
_AUTHORIZE_QUERY: dict[str, tuple[bool, str, dict[str, Any]]] = {
    "redirect_uri": (True, "One that your driver registered, to the letter.", {"type": "string", "maxLength": 2000}),
    "community": (
        False,
        "The slug; left out, an app install creates a community at the exchange.",
        {"type": "string", "maxLength": 64},
    ),
    "type": (False, "Install the app, or sign a person in.", {"enum": ["app", "user"], "default": "app"}),
    "state": (False, "Comes back as it is; check it there.", {"type": "string", "maxLength": 500}),
}


def auth_paths() -> dict[str, Any]:
    """The two visits of OAuth, made by people's browsers."""
    parameters = [
        {"name": name, "in": "query", "required": required, "description": text, "schema": {"type": "string", **schema}}
        for name, (required, text, schema) in _AUTHORIZE_QUERY.items()
    ]
    returned = [{"name": "state", "in": "query", "required": True, "schema": {"type": "string"}}]
    return {
        "/auth/{plugin}/authorize": _auth("oauth_authorize", "Authorize at a platform", _AUTHORIZE, parameters),
        "/auth/{plugin}/callback": _auth("oauth_callback", "Come back from a platform", _CALLBACK, returned),
    }


def _auth(operation_id: str, summary: str, text: str, query: list[dict[str, Any]]) -> dict[str, Any]:
    page = {"text/html": {"schema": {"type": "string"}}}
    pages = {
        "400": "The link or the answer cannot be used; a page for the person says why.",
        "404": "There is no such platform, community or registered redirect URI; a page says which may be.",
        "429": "Too many visits from this address.",
        "502": "The plugin failed; the log names the reason.",
    }
    return {
        "get": {
            "operationId": operation_id,
            "tags": ["oauth"],
            "summary": summary,
            "description": text,
            "security": [],
            "parameters": [{"name": "plugin", "in": "path", "required": True, "schema": _PART}, *query],
            "responses": {
                "303": {
                    "description": "On the way.",
                    "headers": {"Location": {"description": "Where to.", "schema": {"type": "string"}}},
                },
                **{status: {"description": said, "content": page} for status, said in pages.items()},
                **problem_responses({422, 503}),
            },
        }
    }


def health_paths() -> dict[str, Any]:
    """Whether the process lives, and whether it can serve."""
    return {
        "/healthz": {"get": _health("healthz", "The process answers", {"200": "It does."}, "Health")},
        "/readyz": {
            "get": {
                **_health(
                    "readyz",
                    "Whether requests can be served",
                    {"200": "They can.", "503": "The database is away."},
                    "Readiness",
                ),
                "parameters": [
                    {
                        "name": "verbose",
                        "in": "query",
                        "required": False,
                        "description": "Also names plugins that could not be loaded; with an API key, why.",
                        "schema": {"type": "string"},
                    }
                ],
            }
        },
    }


def _health(operation_id: str, summary: str, answers: dict[str, str], schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {
        "operationId": operation_id,
        "tags": ["health"],
        "summary": summary,
        "security": [],
        "responses": {
            **{status: {"description": text, "content": content} for status, text in answers.items()},
            **problem_responses({422}),
        },
    }


_BROKEN = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}, "reason": {"type": "string"}, "package": {"type": "string"}},
}
SCHEMAS: dict[str, Any] = {
    "Health": {
        "title": "Health",
        "type": "object",
        "required": ["status"],
        "properties": {"status": {"const": "ok", "type": "string"}},
    },
    "Readiness": {
        "title": "Readiness",
        "description": "Whether requests can be served, and what was checked.",
        "type": "object",
        "required": ["status", "checks"],
        "properties": {
            "status": {"type": "string", "enum": ["ready", "unavailable"]},
            "checks": {"type": "object", "additionalProperties": {"type": "string"}},
            "plugins": {
                "type": "object",
                "required": ["loaded", "broken"],
                "properties": {
                    "loaded": {"type": "array", "items": {"type": "string"}},
                    "broken": {"type": "array", "items": _BROKEN},
                },
            },
            "workers": {"type": "integer"},
            "drift": {"type": "boolean", "description": "Whether processes have loaded different plugins."},
        },
    },
}
