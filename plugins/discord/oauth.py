"""Installing the app in a server, and signing in.

Sources: docs.discord.com/developers/topics/oauth2; PKCE: discord.com/.well-known/oauth-authorization-server.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, TypeVar
from urllib.parse import urlencode

import httpx
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from metagov_sdk import (
    Authorize,
    Installed,
    OAuth,
    OAuthDenied,
    OAuthType,
    OAuthUser,
    Rejected,
    Retry,
    Returned,
    SignedIn,
    Token,
    Unauthorized,
)
from metagov_sdk.limits import retry_after
from plugins.discord.models import DiscordSettings

PERMISSIONS: Final = {
    "View Channels": 1 << 10,
    "Send Messages": 1 << 11,
    "Embed Links": 1 << 14,
    "Read Message History": 1 << 16,
    "Send Messages in Threads": 1 << 38,
    "Create Polls": 1 << 49,
}
"""What the bot asks for. Source: docs.discord.com/developers/topics/permissions."""
PERMISSIONS_INTEGER: Final = sum(PERMISSIONS.values())

AnswerT = TypeVar("AnswerT", bound=BaseModel)

_SCOPES: Final[dict[OAuthType, str]] = {"app": "bot applications.commands identify", "user": "identify"}


class _Guild(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)
    id: str
    name: str = ""


class _Tokens(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)
    access_token: str
    refresh_token: str | None = None
    expires_in: float | None = None
    scope: str = ""
    guild: _Guild | None = None

    def token(self) -> Token:
        return Token(self.access_token, self.refresh_token, self.expires_in, tuple(self.scope.split()))


class _Person(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)
    id: str
    username: str
    global_name: str | None = None


class DiscordOAuth(OAuth[DiscordSettings]):
    """The deployment's app: `app` adds its bot to a server, `user` tells who somebody is.

    The bot acts with the token of the settings. What a person agrees to gives a token of their own, which tells who
    they are and which server they chose, and is revoked as soon as it has.
    """

    types: ClassVar[frozenset[OAuthType]] = frozenset({"app", "user"})
    pkce: ClassVar[bool] = True

    @classmethod
    def missing(cls, settings: DiscordSettings) -> list[str]:
        """OAuth takes the client's id and secret; an installed bot is of use with its token and key."""
        names = ("client_id", "client_secret", "bot_token", "public_key")
        return [name for name in names if getattr(settings, name) is None]

    def authorize_url(self, request: Authorize) -> str:
        """Discord's page. A server that the community has already is chosen beforehand, and cannot be changed there."""
        query = {
            "client_id": self.settings.client_id or "",
            "response_type": "code",
            "redirect_uri": request.redirect_uri,
            "scope": _SCOPES[request.type],
            "state": request.state,
        }
        if request.code_challenge is not None:
            query |= {"code_challenge": request.code_challenge, "code_challenge_method": "S256"}
        if request.type == "app":
            query["permissions"] = str(PERMISSIONS_INTEGER)
            if request.community_platform_id:
                query |= {"guild_id": request.community_platform_id, "disable_guild_select": "true"}
        else:
            query["prompt"] = "none"
        return f"{self.settings.authorize_url}?{urlencode(query)}"

    async def exchange(self, returned: Returned) -> Installed | SignedIn:
        """The server is the one that the token answer names: the `guild_id` of the query can be anybody's."""
        if error := returned.query.get("error"):
            raise OAuthDenied("Discord was told no") if error == "access_denied" else Rejected("Discord gave an error")
        form = {"grant_type": "authorization_code", "redirect_uri": returned.redirect_uri}
        form["code"] = returned.query.get("code", "")
        if returned.code_verifier is not None:
            form["code_verifier"] = returned.code_verifier
        if not form["code"]:
            raise Rejected("Discord sent no code")
        tokens = await self._tokens(form)
        try:
            person = await self._person(tokens.access_token)
        finally:
            await self._let_go(tokens.token())
        scopes = tuple(tokens.scope.split())
        user = OAuthUser(
            person.id,
            person.global_name or person.username,
            tokens.guild.id if tokens.guild else returned.community_platform_id,
            {"username": person.username},
        )
        if returned.type == "user":
            return SignedIn(user, scopes)
        if tokens.guild is None:
            raise Rejected("Discord names no server: the bot was not added to one")
        return Installed(tokens.guild.id, {"guild_id": tokens.guild.id}, {}, scopes, user)

    async def refresh(self, token: Token) -> Token:
        """A person's next token."""
        if token.refresh_token is None:
            raise Unauthorized("the token cannot be refreshed; sign in again")
        try:
            tokens = await self._tokens({"grant_type": "refresh_token", "refresh_token": token.refresh_token})
        except Rejected as error:
            raise Unauthorized("Discord refuses the refresh token; sign in again") from error
        return tokens.token()

    async def revoke(self, token: Token) -> None:
        """Make a person's token void, and all others of the same consent."""
        await self._post("oauth2/token/revoke", {"token": token.access_token, "token_type_hint": "access_token"})

    async def _let_go(self, token: Token) -> None:
        try:
            await self.revoke(token)
        except (Rejected, Retry, Unauthorized, httpx.HTTPError) as error:
            # It is kept nowhere and ends by itself; the install is good all the same.
            self.log.warning("a person's token could not be revoked", error=type(error).__name__)

    async def _tokens(self, form: dict[str, str]) -> _Tokens:
        return _read(_Tokens, await self._post("oauth2/token", form))

    async def _person(self, access_token: str) -> _Person:
        url, headers = f"{self.settings.api_url}/users/@me", {"Authorization": f"Bearer {access_token}"}
        return _read(_Person, await self._checked(await self.http.get(url, headers=headers)))

    async def _post(self, path: str, form: dict[str, str]) -> httpx.Response:
        """A form, with the client's id and secret as HTTP Basic. Discord takes no JSON here."""
        secret = self.settings.client_secret or SecretStr("")
        auth = httpx.BasicAuth(self.settings.client_id or "", secret.get_secret_value())
        return await self._checked(await self.http.post(f"{self.settings.api_url}/{path}", data=form, auth=auth))

    async def _checked(self, response: httpx.Response) -> httpx.Response:
        status = response.status_code
        if status == 429 or status >= 500:
            raise Retry(f"Discord answers {status}", after=retry_after(response.headers))
        if status == 401:
            raise Rejected("Discord refuses the app's client id and secret; compare the settings with the portal")
        if status != 200:
            raise Rejected(f"Discord refuses what it was sent back with ({_error_of(response)})")
        return response


def _read(kind: type[AnswerT], response: httpx.Response) -> AnswerT:
    try:
        return kind.model_validate_json(response.content)
    except ValidationError:
        raise Rejected("Discord's answer cannot be read") from None


def _error_of(response: httpx.Response) -> str:
    """The short name of an OAuth error; no other part of the answer, which may hold a code."""
    try:
        body: Any = response.json()
    except ValueError:
        return str(response.status_code)
    error = body.get("error") if isinstance(body, dict) else None
    return (
        error if error in ("invalid_grant", "invalid_request", "invalid_client", "invalid_scope") else "no reason given"
    )
