"""Row 4: the webhook is committed and the answer lost. The platform repeats, and there is one receipt."""

from __future__ import annotations

import asyncio
import random

from tests.faults.lossy import lossy_path
from tests.faults.rig import HOOK, Platform, Rig, compare, signed, until
from tests.support.servers import wait_ready
from tests.support.sink import Sink

ROUNDS = 4


async def send_without_listening(rig: Rig, delivery: str) -> asyncio.StreamWriter:
    """The request, byte by byte as HTTP has it; nobody reads what comes back."""
    body, headers = signed(delivery)
    _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    lines = [f"POST {HOOK} HTTP/1.1", "Host: gateway", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    await writer.drain()
    return writer


async def test_a_repeat_after_a_lost_answer_is_known(rig: Rig, sink: Sink, chance: random.Random) -> None:
    for number in range(ROUNDS):
        delivery = f"lost-{number}"
        writer = await send_without_listening(rig, delivery)

        async def committed(wanted: int = number + 1) -> bool:
            return await rig.count("SELECT count(*) FROM receipts") == wanted

        await until(committed, 5, "the receipt committed")
        rig.kill("api")
        writer.close()
        rig.start("api")
        await wait_ready(rig.url)
        async with rig.client() as http:
            body, headers = signed(delivery)
            again = await http.post(HOOK, content=body, headers=headers)
            assert (again.status_code, again.json()["status"]) == (200, "duplicate")
    # The same, with the kill at any moment between the request and its answer.
    async with rig.client(timeout=5) as http:
        platform = Platform(http, [f"lost-{number}" for number in range(ROUNDS)])
        for number in range(ROUNDS):
            sending = [asyncio.create_task(platform.send(f"cut-{number}-{each}")) for each in range(8)]
            await asyncio.sleep(chance.uniform(0, 0.04))
            rig.kill("api")
            rig.start("api")
            await asyncio.gather(*sending)

        async def delivered() -> bool:
            return len({post.headers["webhook-id"] for post in sink.posts}) >= len(platform.sent)

        await until(delivered, 30, "every event delivered")
        histories = await compare(rig, platform, sink)
        print(f"{histories}; answers {platform.answers}")
        histories.check()


async def test_postgres_commits_and_the_api_never_hears_of_it(rig: Rig, sink: Sink) -> None:
    rig.kill("api")
    async with lossy_path(rig.database_url) as (path, url), rig.client() as http:
        rig.environment["METAGOV_DATABASE_URL"] = url
        rig.start("api")
        await wait_ready(rig.url)
        platform = Platform(http)
        for number in range(ROUNDS):
            delivery = f"unheard-{number}"
            platform.sent.append(delivery)
            body, headers = signed(delivery)
            path.watch = delivery.encode()
            first = await platform.attempt(body, headers)
            assert (first, path.lost) == (503, number + 1), "not acknowledged: nobody knows whether it is stored"
            assert await rig.count("SELECT count(*) FROM receipts") == number + 1, "yet it is"
            assert await platform.attempt(body, headers) == 200
        await sink.wait_for(ROUNDS, 20)
        histories = await compare(rig, platform, sink)
        print(f"{histories}; answers {platform.answers}")
        histories.check()
        rig.kill("api")
