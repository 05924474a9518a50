"""The wire shapes of graphs."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from app.core.http import Answer, Body, Moment
from app.graphs.service import GraphStatus


class ShareIn(Body):
    """A share that is wanted."""

    expires_at: Moment | None = None
    """When it ends by itself; never, if not given."""


class ShareOut(Answer):
    """A share. Its URLs are not shown again."""

    id: str
    expires_at: datetime | None


class NewShareOut(Answer):
    """A share with its URLs, this once: whoever has one of them can read it."""

    id: str
    graph_url: str
    declaration_url: str
    identity_proposals_url: str


class GraphOut(Answer):
    """A graph, as it was built last."""

    name: str
    """The rule set's plugin."""
    community_platform_id: str | None
    """Which instance, where the community has several of the plugin."""
    state: Literal["waiting", "building", "built", "failed"]
    """`failed` and `building` are about the newest build: what was built before is served all the same."""
    error: str | None
    """Why there is none, or no newer one."""
    snapshot: str | None
    """The archive's snapshot that it was built from; null before the first build."""
    built_at: datetime | None
    nodes: int | None
    edges: int | None
    shares: list[ShareOut]


class GraphsOut(Answer):
    """A community's graphs."""

    graphs: list[GraphOut]


def wire(status: GraphStatus) -> GraphOut:
    """A graph as drivers see it."""
    return GraphOut.model_validate(
        {
            "name": status.name,
            "community_platform_id": status.community_platform_id or None,
            "state": status.state,
            "error": status.error,
            "snapshot": status.snapshot,
            "built_at": status.built_at,
            "nodes": status.nodes,
            "edges": status.edges,
            "shares": [ShareOut(id=each.id, expires_at=each.expires_at) for each in status.shares],
        }
    )
