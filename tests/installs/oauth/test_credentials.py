"""Tokens are kept sealed, renewed once for all who need them, and go to the platform's own host alone."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.gateway import Gateway
from app.installs.oauth.revocation import drop_credentials
from app.runtime import credentials as stored
from app.runtime.credentials import CredentialStore, InstanceCredentials
from app.runtime.instances import by_id
from app.worker import Drains
from metagov_sdk import Mint, Retry, Token, Unauthorized
from metagov_sdk.credentials import UsedCredential
from tests.conftest import Driver
from tests.fakes.oauth_provider import OAuthProvider
from tests.installs.oauth.conftest import SIGNING_SECRET, Browser, installed
from tests.support.oauth_probe import BEHAVIOUR
from tests.support.problems import problem


@pytest.fixture
async def instance_id(town: Driver, browser: Browser, provider: OAuthProvider) -> str:
    """An instance whose tokens last an hour and can be refreshed."""
    provider.knobs.lasts = 3600
    found: str = (await installed(town, browser))["instance"]
    return found


@pytest.fixture
async def minting(town: Driver, gateway: Gateway, provider: OAuthProvider) -> str:
    """An instance that mints its tokens."""
    put = await town.put("town", plugins=[{"name": "crew", "config": {"minted": True}}])
    assert put.status_code in (200, 201), put.text
    found: str = put.json()["plugins"][0]["id"]
    return found


@pytest.fixture
async def another_process(gateway: Gateway) -> AsyncIterator[CredentialStore]:
    """The credentials as another worker process sees them."""
    store = CredentialStore(gateway.db, gateway.vault)
    yield store
    await store.aclose(5)


async def age(gateway: Gateway, *, void: bool) -> None:
    """Make tokens due for renewal, or void altogether."""
    await gateway.db.pool.execute("UPDATE credentials SET renew_at = now()")
    if void:
        await gateway.db.pool.execute("UPDATE credentials SET expires_at = now()")


async def of(gateway: Gateway, store: CredentialStore, instance_id: str) -> InstanceCredentials:
    """The instance's credentials for a call of its own."""
    found = await by_id(gateway.db.pool, gateway.vault, instance_id)
    assert found is not None
    return store.of(found[0], lambda: gateway.host.oauth("crew"))


async def whoami(town: Driver) -> dict[str, Any]:
    """Ask the platform by way of the plugin."""
    answer = await town.act("crew.whoami")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def tokens_sent(provider: OAuthProvider) -> list[str]:
    """What the requests for /whoami were authenticated with."""
    return [
        seen.headers.get("Authorization", "").removeprefix("Bearer ")
        for seen in provider.requests
        if seen.url.endswith("/whoami")
    ]


async def test_a_good_token_is_used_as_it_is(town: Driver, instance_id: str, provider: OAuthProvider) -> None:
    await whoami(town)
    assert provider.refreshes == 0


@pytest.mark.parametrize("void", [False, True])
async def test_many_callers_one_refresh(
    town: Driver, gateway: Gateway, instance_id: str, provider: OAuthProvider, void: bool
) -> None:
    await age(gateway, void=void)
    provider.knobs.delay = 0.3
    assert await asyncio.gather(*(whoami(town) for _ in range(20))) == [{"team": "T1"}] * 20
    assert (provider.refreshes, provider.reuses) == (1, 0)
    await whoami(town)
    assert provider.refreshes == 1


async def test_many_processes_one_refresh(
    town: Driver, gateway: Gateway, instance_id: str, provider: OAuthProvider
) -> None:
    await age(gateway, void=True)
    provider.knobs.delay = 0.3
    stores = [CredentialStore(gateway.db, gateway.vault) for _ in range(6)]
    calls = [await of(gateway, store, instance_id) for store in stores]
    secrets = await asyncio.gather(*(call.read("bot", None) for call in calls))
    assert (provider.refreshes, provider.reuses) == (1, 0)
    assert len(set(secrets)) == 1
    assert secrets[0] in provider.live


async def test_others_use_the_old_token_while_one_renews_ahead(
    gateway: Gateway, instance_id: str, provider: OAuthProvider, another_process: CredentialStore
) -> None:
    await age(gateway, void=False)
    provider.knobs.delay = 1.0
    old = provider.issued[0]
    renewing = asyncio.create_task(
        (await of(gateway, CredentialStore(gateway.db, gateway.vault), instance_id)).read("bot", None)
    )
    await asyncio.sleep(0.3)
    assert await (await of(gateway, another_process, instance_id)).read("bot", None) == old
    assert not renewing.done()
    assert await renewing != old


