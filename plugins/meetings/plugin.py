"""The plugin: what a driver enables."""

from __future__ import annotations

from metagov_sdk import GraphPlugin
from metagov_sdk.graph import GraphConfig


class MeetingsConfig(GraphConfig):
    """Where meetings are noted."""

    source: str = "discord"
    """The plugin whose archive is read."""
    meeting_channels: tuple[str, ...]
    """The ids of the channels or threads in which a message that names people is a meeting."""


class MeetingsPlugin(GraphPlugin[MeetingsConfig]):
    """Who attended which meeting, as a graph: from the channels of a Discord server where it is noted."""

    name = "meetings"
