"""The plugin: what a driver enables."""

from __future__ import annotations

from metagov_sdk import GraphPlugin
from plugins.discord_graph.config import DiscordGraphConfig


class DiscordGraphPlugin(GraphPlugin[DiscordGraphConfig]):
    """A server's messages, reactions, mentions and props as a graph: the one that SourceCred's Discord plugin makes."""

    name = "discord-graph"
