"""Discord's graph, as SourceCred's own plugin makes it, of an archive."""

from metagov_sdk import Manifest
from plugins.discord_graph.plugin import DiscordGraphPlugin
from plugins.discord_graph.rules import DiscordGraph

manifest = Manifest(DiscordGraphPlugin, graph=DiscordGraph)
