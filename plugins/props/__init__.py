"""Props: who thanked whom, from the channels where people do."""

from metagov_sdk import Manifest
from plugins.props.plugin import PropsPlugin
from plugins.props.rules import PropsGraph

manifest = Manifest(PropsPlugin, graph=PropsGraph)
