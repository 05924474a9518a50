"""Rate limits: what requests take, what answers teach, and the gateway against Discord's own counting."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from metagov_sdk import Alias, Charge, Limit, Wait
from metagov_sdk.testing import bind
from plugins.discord import manifest
from plugins.discord.buckets import GLOBAL, INVALID, learn_from, limits_of, read_route
from tests.conftest import Driver
from tests.fakes.discord import FakeDiscord
from tests.fakes.discord_world import Channel, Guild
from tests.plugins.discord.conftest import own_app

BUCKET = {"X-RateLimit-Bucket": "abc", "X-RateLimit-Remaining": "3", "X-RateLimit-Reset-After": "1.5"}


def answered(status: int = 200, body: Any = None, **headers: str) -> httpx.Response:
    named = {f"X-RateLimit-{name.replace('_', '-')}": value for name, value in headers.items()}
    return httpx.Response(status, headers={**BUCKET, **named}, json=body)


def learnt(method: str, path: str, response: httpx.Response) -> list[Any]:
    return learn_from(read_route(method, path), response)


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/guilds/1", "GET guilds/1"),
        ("GET", "guilds/1/members/2", "GET guilds/1/members/{}"),
        ("PATCH", "/channels/1/messages/2", "PATCH channels/1/messages/{}"),
        ("PUT", "/channels/1/messages/2/reactions/%F0%9F%91%8D/@me", "PUT channels/1/messages/{}/reactions/{}/@me"),
        ("GET", "/channels/1/polls/2/answers/3", "GET channels/1/polls/{}/answers/{}"),
        ("POST", "/applications/7/guilds/1/commands", "POST applications/7/guilds/{}/commands"),
        ("PATCH", "/webhooks/7/secret-token/messages/@original", "interactions"),
        ("POST", "/interactions/7/secret-token/callback", "interactions"),
    ],
)
def test_a_route_is_known_by_its_method_and_major_id(method: str, path: str, name: str) -> None:
    route = read_route(method, path)
    assert route.name == name
    assert "secret" not in repr(limits_of(route))


def test_what_a_request_takes() -> None:
    own, everywhere, invalid = limits_of(read_route("GET", "/guilds/1"))
    assert (own.cost, everywhere, invalid.bucket, invalid.cost) == (0, GLOBAL, INVALID.bucket, 0)
    assert GLOBAL.rate + GLOBAL.burst <= 50
    buckets = [limit.bucket for limit in limits_of(read_route("POST", "/webhooks/1/token"))]
    assert GLOBAL.bucket not in buckets, "interactions are outside the global limit"
    assert INVALID.bucket in buckets


def test_far_fewer_invalid_requests_than_discord_bans_for() -> None:
    assert INVALID.burst + INVALID.rate <= 1000
    assert INVALID.per == 600


def test_an_answer_names_its_bucket_and_one_that_is_used_up_is_waited_for() -> None:
    alias = Alias("GET channels/1/messages", "bucket:abc:channels/1")
    assert learnt("GET", "/channels/1/messages", answered()) == [alias]
    used_up = answered(Remaining="0")
    assert learnt("GET", "/channels/1/messages", used_up) == [alias, Wait("bucket:abc:channels/1", 1.5)]
    assert learnt("GET", "/channels/2/messages", used_up)[1] == Wait("bucket:abc:channels/2", 1.5)


def test_scopes_of_a_429() -> None:
    body = {"message": "…", "retry_after": 0.25, "global": False}
    path = "/channels/1/messages"
    assert learnt("GET", path, answered(429, body, Scope="user"))[1:] == [
        Wait("bucket:abc:channels/1", 0.25),
        Charge(INVALID),
    ]
    assert learnt("GET", path, answered(429, body, Scope="shared"))[1:] == [Wait("bucket:abc:channels/1", 0.25)]
    everywhere = [Wait("global", 0.25), Charge(INVALID)]
    assert learnt("GET", path, answered(429, {**body, "global": True}))[1:] == everywhere
    assert learnt("GET", path, answered(429, body, Scope="global"))[1:] == everywhere


def test_a_ban_stops_everything() -> None:
    banned = httpx.Response(429, text="<html>error code: 1015</html>", headers={"Retry-After": "3600"})
    assert learnt("GET", "/guilds/1", banned) == [Wait("global", 3600), Charge(INVALID)]


@pytest.mark.parametrize("status", [401, 403])
def test_invalid_requests_are_charged(status: int) -> None:
    assert learnt("GET", "/guilds/1", answered(status, {}))[-1] == Charge(INVALID)
    assert Charge(INVALID) not in learnt("GET", "/guilds/1", answered(404, {}))


@pytest.mark.parametrize("value", ["", "nan", "inf", "-1", "x" * 500, "1e999"])
def test_headers_that_make_no_sense_make_nobody_wait(value: str) -> None:
    facts = learnt("GET", "/guilds/1", answered(Remaining="0", Reset_After=value, Bucket="x" * 300))
    assert all(fact.seconds <= 86_400 for fact in facts if isinstance(fact, Wait))
    assert not [fact for fact in facts if isinstance(fact, Alias)]


def test_limits_belong_to_the_bot(binding: Any) -> None:
    shared = bind(manifest, **binding)
    assert shared.limit_owner == "bot"
    config = {**binding["config"], "bot_token": "own.secret.token"}
    own = bind(manifest, **{**binding, "config": config})
    assert own.limit_owner.startswith("bot:")
    assert "secret" not in own.limit_owner
    request = httpx.Request("GET", f"{binding['settings']['api_url']}/guilds/1?with_counts=true")
    assert isinstance(own.limits(request)[0], Limit)
    assert own.limits(request)[0].bucket == "GET guilds/1"


@pytest.fixture
async def square(driver: Driver, discord: FakeDiscord, town: Guild) -> Channel:
    put = await driver.put(plugins=[{"name": "discord", "config": own_app(discord, town)}])
    assert put.status_code == 201, put.text
    return next(iter(town.channels.values()))


async def test_posts_in_one_channel_wait_for_their_bucket(
    driver: Driver, discord: FakeDiscord, town: Guild, square: Channel
) -> None:
    discord.limits.rules["POST /channels/{}/messages"] = (5, 100.0)  # a second, at the fake's pace
    for number in range(12):
        answer = await driver.act("discord.post-message", {"text": str(number), "channel": str(square.id)})
        assert answer.status_code == 200, answer.text
    assert [message.content for message in discord.messages(town)] == [str(number) for number in range(12)]
    assert discord.limits.refused == [], "one after the other, none is sent too early"


async def test_at_once_some_are_refused_and_all_get_through(
    driver: Driver, discord: FakeDiscord, town: Guild, square: Channel
) -> None:
    discord.limits.rules["POST /channels/{}/messages"] = (5, 100.0)
    asked = [driver.act("discord.post-message", {"text": str(n), "channel": str(square.id)}) for n in range(12)]
    answers = await asyncio.gather(*asked)
    assert {answer.status_code for answer in answers} <= {200, 503}
    posted = sum(answer.status_code == 200 for answer in answers)
    assert len(discord.messages(town)) == posted >= 5


async def test_after_one_401_nothing_more_is_sent(
    driver: Driver, discord: FakeDiscord, town: Guild, square: Channel
) -> None:
    discord.revoke_bot()
    for _ in range(5):
        answer = await driver.act("discord.get-guild")
        assert answer.status_code == 409
        assert answer.json()["type"].endswith("needs_auth")
    assert discord.limits.invalid <= 1


async def test_a_credential_that_is_refused_again_and_again_is_stopped_far_from_a_ban(
    driver: Driver, discord: FakeDiscord, town: Guild, square: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = Limit(INVALID.bucket, rate=1, per=600, burst=5)
    monkeypatch.setattr("plugins.discord.buckets.INVALID", few)
    monkeypatch.setattr(
        "plugins.discord.buckets._INVALID_GUARD", Limit(few.bucket, few.rate, few.per, few.burst, cost=0)
    )
    discord.hidden.add(square.id)
    answers = []
    for _ in range(12):
        answers.append(await driver.act("discord.method", {"route": f"/guilds/{town.id}/members/1"}))
        discord.faults.add(f"GET /guilds/{town.id}/members", 403, code=50013, message="Missing Permissions")
    assert discord.limits.invalid <= 7
    assert answers[-1].status_code == 503
    assert int(answers[-1].headers["retry-after"]) > 60
