"""Meetings: who was there, from the channels where it is noted."""

from metagov_sdk import Manifest
from plugins.meetings.plugin import MeetingsPlugin
from plugins.meetings.rules import MeetingsGraph

manifest = Manifest(MeetingsPlugin, graph=MeetingsGraph)
