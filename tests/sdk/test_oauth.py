"""OAuth and credentials as plugin authors declare and test them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import httpx
import pytest

from metagov_sdk import (
    Authorize,
    Config,
    Installed,
    Manifest,
    ManifestError,
    Model,
    NoState,
    OAuth,
    OAuthType,
    Plugin,
    Rejected,
    Returned,
    Settings,
    SignedIn,
    Token,
    Unauthorized,
    action,
)
from metagov_sdk.plugin import AuthType
from metagov_sdk.testing import ContractError, bind, bind_oauth, check_manifest, perform


class ClubSettings(Settings):
    """The operator's."""

    client_id: str = ""
    """The app."""


class ClubOAuth(OAuth[ClubSettings]):
    """A club's."""

    types: ClassVar[frozenset[OAuthType]] = frozenset({"app"})

    @classmethod
    def missing(cls, settings: ClubSettings) -> list[str]:
        """The app's id."""
        return [] if settings.client_id else ["client_id"]

    def authorize_url(self, request: Authorize) -> str:
        """There."""
        return f"https://club.example/authorize?client_id={self.settings.client_id}&state={request.state}"

    async def exchange(self, returned: Returned) -> Installed | SignedIn:
        """For a token."""
        answer = await self.http.post("https://club.example/token", data={"code": returned.query["code"]})
        if answer.is_error:
            raise Rejected("no")
        return Installed(answer.json()["club"], credentials={"bot": Token(answer.json()["token"])})


class Nothing(Model):
    """No parameters."""


class Said(Model):
    """What was said."""

    said: str


class Club(Plugin[Config, NoState, ClubSettings]):
    """A club."""

    name = "club"
    auth_type: ClassVar[AuthType] = "oauth"

    @classmethod
    def base_url(cls, config: Config, settings: ClubSettings) -> str:
        """Its API."""
        return "https://club.example/api/"

    async def authenticate(self, request: httpx.Request) -> None:
        """With the bot's token."""
        request.headers["Authorization"] = f"Bearer {await self.credential('bot', self.mint)}"

    async def mint(self) -> Token:
        """A fresh one."""
        return Token((await self.http.post("mint")).json()["token"])

    @action("ask")
    async def ask(self, params: Nothing) -> Said:
        """Ask the club."""
        return Said(said=(await self.http.get("door")).text)

    @action("keep")
    async def keep(self, params: Nothing) -> Said:
        """Keep a token."""
        self.keep_credential("kept", Token("t", expires_in=60))
        return Said(said=await self.credential("kept"))

    @action("none")
    async def none(self, params: Nothing) -> Said:
        """Nothing is stored."""
        return Said(said=await self.credential("nothing"))


MANIFEST = Manifest(Club, oauth=ClubOAuth)


def door(good: str, requests: list[httpx.Request]) -> httpx.MockTransport:
    """A club whose door opens to one token."""

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        if request.url.path == "/api/mint":
            return httpx.Response(200, json={"token": "minted"})
        opened = request.headers.get("Authorization") == f"Bearer {good}"
        return httpx.Response(200, text="come in") if opened else httpx.Response(401, text="no")

    return httpx.MockTransport(answer)


def paths(requests: Sequence[httpx.Request]) -> list[str]:
    return [request.url.path.rpartition("/")[2] for request in requests]


async def test_given_credentials_are_used() -> None:
    requests: list[httpx.Request] = []
    ran = await perform(MANIFEST, "ask", transport=door("t1", requests), credentials={"bot": "t1"})
    assert ran.result == {"said": "come in"}
    assert paths(requests) == ["door"]


@pytest.mark.parametrize("given", ["old", Token("minted", expires_in=0)])
async def test_void_and_refused_ones_are_minted_once(given: str | Token) -> None:
    requests: list[httpx.Request] = []
    ran = await perform(MANIFEST, "ask", transport=door("minted", requests), credentials={"bot": given})
    assert ran.result == {"said": "come in"}
    assert paths(requests).count("mint") == 1
    (mint,) = [request for request in requests if request.url.path == "/api/mint"]
    assert "Authorization" not in mint.headers, "what mints a token is not authenticated by it"


