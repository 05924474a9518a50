"""OAuth as a plugin declares it: where a person is sent, and what the answer that comes back with them is worth.

    class SlackOAuth(OAuth[SlackSettings]):
        types = frozenset({"app", "user"})

        @classmethod
        def missing(cls, settings): return [] if settings.client_id else ["client_id"]
        def authorize_url(self, request): return "https://slack.com/oauth/v2/authorize?" + urlencode({…})
        async def exchange(self, returned): … return Installed(community_platform_id=team, credentials={"bot": token})

    manifest = Manifest(Slack, oauth=SlackOAuth)

The gateway does the rest: the state and its signature, PKCE, the pages, the one-time code for the driver, keeping the
tokens, refreshing and revoking them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Generic, Literal, TypeAlias

import httpx
from pydantic import JsonValue
from typing_extensions import TypeVar

from metagov_sdk.credentials import Token
from metagov_sdk.errors import Rejected, Unauthorized
from metagov_sdk.models import NoSettings, Settings
from metagov_sdk.plugin import Log

__all__ = ["Authorize", "Installed", "OAuth", "OAuthDenied", "OAuthType", "OAuthUser", "Returned", "SignedIn", "Token"]

SettingsT = TypeVar("SettingsT", bound=Settings, default=NoSettings)

OAuthType: TypeAlias = Literal["app", "user"]
"""`app`: the app is installed for a community. `user`: one person signs in, so that it is known who they are."""


class OAuthDenied(Rejected):
    """The person said no at the platform."""


@dataclass(frozen=True, slots=True)
class Authorize:
    """A person about to be sent to the platform.

    redirect_uri           where the platform is to send them back to: the gateway's own `/auth/<plugin>/callback`.
    state                  to be passed through as it is.
    code_challenge         PKCE's, method S256 (None: the plugin does not use PKCE).
    community_platform_id  the workspace the community is installed in now: a hint to preselect it (None: none yet).
    """

    type: OAuthType
    redirect_uri: str
    state: str
    code_challenge: str | None = None
    community_platform_id: str | None = None


@dataclass(frozen=True, slots=True)
class Returned:
    """A person back from the platform. `query` is from outside: only what it is exchanged for can be believed."""

    type: OAuthType
    query: Mapping[str, str] = field(repr=False)
    redirect_uri: str
    code_verifier: str | None = field(default=None, repr=False)
    community_platform_id: str | None = None


@dataclass(frozen=True, slots=True)
class OAuthUser:
    """Who signed in, in the platform's words. `community_platform_id` is the workspace they signed in to."""

    user_id: str
    name: str | None = None
    community_platform_id: str | None = None
    data: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Installed:
    """An app install, by the platform's own answer.

    community_platform_id  the workspace (team, guild, installation) that the token answer names.
    config                 plain fields merged into the instance's config, such as {"team_id": "T1"}.
    credentials            what `Plugin.credential` finds from now on, by name, such as {"bot": Token(…)}.
    user                   who installed it, where the platform says.
    """

    community_platform_id: str
    config: Mapping[str, JsonValue] = field(default_factory=dict)
    credentials: Mapping[str, Token] = field(default_factory=dict)
    scopes: tuple[str, ...] = ()
    user: OAuthUser | None = None


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A user login. Its tokens are not kept: revoke them in `exchange` where the platform lets one."""

    user: OAuthUser
    scopes: tuple[str, ...] = ()


class OAuth(Generic[SettingsT]):
    """Subclass it and name the class in the manifest. A fresh object serves each call.

    `self.http` goes through the gateway's guard and time-outs; use whole URLs made from the settings.
    The methods that do I/O raise Rejected, OAuthDenied, Retry or Unauthorized; what httpx raises may be left alone.
    """

    types: ClassVar[frozenset[OAuthType]]
    pkce: ClassVar[bool] = False

    def __init__(self, settings: SettingsT, http: httpx.AsyncClient, log: Log) -> None:
        self.settings = settings
        self.http = http
        self.log = log

    @classmethod
    def missing(cls, settings: SettingsT) -> list[str]:
        """The names of the settings that an install needs and that are not set. Pure."""
        return []

    @abstractmethod
    def authorize_url(self, request: Authorize) -> str:
        """Where to send the person. Pure."""
        raise NotImplementedError

    @abstractmethod
    async def exchange(self, returned: Returned) -> Installed | SignedIn:
        """What the platform says the person did: Installed for an app install, SignedIn for a user login.

        Called once for each return. A refusal in the query (`error=access_denied`) does not get here.
        """
        raise NotImplementedError

    async def refresh(self, token: Token) -> Token:
        """The token that follows `token`, its refresh token with it: a new one where the platform rotates them.

        Raise Unauthorized when the platform refuses the refresh token, Retry when it is away.
        """
        raise Unauthorized("the token cannot be refreshed; install the app again")

    async def revoke(self, token: Token) -> None:
        """Make the token void at the platform: the instance is gone, or nobody came for it. Default: it is left."""
