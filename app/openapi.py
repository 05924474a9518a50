"""The OpenAPI document."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.host.discovery import Plugins


def build_document(api: FastAPI, plugins: Plugins) -> dict[str, Any]:
    """The document: the gateway's own routes, and one operation per plugin action and process."""
    return get_openapi(title=api.title, version=api.version, routes=api.routes)
