"""What the fake Discord posts to an app: signed interactions, as Discord shapes them, and what becomes of the answers.

Source: docs.discord.com/developers/interactions/receiving-and-responding. A token is good for 15 minutes, and only
once the first answer is in; the callback types are those of Discord's OpenAPI document.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.fakes.discord_world import SEEN_BY_ONE, Channel, Guild, Message, User

PING, COMMAND, COMPONENT = 1, 2, 3
PONG, MESSAGE, DEFERRED_MESSAGE, DEFERRED_UPDATE, UPDATE = 1, 4, 5, 6, 7
TOKEN_SECONDS = 900.0

OPTION_TYPES = {
    "subcommand": 1,
    "subcommand-group": 2,
    "string": 3,
    "integer": 4,
    "boolean": 5,
    "user": 6,
    "channel": 7,
    "role": 8,
    "mentionable": 9,
    "number": 10,
    "attachment": 11,
}

Spoilt = Literal["signature", "timestamp", "body", "missing", "other-key"]


@dataclass(slots=True)
class Interaction:
    """Something a person did, and what the app has answered.

    original   the message that `@original` names; for a deferred one it has no text until the app edits it.
    followups  what the app has posted besides.
    """

    id: int
    token: str
    payload: dict[str, Any]
    made_at: float = field(default_factory=time.monotonic)
    answers: list[dict[str, Any]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    original: Message | None = None
    followups: list[Message] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        return json.dumps(self.payload, separators=(",", ":")).encode()

    @property
    def answered(self) -> bool:
        return bool(self.answers)

    @property
    def expired(self) -> bool:
        return time.monotonic() - self.made_at > TOKEN_SECONDS

    @property
    def whispers(self) -> list[str]:
        """What only the person has seen."""
        seen = [message for message in (self.original, *self.followups) if message and message.flags & SEEN_BY_ONE]
        return [message.content for message in seen if message.content]


@dataclass(slots=True)
class Interactions:
    """Makes, signs and sends interactions; keeps them by token."""

    application_id: int
    key: Ed25519PrivateKey
    next_id: Any
    bot: User
    by_token: dict[str, Interaction] = field(default_factory=dict)
    forget_answers: bool = False
    """Answers that arrive in no time are still on their way: follow-ups meet "Unknown Webhook"."""

    @property
    def public_key(self) -> str:
        """As the developer portal shows it."""
        return self.key.public_key().public_bytes_raw().hex()

    def ping(self) -> Interaction:
        """What the portal sends when an endpoint URL is saved."""
        return self._make({"type": PING})

    def click(self, guild: Guild, message: Message, custom_id: str, user: User) -> Interaction:
        """A button pressed by a member."""
        return self._make(
            {
                "type": COMPONENT,
                **self._place(guild, guild.channels[message.channel_id], user),
                "message": message.wire(),
                "data": {"custom_id": custom_id, "component_type": 2, "id": 1},
            }
        )

    def command(
        self, guild: Guild, channel: Channel, user: User, name: str, options: list[dict[str, Any]] | None = None
    ) -> Interaction:
        """A slash command; `options` as on the wire: name, type and value (or options, for a subcommand)."""
        data = {"id": str(self.next_id()), "name": name, "type": 1, "guild_id": str(guild.id)}
        if options:
            data["options"] = options
        return self._make({"type": COMMAND, **self._place(guild, channel, user), "data": data})

    def sign(
        self, body: bytes, spoilt: Spoilt | None = None, *, at: float | None = None
    ) -> tuple[bytes, dict[str, str]]:
        """The body and headers to post; `spoilt` says what is wrong with them on purpose."""
        sent_at = str(int(time.time() if at is None else at))
        key = Ed25519PrivateKey.generate() if spoilt == "other-key" else self.key
        signature = key.sign(sent_at.encode() + body).hex()
        if spoilt == "signature":
            signature = signature[:-1] + ("0" if signature[-1] != "0" else "1")
        if spoilt == "timestamp":
            sent_at = str(int(sent_at) + 1)
        headers = {
            "X-Signature-Ed25519": signature,
            "X-Signature-Timestamp": sent_at,
            "Content-Type": "application/json",
        }
        if spoilt == "missing":
            del headers["X-Signature-Ed25519"]
        return (body + b" " if spoilt == "body" else body), headers

    async def send(
        self, to: httpx.AsyncClient, url: str, interaction: Interaction, spoilt: Spoilt | None = None
    ) -> httpx.Response:
        """Post it to the app and do what the answer says. Called again, it is a duplicate delivery."""
        body, headers = self.sign(interaction.body, spoilt)
        began = time.monotonic()
        answer = await to.post(url, content=body, headers=headers)
        interaction.seconds.append(time.monotonic() - began)
        interaction.statuses.append(answer.status_code)
        if answer.status_code == 200 and answer.content:
            self.apply(interaction, answer.json())
        return answer

    def apply(self, interaction: Interaction, answer: dict[str, Any]) -> None:
        """Carry out an app's first answer; later ones change nothing."""
        if interaction.answered or "type" not in answer:
            return
        interaction.answers.append(answer)
        data = answer.get("data") or {}
        if answer["type"] in (MESSAGE, DEFERRED_MESSAGE):
            interaction.original = Message(
                self.next_id(),
                int(interaction.payload["channel_id"]),
                self.bot,
                data.get("content", ""),
                data.get("embeds", []),
                data.get("components", []),
                data.get("allowed_mentions"),
                data.get("flags", 0),
            )

    def _make(self, payload: dict[str, Any]) -> Interaction:
        token = f"interaction-token-{secrets.token_urlsafe(60)}"
        number = self.next_id()
        whole = {"id": str(number), "application_id": str(self.application_id), "token": token, "version": 1, **payload}
        interaction = self.by_token[token] = Interaction(number, token, whole)
        return interaction

    def _place(self, guild: Guild, channel: Channel, user: User) -> dict[str, Any]:
        member = guild.members.get(user.id)
        return {
            "guild_id": str(guild.id),
            "channel_id": str(channel.id),
            "channel": {"id": str(channel.id), "type": channel.type, "name": channel.name},
            "guild": {"id": str(guild.id), "locale": "en-US", "features": []},
            "member": {**(member.wire() if member else {"roles": []}), "user": user.wire(), "permissions": "0"},
            "locale": "en-US",
            "guild_locale": "en-US",
            "app_permissions": "0",
            "entitlements": [],
            "authorizing_integration_owners": {"0": str(guild.id)},
            "context": 0,
        }
