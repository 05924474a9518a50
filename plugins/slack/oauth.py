"""Installing the app into a workspace, and signing in with Slack."""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import urlencode

import httpx

from metagov_sdk import (
    Authorize,
    Installed,
    OAuth,
    OAuthType,
    OAuthUser,
    PluginError,
    Rejected,
    Returned,
    SignedIn,
    Token,
    Unauthorized,
)
from plugins.slack.api import SlackRefused, read_answer
from plugins.slack.models import SlackSettings

SCOPES = (
    "channels:history",
    "channels:join",
    "channels:read",
    "chat:write",
    "commands",
    "groups:history",
    "groups:read",
    "im:history",
    "im:write",
    "mpim:history",
    "mpim:write",
    "reactions:read",
    "team:read",
    "users:read",
)
"""What the bot asks for; manifest.yaml asks for the same, and the documentation says what for."""
SIGN_IN_SCOPES = ("openid", "profile")
_TEAM_ID = "https://slack.com/team_id"
_USER_ID = "https://slack.com/user_id"


class SlackOAuth(OAuth[SlackSettings]):
    """`app` installs by OAuth v2; `user` signs in by OpenID Connect.

    Without PKCE: Slack offers it to apps that declare themselves public clients, which cannot be taken back and gives
    refresh tokens an end. This app keeps a client secret.
    Source: https://docs.slack.dev/authentication/using-pkce
    """

    types: ClassVar[frozenset[OAuthType]] = frozenset({"app", "user"})

    @classmethod
    def missing(cls, settings: SlackSettings) -> list[str]:
        """The app's id and secret."""
        return [name for name in ("client_id", "client_secret") if not getattr(settings, name)]

    def authorize_url(self, request: Authorize) -> str:
        """Slack's page; the workspace the community is in is offered first."""
        query = {
            "client_id": self.settings.client_id or "",
            "redirect_uri": request.redirect_uri,
            "state": request.state,
        }
        if request.community_platform_id:
            query["team"] = request.community_platform_id
        base = self.settings.authorize_url.rstrip("/")
        if request.type == "user":
            query |= {"response_type": "code", "scope": " ".join(SIGN_IN_SCOPES)}
            return f"{base}/openid/connect/authorize?{urlencode(query)}"
        return f"{base}/oauth/v2/authorize?{urlencode({**query, 'scope': ','.join(SCOPES)})}"

    async def exchange(self, returned: Returned) -> Installed | SignedIn:
        """Who was installed or signed in, as Slack's own answer says."""
        fields = {"code": returned.query.get("code", ""), "redirect_uri": returned.redirect_uri}
        if returned.type == "user":
            return await self._sign_in(fields)
        return _installed(await self._ask("oauth.v2.access", fields))

    async def refresh(self, token: Token) -> Token:
        """The next pair of tokens. Slack voids a refresh token once it was used."""
        if token.refresh_token is None:
            return await super().refresh(token)
        fields = {"grant_type": "refresh_token", "refresh_token": token.refresh_token}
        try:
            return _token(await self._ask("oauth.v2.access", fields))
        except SlackRefused as refused:
            raise Unauthorized(f"Slack refused to renew the token ({refused.error}): install the app again") from None

    async def revoke(self, token: Token) -> None:
        """Make the token void; one that is void already is left at that."""
        try:
            await self._ask("auth.revoke", {}, token=token.access_token)
        except (SlackRefused, Unauthorized):
            return

    async def _sign_in(self, fields: dict[str, str]) -> SignedIn:
        granted = await self._ask("openid.connect.token", {**fields, "grant_type": "authorization_code"})
        token = str(granted.get("access_token", ""))
        person = await self._ask("openid.connect.userInfo", {}, token=token)
        team, user = person.get(_TEAM_ID), person.get(_USER_ID)
        if not isinstance(team, str) or not isinstance(user, str):
            raise Rejected("Slack did not say who signed in")
        await self._let_go(token)
        name = person.get("name")
        signed_in = OAuthUser(user, name if isinstance(name, str) else None, team)
        return SignedIn(signed_in, SIGN_IN_SCOPES)

    async def _let_go(self, token: str) -> None:
        """Have a token voided that nobody needs any more; it does no harm if that fails."""
        try:
            await self.revoke(Token(token))
        except (PluginError, httpx.TransportError) as error:
            self.log.info("a sign-in's token was not revoked", error=type(error).__name__)

    async def _ask(self, method: str, fields: dict[str, str], token: str | None = None) -> dict[str, Any]:
        """A method by a token, or by the app's own id and secret. Raises as `SlackApi.call`."""
        url = self.settings.api_base + method
        if token is not None:
            headers = {"Authorization": f"Bearer {token}"}
            return read_answer(method, await self.http.post(url, data=fields, headers=headers))
        secret = self.settings.client_secret.get_secret_value() if self.settings.client_secret else ""
        client = (self.settings.client_id or "", secret)
        return read_answer(method, await self.http.post(url, data=fields, auth=client))


def _installed(answer: dict[str, Any]) -> Installed:
    """The install that a token answer tells of. Raises Rejected."""
    whole = answer.get("is_enterprise_install") is True
    place = answer.get("enterprise" if whole else "team")
    place_id = place.get("id") if isinstance(place, dict) else None
    if not isinstance(place_id, str) or answer.get("token_type") != "bot":
        raise Rejected("Slack's answer names no workspace or has no bot token: the app needs bot scopes")
    token = _token(answer)
    person = answer.get("authed_user")
    user_id = person.get("id") if isinstance(person, dict) else None
    return Installed(
        place_id,
        config={"team_id": place_id},
        credentials={"bot": token},
        scopes=token.scopes,
        user=OAuthUser(user_id, community_platform_id=place_id) if isinstance(user_id, str) else None,
    )


def _token(answer: dict[str, Any]) -> Token:
    """The bot token of an answer. Raises Rejected."""
    access, refresh, expires = (answer.get(name) for name in ("access_token", "refresh_token", "expires_in"))
    if not isinstance(access, str) or not access:
        raise Rejected("Slack's answer has no token")
    return Token(
        access,
        refresh_token=refresh if isinstance(refresh, str) else None,
        expires_in=float(expires) if isinstance(expires, int) and not isinstance(expires, bool) else None,
        scopes=tuple(str(answer.get("scope") or "").split(",")) if answer.get("scope") else (),
        data={name: answer[name] for name in ("app_id", "bot_user_id") if isinstance(answer.get(name), str)},
    )
