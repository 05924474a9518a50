"""Who asks the fake Discord, and what they may see: each finding raises Discord's own refusal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.fakes.discord_checks import Refused
from tests.fakes.discord_world import Channel, Guild, Message, Poll, User

if TYPE_CHECKING:
    from tests.fakes.discord import FakeDiscord, Recorded
    from tests.fakes.discord_interactions import Interaction

UNAUTHORIZED = Refused(401, 0, "401: Unauthorized")
NO_ACCESS = Refused(403, 50001, "Missing Access")


def number_of(text: str) -> int:
    """An id in a path. Raises Refused, as Discord does, for anything else."""
    if not re.fullmatch(r"[0-9]{1,20}", text):
        raise Refused(400, 50035, "Invalid Form Body", {"id": {"_errors": [{"code": "NUMBER_TYPE_COERCE"}]}})
    return int(text)


class Access:
    """Finds what a request names."""

    def __init__(self, fake: FakeDiscord) -> None:
        self.fake = fake

    def _bot(self, recorded: Recorded) -> None:
        kind, _, token = recorded.headers.get("authorization", "").partition(" ")
        if kind != "Bot" or token not in self.fake.bot_tokens:
            raise UNAUTHORIZED

    def _guild(self, recorded: Recorded, guild: str) -> Guild:
        self._bot(recorded)
        found = self.fake.guilds.get(number_of(guild))
        if found is None or not found.present:
            raise Refused(404, 10004, "Unknown Guild")
        return found

    def _channel(self, recorded: Recorded, channel: str) -> Channel:
        self._bot(recorded)
        found = self.fake.channels.get(number_of(channel))
        if found is None:
            raise Refused(404, 10003, "Unknown Channel")
        guild = self.fake.guilds.get(found.guild_id) if found.guild_id is not None else None
        if found.id in self.fake.hidden or (guild is not None and not guild.present):
            raise NO_ACCESS
        return found

    def _message(self, recorded: Recorded, channel: str, message: str) -> Message:
        found = self._channel(recorded, channel).messages.get(number_of(message))
        if found is None:
            raise Refused(404, 10008, "Unknown Message")
        return found

    def _application(self, recorded: Recorded, app: str, guild: str) -> Guild:
        self._bot(recorded)
        if number_of(app) != self.fake.application_id:
            raise Refused(403, 20012, "You are not authorized to perform this action on this application")
        found = self.fake.guilds.get(number_of(guild))
        if found is None or not found.present:
            raise NO_ACCESS
        return found

    def _interaction(self, app: str, token: str) -> Interaction:
        interaction = self.fake.interactions.by_token.get(token)
        if interaction is None or number_of(app) != self.fake.application_id:
            raise Refused(404, 10015, "Unknown Webhook")
        if interaction.expired:
            raise Refused(401, 50027, "Invalid Webhook Token")
        if not interaction.answered:
            raise Refused(404, 10015, "Unknown Webhook")
        return interaction

    def _person(self, recorded: Recorded) -> User:
        kind, _, token = recorded.headers.get("authorization", "").partition(" ")
        if kind == "Bearer" and (grant := self.fake.oauth.tokens.get(token)):
            return grant.user
        self._bot(recorded)
        return self.fake.bot

    def _poll(self, recorded: Recorded, channel: str, message: str) -> Poll:
        poll = self._message(recorded, channel, message).poll
        if poll is None:
            raise Refused(400, 520006, "Cannot expire a non-poll message")
        return poll
