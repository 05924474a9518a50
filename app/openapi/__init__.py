"""The OpenAPI document: the gateway's own routes, and what every plugin's manifest adds to them."""

from app.openapi.document import build_document

__all__ = ["build_document"]
