"""Discord: slash commands, messages, votes by buttons and Discord's own polls, in one server (a guild)."""

from metagov_sdk import Manifest
from plugins.discord.models import SlashCommand
from plugins.discord.oauth import DiscordOAuth
from plugins.discord.plugin import Discord
from plugins.discord.poll import DiscordPoll
from plugins.discord.provider import DiscordMirror
from plugins.discord.vote import DiscordVote

manifest = Manifest(
    Discord,
    processes=[DiscordVote, DiscordPoll],
    events=[SlashCommand],
    oauth=DiscordOAuth,
    provider=DiscordMirror,
)
