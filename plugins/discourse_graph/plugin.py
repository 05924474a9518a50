"""The plugin: what a driver enables."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from metagov_sdk import GraphPlugin, Model
from metagov_sdk.graph import GraphConfig

Weight = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


class DiscourseWeights(Model):
    """What a like is multiplied by: its topic's category, and each of its tags. Names and meanings are SourceCred's."""

    defaultTagWeight: Weight = 1
    """Of a tag that is not listed."""
    tagWeights: dict[str, Weight] = Field(default={})
    """By a tag's name."""
    defaultCategoryWeight: Weight = 1
    """Of a category that is not listed."""
    categoryWeights: dict[Annotated[str, Field(pattern="^-?[0-9]+$")], Weight] = Field(default={})
    """By a category's number."""


class DiscourseGraphConfig(GraphConfig):
    """Which forum, and what likes are worth."""

    source: str = "discourse"
    """The plugin whose archive is read."""
    server_url: str | None = Field(default=None, pattern=r"^https?://[^\s\x00/]+(/[^\s\x00]*)?$", max_length=500)
    """The forum's address: for links, and because it is part of the addresses of SourceCred's own plugin."""
    weights: DiscourseWeights = DiscourseWeights()
    """What likes are multiplied by."""


class DiscourseGraphPlugin(GraphPlugin[DiscourseGraphConfig]):
    """A forum's topics, posts, likes and references as a graph, as SourceCred's Discourse plugin makes it."""

    name = "discourse-graph"
