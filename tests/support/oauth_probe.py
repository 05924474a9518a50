"""A plugin of a platform with OAuth, for tests of the gateway's own part in it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import httpx
from pydantic import SecretStr

from metagov_sdk import (
    Authorize,
    Config,
    HookRequest,
    Installed,
    Manifest,
    Model,
    NoState,
    OAuth,
    OAuthUser,
    Plugin,
    Rejected,
    Retry,
    Returned,
    Settings,
    SignedIn,
    Token,
    Unauthorized,
    action,
    hmac_sha256,
    setting,
    webhook,
)

LOG: list[str] = []
"""What `setup` and `teardown` did; tests clear it."""
BEHAVIOUR: dict[str, Any] = {}
"""What tests tell the plugin to do; cleared after each test."""


class CrewConfig(Config):
    """What a driver sets."""

    team: str | None = None
    greeting: str = "hello"
    minted: bool = False
    custom_header: bool = False


class CrewSettings(Settings):
    """The app's registration at the platform."""

    api_url: str = "http://127.0.0.1:1"
    client_id: str = ""
    client_secret: SecretStr = SecretStr("")
    signing_secret: SecretStr = SecretStr("")


class Name(Model):
    """A credential's name."""

    name: str
    token: str = ""
    lasts: float | None = None


class Where(Model):
    """A URL to ask for."""

    url: str


class Found(Model):
    """What the platform said."""

    team: str


class CrewOAuth(OAuth[CrewSettings]):
    """OAuth with PKCE and refresh tokens."""

    types = frozenset({"app", "user"})
    pkce = True

    @classmethod
    def missing(cls, settings: CrewSettings) -> list[str]:
        """The two that identify the app."""
        return [name for name in ("client_id", "client_secret") if not _plain(getattr(settings, name))]

    def authorize_url(self, request: Authorize) -> str:
        """The consent page."""
        query = {
            "client_id": self.settings.client_id,
            "response_type": "code",
            "redirect_uri": request.redirect_uri,
            "state": request.state,
            "scope": "chat read" if request.type == "app" else "openid",
            "code_challenge": request.code_challenge or "",
            "code_challenge_method": "S256",
            "team": request.community_platform_id or "",
        }
        return f"{self.settings.api_url}/authorize?{urlencode(query)}"

    async def exchange(self, returned: Returned) -> Installed | SignedIn:
        """Believe the token answer alone."""
        answer = await self._token(
            grant_type="authorization_code",
            code=returned.query.get("code", ""),
            redirect_uri=returned.redirect_uri,
            code_verifier=returned.code_verifier or "",
        )
        if "given" in BEHAVIOUR:
            return BEHAVIOUR["given"]  # type: ignore[no-any-return]
        scopes = tuple(answer["scope"].split())
        if returned.type == "user":
            return SignedIn(OAuthUser(answer["user"], "Ada", answer["team"]), scopes)
        return Installed(
            answer["team"],
            {"team": answer["team"]},
            {"bot": _token(answer)},
            scopes,
            OAuthUser(answer["user"]),
        )

    async def refresh(self, token: Token) -> Token:
        """With the refresh token."""
        return _token(await self._token(grant_type="refresh_token", refresh_token=token.refresh_token or ""))

    async def revoke(self, token: Token) -> None:
        """At the platform."""
        answer = await self.http.post(f"{self.settings.api_url}/revoke", data={"token": token.access_token})
        answer.raise_for_status()

    async def _token(self, **form: str) -> dict[str, Any]:
        client = {"client_id": self.settings.client_id, "client_secret": self.settings.client_secret.get_secret_value()}
        answer = await self.http.post(f"{self.settings.api_url}/token", data={**client, **form})
        if answer.status_code >= 500:
            raise Retry(f"the platform answered {answer.status_code}")
        if answer.is_error:
            raise Rejected(f"the platform says {answer.json()['error']}")
        found: dict[str, Any] = answer.json()
        return found


class Crew(Plugin[CrewConfig, NoState, CrewSettings]):
    """A chat of crews."""

    name = "crew"
    auth_type = "oauth"

    @classmethod
    def platform_id(cls, config: CrewConfig) -> str | None:
        """The team."""
        return config.team

    @classmethod
    def needs_binding(cls, config: CrewConfig) -> bool:
        """It has no credentials of its own, ever."""
        return not config.minted

    @classmethod
    def base_url(cls, config: CrewConfig, settings: CrewSettings) -> str:
        """The platform's API."""
        return f"{settings.api_url}/api/"

    async def authenticate(self, request: httpx.Request) -> None:
        """Add the bot's token."""
        mint = self.mint if self.config.minted else None
        token = await self.credential("app" if mint else "bot", mint)
        request.headers["X-Token" if self.config.custom_header else "Authorization"] = f"Bearer {token}"

    async def mint(self) -> Token:
        """A token by the app's own key."""
        answer = (await self.http.post("mint", headers={"Authorization": "App key"})).json()
        return Token(answer["token"], expires_in=answer["expires_in"])

    async def setup(self, old_config: CrewConfig | None = None) -> None:
        """Ask who we are, with the tokens just given."""
        if isinstance(BEHAVIOUR.get("setup"), Exception):
            raise BEHAVIOUR["setup"]
        if self.config.team and not self.config.minted:
            LOG.append(f"setup in {(await self._ask('whoami')).team}")

    async def teardown(self) -> None:
        """Say so."""
        LOG.append(f"teardown of {self.community_platform_id}")

    @action("whoami")
    async def whoami(self, params: CrewConfig) -> Found:
        """Which team the token is for."""
        return await self._ask("whoami")

    @action("keep")
    async def keep(self, params: Name) -> Found:
        """Keep a token, and have it at once."""
        self.keep_credential(params.name, Token(params.token, expires_in=params.lasts))
        if BEHAVIOUR.get("keep"):
            raise Rejected("after keeping")
        return Found(team=await self.credential(params.name))

    @action("kept")
    async def kept(self, params: Name) -> Found:
        """What was kept."""
        return Found(team=await self.credential(params.name))

    @action("fetch")
    async def fetch(self, params: Where) -> Found:
        """Follow redirects, wherever they lead."""
        answer = await self.http.get(params.url, follow_redirects=True)
        return Found(team=answer.json()["team"])

    @webhook(
        verify=hmac_sha256(setting("signing_secret"), header="X-Signature"),
        shared=True,
        locate=lambda request: [team] if (team := request.headers.get("X-Team")) else [],
    )
    async def receive(self, request: HookRequest) -> None:
        """An interaction brings a token that answers it."""
        body = request.json()
        self.keep_credential(f"interaction:{body['id']}", Token(body["token"], expires_in=900))

    async def _ask(self, path: str) -> Found:
        answer = await self.http.get(path)
        if answer.status_code == 401:
            raise Unauthorized("the platform refuses the token")
        if answer.is_error:
            raise Retry(f"the platform answered {answer.status_code}")
        return Found(team=answer.json()["team"])


def _token(answer: dict[str, Any]) -> Token:
    return Token(answer["access_token"], answer.get("refresh_token"), answer.get("expires_in"))


def _plain(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


manifest = Manifest(Crew, oauth=CrewOAuth)
