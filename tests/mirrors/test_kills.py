"""Cut off at any request, refused, dropped: what the tables hold in the end is what an undisturbed mirror holds."""

from __future__ import annotations

import asyncio
import re
from collections import Counter

import pytest

from tests.fakes.discord import FakeDiscord, Recorded
from tests.fakes.discord_world import PRIVATE_THREAD
from tests.mirrors.conftest import Mirrored, own_app
from tests.mirrors.town import Town, build_town

KINDS = {
    "guild": r"GET /guilds/\d+$",
    "members": r"/members$",
    "channels": r"GET /guilds/\d+/channels$",
    "active threads": r"/threads/active$",
    "archived threads": r"/threads/archived/public$",
    "private threads": r"/threads/archived/private$",
    "messages": r"/messages$",
    "reactions": r"/reactions/",
    "lookup": r"GET /channels/\d+$",
}


def kind_of(request: Recorded) -> str:
    return next(name for name, pattern in KINDS.items() if re.search(pattern, request.line))


PLACES = (1, 2, 3, 5, 8, 13, 21, 34)
"""Requests at which a run is cut off, whichever they are; besides, at the first and the second of every kind."""


async def cut_off(mirror: Mirrored, discord: FakeDiscord, town: Town, at: tuple[str, int]) -> bool:
    """Work until the `at[1]`-th request of the kind `at[0]` is under way, and no further. Whether there was one.

    Meanwhile things happen on the platform.
    """
    there = asyncio.Event()
    heard: Counter[str] = Counter()

    def watch(recorded: Recorded) -> None:
        kind = kind_of(recorded)
        heard.update([kind, "any"])
        if heard["any"] % 7 == 0:
            town.happen(1)
        if at in ((kind, heard[kind]), ("any", heard["any"])):
            there.set()

    discord.watch = watch
    working = asyncio.create_task(mirror.drain())
    reached = asyncio.create_task(there.wait())
    await asyncio.wait({working, reached}, return_when=asyncio.FIRST_COMPLETED)
    cut = there.is_set()
    if not cut:
        working.result()
    for task in (working, reached):
        task.cancel()
    await asyncio.gather(working, reached, return_exceptions=True)
    discord.watch = None
    await mirror.hurry()
    return cut


@pytest.mark.slow
@pytest.mark.parametrize("sweep", [False, True])
async def test_cut_off_at_every_kind_of_request(mirror: Mirrored, discord: FakeDiscord, sweep: bool) -> None:
    town = build_town(discord, channels=4, messages=60, threads=4, reactions=0.2, people=8)
    await mirror.enable(own_app(discord, town.guild))
    await mirror.sync()
    private = next(channel for channel in town.channels if channel.is_thread and not channel.archived)
    private.type = PRIVATE_THREAD
    only = {"private threads"} if not sweep else {"lookup"}
    wanted = [(kind, number) for kind in [*KINDS] if kind not in only for number in (1, 2)]
    wanted += [("any", place) for place in PLACES]
    missed = []
    for kind, number in wanted:
        await mirror.work()
        town.happen(2)
        for channel in (town.channels[0], town.channels[-1]):
            town.react(town.say(channel))
        if private.id in town.guild.channels:
            private.archived = not private.archived
        await mirror.ask(sweep=sweep)
        if not await cut_off(mirror, discord, town, (kind, number)):
            missed.append((kind, number))
    await mirror.work()
    await mirror.sync(sweep=True)
    assert await mirror.holds(town) == []
    # One of a kind there is for the server's own, and a thread is looked up every other time.
    assert {kind for kind, number in missed if number == 1} <= {"lookup"}
