"""The webhooks of a fake Slack: events, interactions and slash commands, signed as Slack signs them.

They are posted by `client` (an httpx client whose base URL is the gateway) to `path`; what fails is sent again, with
Slack's retry headers. Source: https://docs.slack.dev/authentication/verifying-requests-from-slack,
https://docs.slack.dev/apis/events-api, https://docs.slack.dev/reference/interaction-payloads/block_actions-payload
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import httpx

from tests.fakes.slack_state import Team

if TYPE_CHECKING:
    from tests.fakes.slack import FakeSlack

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A webhook before it is signed: signing is part of each sending, for it covers the time."""

    body: bytes
    content_type: str


class Hooks:
    """Makes webhooks and sends them."""

    def __init__(self, slack: FakeSlack) -> None:
        self._slack = slack
        self.client: httpx.AsyncClient | None = None
        self.path = "/api/hooks/slack"
        self.retry_seconds: Sequence[float] = (0, 0.2, 0.5)
        """How long after a failure it is sent again; Slack waits a moment, a minute and five."""

    # What Slack sends.

    def event(self, team: Team, event: dict[str, Any], *, event_id: str | None = None, **envelope: Any) -> Outgoing:
        """An event of the Events API in its envelope."""
        app = self._slack.world.app
        grant = self._slack.world.bot(team)
        body = {
            "token": app.verification_token,
            "team_id": team.id,
            "context_team_id": team.id,
            "api_app_id": app.id,
            "event": event,
            "type": "event_callback",
            "event_id": event_id or f"Ev0{self._slack.world.number():08d}",
            "event_time": int(time.time()),
            "authorizations": [
                {
                    "enterprise_id": team.enterprise_id,
                    "team_id": team.id,
                    "user_id": grant.user_id,
                    "is_bot": True,
                    "is_enterprise_install": grant.enterprise,
                }
            ],
            "is_ext_shared_channel": False,
            **envelope,
        }
        return Outgoing(json.dumps(body).encode(), JSON)

    def verification(self, challenge: str = "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P") -> Outgoing:
        """What a URL that is being set up is asked."""
        body = {
            "token": self._slack.world.app.verification_token,
            "challenge": challenge,
            "type": "url_verification",
        }
        return Outgoing(json.dumps(body).encode(), JSON)

    def command(self, team: Team, user: str, command: str, text: str = "", channel: str = "C0SQUARE") -> Outgoing:
        """A slash command."""
        number = self._slack.world.number()
        fields = {
            "token": self._slack.world.app.verification_token,
            "team_id": team.id,
            "team_domain": team.domain,
            "channel_id": channel,
            "channel_name": "square",
            "user_id": user,
            "user_name": team.members.get(user, ""),
            "command": command,
            "text": text,
            "api_app_id": self._slack.world.app.id,
            "is_enterprise_install": "false",
            "response_url": f"{self._slack.elsewhere}/actions/{team.id}/{number}/command",
            "trigger_id": f"{number}.2141029472.command",
        }
        return Outgoing(urlencode(fields).encode(), FORM)

    def interaction(self, payload: dict[str, Any]) -> Outgoing:
        """Any interaction's payload in its form."""
        return Outgoing(urlencode({"payload": json.dumps(payload)}).encode(), FORM)

    def clicked(self, team: Team, channel: str, ts: str, user: str, label: str, **payload: Any) -> Outgoing:
        """A click on the element of a message with this action id or text; of a select: on its option.

        `label` for a select is "<the select's action id>=<the option's text>". Raises LookupError where the message
        has no such thing to click.
        """
        message = team.channels[channel].find(ts)
        number = self._slack.world.number()
        body = {
            "type": "block_actions",
            "user": {"id": user, "username": team.members.get(user, ""), "team_id": team.id},
            "api_app_id": self._slack.world.app.id,
            "token": self._slack.world.app.verification_token,
            "container": {"type": "message", "message_ts": ts, "channel_id": channel, "is_ephemeral": False},
            "trigger_id": f"{number}.2141029472.click",
            "team": {"id": team.id, "domain": team.domain},
            "enterprise": None,
            "is_enterprise_install": False,
            "channel": {"id": channel, "name": team.channels[channel].name},
            "message": message,
            "state": {"values": {}},
            "response_url": f"{self._slack.elsewhere}/actions/{team.id}/{number}/click",
            "actions": [{**_clicked(message, label), "action_ts": f"{time.time():.6f}"}],
            **payload,
        }
        return self.interaction(body)

    # Sending.

    async def send(
        self,
        hook: Outgoing,
        *,
        path: str | None = None,
        at: float | None = None,
        secret: str | None = None,
        **more: str,
    ) -> httpx.Response:
        """Post it once. `more` are headers, underscores for hyphens."""
        headers = {
            "Content-Type": hook.content_type,
            "User-Agent": "Slackbot 1.0 (+https://api.slack.com/robots)",
            **self.sign(hook.body, at=at, secret=secret),
            **{name.replace("_", "-"): value for name, value in more.items()},
        }
        return await self._client().post(path or self.path, content=hook.body, headers=headers)

    async def deliver(self, hook: Outgoing, **how: Any) -> list[int | str]:
        """Post it as Slack does: again, up to three times, after what is no 2xx. Returns each try's outcome."""
        tried: list[int | str] = []
        for number, wait in enumerate((0, *self.retry_seconds)):
            await asyncio.sleep(wait)
            retry: dict[str, Any] = (
                {"x_slack_retry_num": str(number), "x_slack_retry_reason": str(tried[-1])} if number else {}
            )
            try:
                async with asyncio.timeout(3):
                    answer = await self.send(hook, **how, **retry)
            except (TimeoutError, httpx.TransportError):
                tried.append("http_timeout")
                continue
            tried.append(answer.status_code)
            if answer.is_success:
                break
        return tried

    async def deliver_all(
        self, hooks: Sequence[Outgoing], *, twice: float = 0, shuffled: bool = False, seed: int = 1, at_once: int = 20
    ) -> list[list[int | str]]:
        """Deliver many, side by side; a share of them twice, and out of their order if asked."""
        chance = random.Random(seed)
        wanted = [hook for hook in hooks for _ in range(1 + (chance.random() < twice))]
        if shuffled:
            chance.shuffle(wanted)
        slots = asyncio.Semaphore(at_once)

        async def one(hook: Outgoing) -> list[int | str]:
            async with slots:
                return await self.deliver(hook)

        return list(await asyncio.gather(*(one(hook) for hook in wanted)))

    async def click(self, team: Team, channel: str, ts: str, user: str, label: str) -> list[int | str]:
        """Click, and deliver it."""
        return await self.deliver(self.clicked(team, channel, ts, user, label))

    async def uninstall(self, team: Team) -> None:
        """Somebody removes the app: its tokens are void, and it is told so twice, in any order."""
        grant = self._slack.world.bot(team)
        revoked = self.event(team, {"type": "tokens_revoked", "tokens": {"oauth": [], "bot": [grant.user_id]}})
        removed = self.event(team, {"type": "app_uninstalled"})
        self._slack.world.void(team, "account_inactive")
        await self.deliver_all([revoked, removed], shuffled=True)

    def sign(self, body: bytes, *, at: float | None = None, secret: str | None = None) -> dict[str, str]:
        """The headers of Slack's signature."""
        sent_at = str(int(time.time() if at is None else at))
        key = self._slack.world.app.signing_secret if secret is None else secret
        digest = hmac.new(key.encode(), b"v0:" + sent_at.encode() + b":" + body, hashlib.sha256).hexdigest()
        return {"X-Slack-Request-Timestamp": sent_at, "X-Slack-Signature": "v0=" + digest}

    def _client(self) -> httpx.AsyncClient:
        if self.client is not None:
            return self.client
        raise RuntimeError("set slack.hooks.client to a client of the gateway")


def _clicked(message: dict[str, Any], label: str) -> dict[str, Any]:
    """The action of a click, as Slack makes it from the message's own blocks. Raises LookupError."""
    wanted, _, option = label.partition("=")
    for block in message.get("blocks", ()):
        for element in [*block.get("elements", ()), *([block["accessory"]] if "accessory" in block else ())]:
            if "action_id" not in element:
                continue
            action = {"type": element["type"], "action_id": element["action_id"], "block_id": block.get("block_id", "")}
            if element["type"] == "button" and wanted in (
                element["action_id"],
                element["text"]["text"],
                _plain(element),
            ):
                return {**action, "text": element["text"], "value": element.get("value", "")}
            if element["type"] == "static_select" and wanted == element["action_id"]:
                for one in element["options"]:
                    if one["text"]["text"] == option:
                        return {**action, "selected_option": one, "placeholder": element["placeholder"]}
    raise LookupError(f"the message has nothing named {label!r} to click on")


def _plain(element: dict[str, Any]) -> str:
    """A button's text without the emoji before it."""
    text: str = element["text"]["text"]
    return text.split(": ", 1)[1] if text.startswith(":") and ": " in text else text
