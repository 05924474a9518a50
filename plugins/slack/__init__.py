"""Slack: messages, votes by buttons and menus, and whatever happens in a workspace, through a Slack app."""

from metagov_sdk import Manifest
from plugins.slack.models import SlackEvent, SlashCommand
from plugins.slack.oauth import SlackOAuth
from plugins.slack.plugin import Slack
from plugins.slack.processes import AdvancedVote, EmojiVote

manifest = Manifest(Slack, processes=[EmojiVote, AdvancedVote], events=[SlackEvent, SlashCommand], oauth=SlackOAuth)
