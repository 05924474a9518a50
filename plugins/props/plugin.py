"""The plugin: what a driver enables."""

from __future__ import annotations

from metagov_sdk import Plugin
from metagov_sdk.graph import GraphConfig


class PropsConfig(GraphConfig):
    """Where people give props."""

    source: str = "discord"
    props_channels: tuple[str, ...]
    """The ids of the channels or threads in which a mention is props."""


class PropsPlugin(Plugin[PropsConfig]):
    """Who gave props to whom, as a graph: from the channels of a Discord server that are meant for it."""

    name = "props"
