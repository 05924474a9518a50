"""A forum's graph, by the rules of SourceCred's own plugin, of an archive."""

from metagov_sdk import Manifest
from plugins.discourse_graph.plugin import DiscourseGraphPlugin
from plugins.discourse_graph.rules import DiscourseGraph

manifest = Manifest(DiscourseGraphPlugin, graph=DiscourseGraph)
