"""Communities that every rule set has to cope with: empty ones, lonely ones, and large ones full of mischief."""

from __future__ import annotations

from typing import Any

from metagov_sdk import Record
from metagov_sdk.testing import ArchiveInMemory
from plugins.discourse import records as discourse
from tests.graphs.archived import FORUM_RECORDS, archive_of, server_archive
from tests.graphs.servers import GUILD, THUMB, Town

CHANNEL = "230000000000000000"
RULES = ("discord-graph", "discourse-graph", "meetings", "props")
CONFIGS: dict[str, dict[str, Any]] = {
    "discord-graph": {
        "config": {
            "guildId": GUILD,
            "reactionWeightConfig": {"defaultWeight": 1, "weights": {}, "applyAveraging": False},
            "propsChannels": [CHANNEL],
        }
    },
    "discourse-graph": {"server_url": "https://forum.example.org"},
    "meetings": {"meeting_channels": [CHANNEL]},
    "props": {"props_channels": [CHANNEL]},
}
_NAMES = (
    "nobody\0at all",
    "\"'; DROP TABLE members; --",
    "<script>alert('cred')</script>",
    "🦊" * 100,
    "x" * 200,
    "---",
    "",
    "мир",
    "a\u0301\u202e\u200b\ufeff\u2028\n\t\x7f",
    "__proto__",
    "constructor",
    "same",
    "SAME",
    "same-discord",
    "same-discord-1",
    "\\u0000\\",
    "nineteen characters💙💙",
    "\U0001d56c\U0001d593" * 20,
)


def hostile_name(number: int) -> str:
    """One of 5,000: a quarter are one name, a quarter long and alike, the rest one of everything, numbered or not."""
    match number % 4:
        case 0:
            return "same"
        case 1:
            return "long" * 60
        case 2:
            return _NAMES[number // 4 % len(_NAMES)]
        case _:
            return f"{_NAMES[number // 4 % len(_NAMES)]}{number}"


def server(members: int) -> ArchiveInMemory:
    """A server with so many members; each of them praises two others, and one reacts. The hundredth is a bot."""
    town = Town()
    town.channel(CHANNEL, 'thanks "<\0>')
    people = [str(540_000_000_000_000_000 + number) for number in range(members)]
    for number, id in enumerate(people):
        name = hostile_name(number)
        town.member(id, name, name if number % 3 else None, bot=number % 100 == 99)
    if members > 1:
        for number, id in enumerate(people):
            named = sorted({people[(number * 7 + 1) % members], people[(number * 13 + 5) % members]} - {id})
            text = f"{hostile_name(number)[:20]} " + " ".join(f"<@{each}>" for each in named)
            town.say(CHANNEL, id, text, named, after=120, reactions={THUMB: [people[(number * 3 + 2) % members]]})
    return server_archive(town.api(), GUILD)


def forum(members: int) -> ArchiveInMemory:
    """A forum with so many accounts; each of them writes, answers the one before, and is liked by another."""
    rows: list[Record] = []
    for number in range(members):
        # A forum allows letters and digits of any script, and three marks; no two names are alike.
        name = ("same", "SAME_", "длинное.имя", "x" * 50)[number % 4] + f"-{number}"
        rows.append(discourse.UserRecord.read({"id": number + 1, "username": name, "trust_level": number % 5}))
    if members > 1:
        for number in range(members):
            topic, post = number // 10 + 1, number + 1
            at = f"2024-03-{number % 20 + 1:02}T00:00:00.000Z"
            if number % 10 == 0:
                title = hostile_name(number)
                rows.append(
                    discourse.TopicRecord.read({"id": topic, "title": title, "user_id": post, "created_at": at})
                )
            raw = {
                "id": post,
                "topic_id": topic,
                "post_number": number % 10 + 1,
                "user_id": post,
                "raw": f"{hostile_name(number)} @same-0",
                "created_at": at,
            }
            rows.append(discourse.PostRecord.read(raw))
            liker = number * 3 % members + 1
            rows.append(discourse.LikeRecord.read({"id": liker}, post_id=post, topic_id=topic))
    return archive_of("discourse", FORUM_RECORDS, rows)


def community(rules: str, members: int) -> ArchiveInMemory:
    """What the rule set reads."""
    return forum(members) if rules == "discourse-graph" else server(members)
