"""The fake Discord: as hard on its clients as Discord itself, and quick enough for a large server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.fakes.discord import FakeDiscord
from tests.fakes.discord_limits import Limits, read_route
from tests.fakes.discord_world import Channel, Guild


@pytest.fixture
async def fake() -> AsyncIterator[FakeDiscord]:
    async with FakeDiscord() as server:
        yield server


@pytest.fixture
async def bot(fake: FakeDiscord) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bot {fake.bot_token}"}
    async with httpx.AsyncClient(base_url=fake.api_url, headers=headers) as client:
        yield client


@pytest.fixture
def town(fake: FakeDiscord) -> Guild:
    return fake.add_guild("Town")


@pytest.fixture
def square(town: Guild) -> Channel:
    return next(iter(town.channels.values()))


async def get(bot: httpx.AsyncClient, path: str, **query: Any) -> Any:
    answer = await bot.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_messages_are_paged_newest_first_next_to_where_was_asked(
    fake: FakeDiscord, bot: httpx.AsyncClient, square: Channel
) -> None:
    fake.limits.enforce = False
    ada = fake.add_user("ada")
    start = datetime(2026, 1, 1, tzinfo=UTC)
    made = [fake.say(square, ada, str(n), start + timedelta(minutes=n)) for n in range(250)]
    path = f"channels/{square.id}/messages"
    assert [message["content"] for message in await get(bot, path, limit=3)] == ["249", "248", "247"]
    assert [message["content"] for message in await get(bot, path, limit=2, after=made[9].id)] == ["11", "10"]
    assert [message["content"] for message in await get(bot, path, limit=2, before=made[9].id)] == ["8", "7"]
    assert len(await get(bot, path)) == 50
    seen: list[str] = []
    after = 0
    while page := await get(bot, path, limit=100, after=after):
        seen += [message["content"] for message in reversed(page)]
        after = page[0]["id"]
    assert seen == [str(n) for n in range(250)]
    assert (await bot.get(path, params={"limit": 101})).json()["code"] == 50035


async def test_a_large_server_is_walked_in_a_moment(fake: FakeDiscord, bot: httpx.AsyncClient, town: Guild) -> None:
    fake.limits.enforce = False
    ada = fake.add_member(town, "ada")
    for number in range(299):
        channel = fake.add_channel(town, f"channel-{number}")
        for _ in range(167):
            fake.say(channel, ada, "x")
    assert len(await get(bot, f"guilds/{town.id}/channels")) == 300
    total = 0
    for channel in list(town.channels.values())[:30]:
        page = await get(bot, f"channels/{channel.id}/messages", limit=100, after=0)
        total += len(page)
    assert total == 29 * 100


async def test_members_threads_and_reactions_are_paged(
    fake: FakeDiscord, bot: httpx.AsyncClient, town: Guild, square: Channel
) -> None:
    members = [fake.add_member(town, f"m{n}") for n in range(7)]
    page = await get(bot, f"guilds/{town.id}/members", limit=4, after=members[2].id)
    assert [member["user"]["username"] for member in page] == ["m3", "m4", "m5", "m6"]
    for number in range(3):
        thread = fake.add_channel(town, f"t{number}", 11, square)
        thread.archived = number < 2
        thread.archived_at = datetime(2026, 6, 1 + number, tzinfo=UTC)
    assert [each["name"] for each in (await get(bot, f"guilds/{town.id}/threads/active"))["threads"]] == ["t2"]
    archived = await get(bot, f"channels/{square.id}/threads/archived/public", limit=2)
    assert ([each["name"] for each in archived["threads"]], archived["has_more"]) == (["t1", "t0"], False)
    message = fake.say(square, members[0], "react")
    for member in members:
        message.react("#️⃣", member.id)
    path = f"channels/{square.id}/messages/{message.id}/reactions/%23%EF%B8%8F%E2%83%A3"
    users = await get(bot, path, limit=5, after=members[3].id)
    assert [user["username"] for user in users] == ["m4", "m5", "m6"]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("guilds/1", 404, 10004),
        ("guilds/{absent}", 404, 10004),
        ("channels/1", 404, 10003),
        ("channels/{hidden}", 403, 50001),
        ("channels/{square}/messages/1", 404, 10008),
        ("guilds/{town}/members/1", 404, 10007),
        ("nonsense", 404, 0),
    ],
)
async def test_errors_have_discords_codes(
    fake: FakeDiscord, bot: httpx.AsyncClient, town: Guild, square: Channel, path: str, status: int, code: int
) -> None:
    hidden = fake.add_channel(town, "hidden")
    fake.hidden.add(hidden.id)
    absent = fake.add_guild("Absent", present=False)
    answer = await bot.get(path.format(absent=absent.id, hidden=hidden.id, square=square.id, town=town.id))
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_buckets_are_by_route_and_channel(
    fake: FakeDiscord, bot: httpx.AsyncClient, town: Guild, square: Channel
) -> None:
    fake.limits.pace = 100
    other = fake.add_channel(town, "other")
    answers = [await bot.post(f"channels/{square.id}/messages", json={"content": "x"}) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["4", "3", "2", "1", "0", "0"]
    refused = answers[-1]
    assert refused.json()["global"] is False
    assert refused.headers["X-RateLimit-Scope"] == "user"
    assert isinstance(refused.json()["retry_after"], float)
    elsewhere = await bot.post(f"channels/{other.id}/messages", json={"content": "x"})
    assert elsewhere.status_code == 200
    assert elsewhere.headers["X-RateLimit-Bucket"] == refused.headers["X-RateLimit-Bucket"]


def test_the_global_limit() -> None:
    limits = Limits()
    refusals = [limits.take(read_route("GET", f"/guilds/{number}"))[1] for number in range(51)]
    assert refusals[:50] == [None] * 50
    assert refusals[50] is not None
    assert refusals[50].scope == "global"
    assert limits.take(read_route("POST", "/webhooks/1/token"))[1] is None, "interactions stand outside it"


async def test_invalid_requests_end_in_a_ban(fake: FakeDiscord, town: Guild) -> None:
    fake.limits.invalid_allowed = 5
    async with httpx.AsyncClient(base_url=fake.api_url, headers={"Authorization": "Bot wrong"}) as stranger:
        answers = [await stranger.get(f"guilds/{town.id}") for _ in range(6)]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429]
    assert "X-RateLimit-Bucket" not in answers[-1].headers
    assert not answers[-1].text.startswith("{")


async def test_faults_are_given_out_in_turn(fake: FakeDiscord, bot: httpx.AsyncClient, town: Guild) -> None:
    fake.faults.add("GET /guilds", 429, scope="shared", retry_after=0.5)
    fake.faults.add("GET /guilds", 503)
    statuses = [(await bot.get(f"guilds/{town.id}")).status_code for _ in range(3)]
    assert statuses == [429, 503, 200]
    fake.faults.add("POST", lose_answer=True)
    channel = next(iter(town.channels))
    with pytest.raises(httpx.TransportError):
        await bot.post(f"channels/{channel}/messages", json={"content": "x"})
    assert len(fake.messages(town)) == 1, "it was carried out all the same"


async def test_a_nonce_makes_one_message(
    fake: FakeDiscord, bot: httpx.AsyncClient, town: Guild, square: Channel
) -> None:
    body = {"content": "x", "nonce": "n1", "enforce_nonce": True}
    first, second = [(await bot.post(f"channels/{square.id}/messages", json=body)).json() for _ in range(2)]
    assert first["id"] == second["id"]
    assert len(fake.messages(town)) == 1


async def test_interactions_are_answered_once_and_for_a_while(
    fake: FakeDiscord, bot: httpx.AsyncClient, town: Guild, square: Channel
) -> None:
    command = fake.interactions.command(town, square, fake.add_member(town, "ada"), "hello")
    original = f"webhooks/{fake.application_id}/{command.token}/messages/@original"
    early = await bot.patch(original, json={"content": "x"})
    assert (early.status_code, early.json()["code"]) == (404, 10015)
    callback = f"interactions/{command.id}/{command.token}/callback"
    assert (await bot.post(callback, json={"type": 5, "data": {"flags": 64}})).status_code == 204
    assert (await bot.post(callback, json={"type": 5})).json()["code"] == 40060
    assert (await bot.patch(original, json={"content": "x"})).status_code == 200
    assert command.whispers == ["x"]
    command.made_at -= 901
    late = await bot.patch(original, json={"content": "y"})
    assert (late.status_code, late.json()["code"]) == (401, 50027)