async def test_nothing_is_held_while_the_platform_is_asked(
    town: Driver, gateway: Gateway, instance_id: str, provider: OAuthProvider
) -> None:
    await age(gateway, void=True)
    provider.knobs.delay = 0.5
    call = asyncio.create_task(whoami(town))
    await asyncio.sleep(0.25)
    open_ones = await gateway.db.pool.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in trans%'"
    )
    locks = await gateway.db.pool.fetchval(
        "SELECT count(*) FROM pg_locks WHERE relation = 'credentials'::regclass AND pid <> pg_backend_pid()"
    )
    assert (open_ones, locks) == (0, 0)
    await call


async def test_a_call_that_is_cut_off_loses_no_rotated_token(
    town: Driver, gateway: Gateway, instance_id: str, provider: OAuthProvider, another_process: CredentialStore
) -> None:
    await age(gateway, void=True)
    provider.knobs.delay = 0.3
    call = asyncio.create_task((await of(gateway, another_process, instance_id)).read("bot", None))
    await asyncio.sleep(0.1)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await another_process.aclose(5)
    await whoami(town)
    assert (provider.refreshes, provider.reuses) == (1, 0)


async def test_the_database_is_away_when_the_new_token_is_to_be_written(
    town: Driver, gateway: Gateway, instance_id: str, provider: OAuthProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [OSError("away"), OSError("away")]
    fetchval = type(gateway.db.pool).fetchval

    async def flaky(self: Any, query: str, *args: Any, **options: Any) -> Any:
        if query == stored._WRITE and failures:
            raise failures.pop()
        return await fetchval(self, query, *args, **options)

    monkeypatch.setattr(stored, "_LONGEST_WAIT", 0.05)
    monkeypatch.setattr(type(gateway.db.pool), "fetchval", flaky)
    await age(gateway, void=True)
    await whoami(town)
    await whoami(town)
    assert not failures
    assert (provider.refreshes, provider.reuses) == (1, 0)


async def test_a_worker_that_died_with_the_turn_is_followed_by_another(
    town: Driver, gateway: Gateway, instance_id: str, provider: OAuthProvider
) -> None:
    await age(gateway, void=True)
    await gateway.db.pool.execute("UPDATE credentials SET lease_until = clock_timestamp() + interval '0.5 s'")
    await whoami(town)
    assert provider.refreshes == 1


async def test_a_turn_that_is_over_writes_nothing(
    gateway: Gateway, instance_id: str, provider: OAuthProvider, another_process: CredentialStore
) -> None:
    await age(gateway, void=True)
    provider.knobs.delay = 0.3
    call = asyncio.create_task((await of(gateway, another_process, instance_id)).read("bot", None))
    await asyncio.sleep(0.1)
    async with gateway.db.begin() as session:  # as a new install does
        await stored.keep(
            session, gateway.vault, [stored.NewCredential(instance_id, "bot", "oauth", Token("fresh", expires_in=60))]
        )
    assert await call == "fresh"


async def test_a_401_has_the_token_refreshed_once(
    town: Driver, gateway: Gateway, instance_id: str, provider: OAuthProvider
) -> None:
    provider.live.clear()
    assert await asyncio.gather(*(whoami(town) for _ in range(10))) == [{"team": "T1"}] * 10
    assert (provider.refreshes, provider.reuses) == (1, 0)


async def test_a_401_to_an_old_token_leaves_the_new_one_alone(
    gateway: Gateway, instance_id: str, provider: OAuthProvider, another_process: CredentialStore
) -> None:
    slow = await of(gateway, another_process, instance_id)
    old = await slow.read("bot", None)
    await age(gateway, void=True)
    new = await (await of(gateway, CredentialStore(gateway.db, gateway.vault), instance_id)).read("bot", None)
    assert await slow.invalidate(UsedCredential("bot", old, minted=False))
    assert await slow.read("bot", None) == new != old
    assert provider.refreshes == 1


async def test_a_401_that_stays_is_needs_auth_after_one_more_try(
    town: Driver, gateway: Gateway, instance_id: str, provider: OAuthProvider
) -> None:
    provider.knobs.api_status = 401
    before = len(provider.requests)
    assert problem(await town.act("crew.whoami"), 409)["type"] == "urn:metagov:needs_auth"
    assert [seen.url.rpartition("/")[2] for seen in provider.requests[before:]] == ["whoami", "token", "whoami"]


async def test_a_token_without_a_refresh_token_is_not_tried_twice(
    town: Driver, browser: Browser, provider: OAuthProvider
) -> None:
    await installed(town, browser)
    provider.live.clear()
    before = len(provider.requests)
    assert problem(await town.act("crew.whoami"), 409)["type"] == "urn:metagov:needs_auth"
    assert len(provider.requests) == before + 1


async def test_the_platform_is_away_when_a_token_is_due(
    town: Driver, gateway: Gateway, instance_id: str, provider: OAuthProvider
) -> None:
    await age(gateway, void=False)
    provider.knobs.status = 500
    assert await whoami(town) == {"team": "T1"}, "the old one is still good"
    await age(gateway, void=True)
    await gateway.db.pool.execute("UPDATE credentials SET lease_until = NULL")
    assert (await town.act("crew.whoami")).status_code == 503
    provider.knobs.status = 0
    await gateway.db.pool.execute("UPDATE credentials SET lease_until = NULL")
    assert await whoami(town) == {"team": "T1"}


async def test_a_refresh_token_that_is_refused_needs_a_person(
    town: Driver, gateway: Gateway, instance_id: str, provider: OAuthProvider, browser: Browser
) -> None:
    await age(gateway, void=True)
    provider._refresh.clear()
    assert problem(await town.act("crew.whoami"), 409)["type"] == "urn:metagov:needs_auth"
    await installed(town, browser)
    assert await whoami(town) == {"team": "T1"}


async def test_a_platform_that_keeps_the_refresh_token(
    town: Driver, gateway: Gateway, instance_id: str, provider: OAuthProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []

    async def refresh(self: object, token: Token) -> Token:
        seen.append(token.refresh_token)
        access = f"another-{len(seen)}"
        provider.live[access] = "T1"
        return Token(access, expires_in=3600)

    monkeypatch.setattr("tests.support.oauth_probe.CrewOAuth.refresh", refresh)
    for _ in range(2):
        await age(gateway, void=True)
        await whoami(town)
    assert len(seen) == 2
    assert seen[0] == seen[1] is not None


async def test_tokens_that_live_for_moments_are_refreshed_and_no_loop_comes_of_it(
    town: Driver, gateway: Gateway, instance_id: str, provider: OAuthProvider
) -> None:
    provider.knobs.lasts = 0
    await age(gateway, void=True)
    async with asyncio.timeout(5):
        assert await whoami(town) == {"team": "T1"}
    assert provider.refreshes == 1


async def test_minted_tokens_are_shared_and_their_minting_is_not_authenticated(
    town: Driver, gateway: Gateway, minting: str, provider: OAuthProvider
) -> None:
    provider.knobs.delay = 0.2
    assert await asyncio.gather(*(whoami(town) for _ in range(10))) == [{"team": "minted"}] * 10
    assert provider.mints == 1
    (mint,) = [seen for seen in provider.requests if seen.url.endswith("/mint")]
    assert mint.headers["Authorization"] == "App key"
    provider.live.clear()
    assert await asyncio.gather(*(whoami(town) for _ in range(10))) == [{"team": "minted"}] * 10
    assert provider.mints == 2, "a 401 has one more minted"
    await age(gateway, void=True)
    await whoami(town)
    assert provider.mints == 3


async def test_a_mint_that_fails_is_tried_again(
    gateway: Gateway, minting: str, another_process: CredentialStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    async def mint() -> Token:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("a bug, with hidden words")
        return Token("minted")

    monkeypatch.setattr(stored, "_PAUSE", 0.0)
    credentials = await of(gateway, another_process, minting)
    with pytest.raises(Retry):
        await credentials.read("x", mint)
    assert await credentials.read("x", mint) == "minted"


async def test_the_other_processes_wait_for_what_is_void_and_no_longer_than_they_can(
    gateway: Gateway, minting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def mint() -> Token:
        await asyncio.sleep(2)
        return Token("late")

    monkeypatch.setattr(stored, "_PATIENCE", 0.2)
    stores = [CredentialStore(gateway.db, gateway.vault) for _ in range(2)]
    first = asyncio.create_task((await of(gateway, stores[0], minting)).read("x", mint))
    await asyncio.sleep(0.2)
    with pytest.raises(Retry):
        await (await of(gateway, stores[1], minting)).read("x", mint)
    assert await first == "late"


async def test_there_is_no_such_credential(gateway: Gateway, minting: str, another_process: CredentialStore) -> None:
    none: Mint | None = None
    with pytest.raises(Unauthorized, match="nothing"):
        await (await of(gateway, another_process, minting)).read("nothing", none)


async def test_credentials_go_to_the_platforms_own_host_alone(
    town: Driver, gateway: Gateway, minting: str, provider: OAuthProvider
) -> None:
    async with OAuthProvider() as elsewhere:
        elsewhere.live[""] = "stranger"
        direct = await town.act("crew.fetch", {"url": f"{elsewhere.url}/api/whoami"})
        assert direct.json() == {"team": "stranger"}
        for custom_header in (False, True):
            await town.put(
                "town", plugins=[{"name": "crew", "config": {"minted": True, "custom_header": custom_header}}]
            )
            there = await town.act("crew.fetch", {"url": f"away?to={elsewhere.url}/api/whoami"})
            assert there.json() == {"team": "stranger"}
        sent = [dict(seen.headers) for seen in provider.requests if "away" in seen.url]
        assert any(headers.get("Authorization", "").startswith("Bearer hidden") for headers in sent)
        assert any(headers.get("X-Token", "").startswith("Bearer hidden") for headers in sent)
        for seen in elsewhere.requests:
            assert "hidden" not in str(seen.headers)
            assert "hidden" not in seen.url


async def test_kept_credentials_are_committed_with_the_call(town: Driver, minting: str) -> None:
    kept = await town.act("crew.keep", {"name": "interaction:1", "token": "hidden-kept-1"})
    assert kept.json() == {"team": "hidden-kept-1"}, "the call itself has it at once"
    assert (await town.act("crew.kept", {"name": "interaction:1"})).json() == {"team": "hidden-kept-1"}
    BEHAVIOUR["keep"] = True
    assert (await town.act("crew.keep", {"name": "interaction:1", "token": "another"})).status_code == 502
    assert (await town.act("crew.kept", {"name": "interaction:1"})).json() == {"team": "hidden-kept-1"}
    for bad in ("", "x" * 201, "a\nb"):
        assert (await town.act("crew.keep", {"name": bad, "token": "t"})).status_code == 502
    assert (await town.act("crew.keep", {"name": "empty", "token": ""})).status_code == 502


async def test_a_webhook_keeps_one(
    town: Driver, gateway: Gateway, instance_id: str, drains: Drains, anonymous: httpx.AsyncClient
) -> None:
    body = b'{"id": "i1", "token": "hidden-kept-2"}'
    signature = "sha256=" + hmac.digest(SIGNING_SECRET.encode(), body, "sha256").hex()
    headers = {"X-Team": "T1", "X-Signature": signature}
    assert (await anonymous.post("/api/hooks/crew", content=body, headers=headers)).status_code == 202
    await drains.until_idle()
    assert (await town.act("crew.kept", {"name": "interaction:i1"})).json() == {"team": "hidden-kept-2"}


async def test_what_is_void_or_nobodys_is_dropped(
    town: Driver, gateway: Gateway, instance_id: str, provider: OAuthProvider
) -> None:
    for name, lasts in (("old", 900.0), ("fresh", 900.0), ("lasting", None)):
        await town.act("crew.keep", {"name": name, "token": "t", "lasts": lasts})
    pool = gateway.db.pool
    await pool.execute("UPDATE credentials SET expires_at = now() - interval '2 hours' WHERE name IN ('old', 'bot')")
    await pool.execute(
        "INSERT INTO credentials (instance_id, name, source, sealed, refreshable, updated_at) "
        "VALUES ('ins_gone', 'orphan', 'minted', '', false, now() - interval '2 days')"
    )
    await drop_credentials(gateway.db, gateway.host)
    left = {row["name"] for row in await pool.fetch("SELECT name FROM credentials")}
    assert left == {"bot", "fresh", "lasting"}, "one that can be refreshed stays"
    await pool.execute("UPDATE instances SET status = 'disabled'")
    await drop_credentials(gateway.db, gateway.host)
    assert await pool.fetchval("SELECT count(*) FROM credentials") == 0
    assert provider.revoked == provider.issued[:1], "OAuth's token, and none of those that the plugin kept"


@pytest.mark.parametrize("lasts", [float("nan"), float("inf"), 1e300, -5.0])
async def test_lifetimes_that_are_none(gateway: Gateway, minting: str, lasts: float) -> None:
    async with gateway.db.begin() as session:
        new = stored.NewCredential(minting, "odd", "kept", Token("t", expires_in=lasts))
        await stored.keep(session, gateway.vault, [new])
    assert await gateway.db.pool.fetchval("SELECT count(*) FROM credentials WHERE name = 'odd'") == 1
