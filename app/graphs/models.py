"""Built graphs, the shares by which they are fetched, and what was fetched of other people's graphs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, LargeBinary, String, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import Base
from app.core.work import WorkRow, due_index


class Graph(Base, WorkRow):
    """The graph of an instance of a rule set's plugin. It is due when it has to be looked at, and built if need be."""

    __tablename__ = "graphs"
    __table_args__ = (due_index("graphs"), Index("ix_graphs_community", "community_id"))

    id: Mapped[str] = mapped_column(String(collation="C"), primary_key=True)
    instance_id: Mapped[str] = mapped_column(ForeignKey("instances.id", ondelete="CASCADE"), unique=True)
    community_id: Mapped[str] = mapped_column(ForeignKey("communities.id", ondelete="CASCADE"))
    forced: Mapped[bool] = mapped_column(server_default=text("false"))
    """Build it although nothing has changed."""
    state: Mapped[str] = mapped_column(server_default="waiting")
    """waiting (never built, or nothing is archived yet), built or failed; what was built before is served all along."""
    error: Mapped[str | None]
    progress: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
    """`{step, done, total}` of the build in hand."""
    generation: Mapped[int | None]
    """Of the instance, when it was looked at last."""
    source: Mapped[str | None]
    """The archive it reads: the plugin's name, or that of one of several instances."""
    head: Mapped[str | None]
    """That archive's newest snapshot, when it was looked at last."""
    reads: Mapped[list[str]] = mapped_column(JSONB, server_default=text("'[]'"))
    """The community's other rule sets whose graphs it takes in."""
    check_at: Mapped[datetime | None]
    """When inputs from elsewhere are asked again whether they have changed."""
    fingerprint: Mapped[str | None]
    """Of all that the files were made from."""
    snapshot: Mapped[str | None]
    built_at: Mapped[datetime | None]
    nodes: Mapped[int | None]
    edges: Mapped[int | None]
    files: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))
    """`{graph | declaration | identities: {sha256, size}, index: {name}}`"""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class GraphShare(Base):
    """A capability: who has the token may read the graph's three files, and nothing else."""

    __tablename__ = "graph_shares"
    __table_args__ = (Index("ix_graph_shares_graph", "graph_id"),)

    id: Mapped[str] = mapped_column(String(collation="C"), primary_key=True)
    graph_id: Mapped[str] = mapped_column(ForeignKey("graphs.id", ondelete="CASCADE"))
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class GraphFetch(Base):
    """What an input's URL answered last, so that it is asked only whether that has changed. URLs can be capabilities:

    of them, the hash is kept alone.
    """

    __tablename__ = "graph_fetches"

    graph_id: Mapped[str] = mapped_column(ForeignKey("graphs.id", ondelete="CASCADE"), primary_key=True)
    url_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    etag: Mapped[str | None]
    modified: Mapped[str | None]
    sha256: Mapped[str]
    """Of the file that is kept."""
    fetched_at: Mapped[datetime] = mapped_column(server_default=func.now())