async def test_requests_to_other_hosts_are_none_of_its_business() -> None:
    requests: list[httpx.Request] = []
    plugin = bind(MANIFEST, transport=door("minted", requests))
    for url in ("https://elsewhere.example/door", "http://club.example/door", "https://club.example:8443/door"):
        assert (await plugin.http.get(url)).status_code == 401
    assert paths(requests) == ["door"] * 3, "nothing is minted for them, nor sent twice"
    assert not any("Authorization" in request.headers for request in requests)


async def test_a_401_that_stays_is_handed_to_the_plugin() -> None:
    requests: list[httpx.Request] = []
    ran = await perform(MANIFEST, "ask", transport=door("never", requests), credentials={"bot": "old"})
    assert ran.result == {"said": "no"}
    assert paths(requests) == ["door", "mint", "door"]


async def test_a_body_that_was_streamed_is_not_sent_twice() -> None:
    async def body() -> Any:
        yield b"once"

    requests: list[httpx.Request] = []
    plugin = bind(MANIFEST, transport=door("minted", requests), credentials={"bot": "old"})
    answer = await plugin.http.post("door", content=body())
    assert answer.status_code == 401
    assert paths(requests) == ["door"]


async def test_what_is_kept_is_shown_and_what_is_not_there_is_unauthorized() -> None:
    ran = await perform(MANIFEST, "keep")
    assert (ran.result, ran.credentials) == ({"said": "t"}, {"kept": Token("t", expires_in=60)})
    with pytest.raises(Unauthorized, match="nothing"):
        await perform(MANIFEST, "none")


async def test_the_oauth_object_of_a_test() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.content == b"code=c"
        return httpx.Response(200, json={"club": "C1", "token": "t"})

    oauth = bind_oauth(MANIFEST, settings={"client_id": "me"}, transport=httpx.MockTransport(answer))
    assert "client_id=me&state=s" in oauth.authorize_url(Authorize("app", "https://g/auth/club/callback", "s"))
    given = await oauth.exchange(Returned("app", {"code": "c"}, "https://g/auth/club/callback"))
    assert given == Installed("C1", credentials={"bot": Token("t")})
    with pytest.raises(ContractError, match="nothing that answers"):
        await bind_oauth(MANIFEST).exchange(Returned("app", {"code": "c"}, "r"))
    with pytest.raises(LookupError):
        bind_oauth(Manifest(Club))


async def test_what_oauth_need_not_define() -> None:
    oauth = bind_oauth(MANIFEST)
    with pytest.raises(Unauthorized):
        await oauth.refresh(Token("t"))
    await oauth.revoke(Token("t"))


class NoTypes(ClubOAuth):
    """Says nothing."""

    types: ClassVar[frozenset[OAuthType]] = frozenset()


class WrongTypes(ClubOAuth):
    """Says too much."""

    types = frozenset({"admin"})  # type: ignore[arg-type]


class NoExchange(OAuth[ClubSettings]):
    """Ends at the platform."""

    types: ClassVar[frozenset[OAuthType]] = frozenset({"user"})

    def authorize_url(self, request: Authorize) -> str:
        """There."""
        return ""


class OtherSettings(Settings):
    """Another plugin's."""


class OtherOAuth(OAuth[OtherSettings]):
    """Another plugin's."""

    types: ClassVar[frozenset[OAuthType]] = frozenset({"app"})
    authorize_url = ClubOAuth.authorize_url
    exchange = ClubOAuth.exchange


class Plain(Club):
    """Installed without OAuth."""

    name = "plain"
    auth_type: ClassVar[AuthType] = "none"


@pytest.mark.parametrize(
    ("plugin", "oauth", "words"),
    [
        (Club, NoTypes, "types"),
        (Club, WrongTypes, "types"),
        (Club, NoExchange, "define exchange"),
        (Club, OtherOAuth, "OtherSettings"),
        (Plain, ClubOAuth, "auth_type"),
    ],
)
def test_what_is_no_oauth_is_named(plugin: type[Club], oauth: type[OAuth[Any]], words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        Manifest(plugin, oauth=oauth)


class Misnamed(ClubOAuth):
    """Misses what there is not."""

    @classmethod
    def missing(cls, settings: ClubSettings) -> list[str]:
        """No field."""
        return ["client-id"]


def test_missing_settings_are_settings() -> None:
    with pytest.raises(ContractError, match="client-id"):
        check_manifest(Manifest(Club, oauth=Misnamed))
