"""Discord servers, all made up, as its API would show them: what SourceCred's rules and ours are compared by."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

EPOCH = datetime(2015, 1, 1, tzinfo=UTC)
GUILD = "7000000000000000001"
THUMB, HEART, PARTY = "👍", "❤️", "blobparty:600000000000000001"
DANCE = "dance:600000000000000002"
ME, YOU, BOT, ADMIN, LEFT, QUIET = (f"50000000000000000{n}" for n in range(6))
CORE, LEAD = "300000000000000001", "300000000000000002"
TALK, PROPS, ADULT, NEWS, MUTED, CHILD, OTHER = (f"20000000000000000{n}" for n in range(7))
CATEGORY, DARK = "210000000000000000", "210000000000000001"


def moment(snowflake: str) -> str:
    """Discord's ids begin with their time."""
    made = EPOCH + timedelta(milliseconds=int(snowflake) >> 22)
    return (made + timedelta(microseconds=int(snowflake) % 1000)).isoformat(timespec="microseconds")


class Town:
    """A server that is being made up."""

    def __init__(self) -> None:
        self.channels: list[dict[str, Any]] = []
        self.members: list[dict[str, Any]] = []
        self.messages: list[dict[str, Any]] = []
        self.reactions: dict[str, dict[str, list[str]]] = {}
        self._next = 900_000_000_000_000_000

    def channel(self, id: str, name: str, type: int = 0, parent: str | None = None, nsfw: bool = False) -> None:
        """Add a channel."""
        self.channels.append({"id": id, "name": name, "type": type, "parent_id": parent, "nsfw": nsfw})

    def member(
        self,
        id: str,
        username: str,
        nick: str | None = None,
        roles: list[str] | None = None,
        discriminator: str = "0",
        **user: Any,
    ) -> None:
        """Add a member."""
        account = {"id": id, "username": username, "discriminator": discriminator, **user}
        self.members.append({"user": account, "nick": nick, "roles": roles or []})

    def say(
        self,
        channel: str,
        author: str,
        content: str = "hello",
        mentions: list[str] | None = None,
        webhook: str | None = None,
        after: int = 3600,
        reactions: dict[str, list[str]] | None = None,
    ) -> str:
        """Add a message some seconds after the one before it, with who reacted by which emoji; returns its id."""
        self._next += (after * 1000 << 22) + 12_345
        id = str(self._next)
        message: dict[str, Any] = {
            "id": id,
            "channel_id": channel,
            "author": {"id": author, "username": "somebody"},
            "timestamp": moment(id),
            "content": content,
            "mentions": [{"id": user} for user in mentions or []],
        }
        if webhook:
            message["webhook_id"] = webhook
        if reactions:
            message["reactions"] = [{"emoji": _emoji(each), "count": len(who)} for each, who in reactions.items()]
            self.reactions[id] = {each: sorted(who, key=int) for each, who in reactions.items()}
        self.messages.append(message)
        return id

    def api(self) -> dict[str, Any]:
        """What the API would show."""
        return {
            "channels": self.channels,
            "members": self.members,
            "messages": self.messages,
            "reactions": self.reactions,
        }


def cases() -> dict[str, dict[str, Any]]:
    """Each `{"config": SourceCred's config.json, "api": …}`, by name."""
    weighed = {"defaultWeight": 1, "weights": {THUMB: 2, PARTY: 8, HEART: 0.1, "🤖": 0}, "applyAveraging": False}
    averaged = {**weighed, "applyAveraging": True}
    roles = {"defaultWeight": 0.5, "weights": {CORE: 1.5, LEAD: 3}}
    channels = {"defaultWeight": 1, "weights": {TALK: 0.7, DARK: 0, CHILD: 2, CATEGORY: 0.25}}
    town = _town().api()

    def case(api: dict[str, Any] = town, **config: Any) -> dict[str, Any]:
        return {"config": [{"guildId": GUILD, "reactionWeightConfig": weighed, **config}], "api": api}

    every: dict[str, Any] = {
        "roleWeightConfig": roles,
        "channelWeightConfig": channels,
        "propsChannels": [PROPS, CHILD],
    }
    return {
        "plain": case(),
        "empty": case(Town().api()),
        "everything": case(**every, includeNsfwChannels=True),
        "averaging": case(**every, reactionWeightConfig=averaged),
        "dampener": case(**every, reactionWeightConfig={**averaged, "confidenceDampener": 0.3}),
        "roles-of-zero": case(
            reactionWeightConfig=averaged, roleWeightConfig={"defaultWeight": 0, "weights": {LEAD: 3}}
        ),
        "closed-channels": case(channelWeightConfig={"defaultWeight": 0, "weights": {CATEGORY: 3, PROPS: 1}}),
        "simplified": case(**every, simplifyGraph=True, reactionWeightConfig={**averaged, "confidenceDampener": 7}),
        "since": case(**every, beginningDate="2021-11-10"),
        "hostile": case(_hostile().api(), propsChannels=[PROPS]),
        **{f"random-{seed}": _random_case(seed) for seed in range(4)},
    }


def _town() -> Town:
    town = Town()
    town.channel(CATEGORY, "Community", type=4)
    town.channel(DARK, "Dark", type=4)
    town.channel(TALK, "talk", parent=CATEGORY)
    town.channel(PROPS, "did-a-thing")
    town.channel(ADULT, "adults", nsfw=True)
    town.channel(NEWS, "news", type=5)
    town.channel(MUTED, "muted", parent=DARK)
    town.channel(CHILD, "thanks", parent=CATEGORY)
    town.channel(OTHER, "voice", type=2)
    town.member(ME, "ann", roles=[CORE])
    town.member(YOU, "bea.b", nick="Béa 🐝", roles=[CORE, LEAD])
    town.member(BOT, "helper", discriminator="4242", bot=True)
    town.member(ADMIN, "Discord System", discriminator="0000", system=True)
    town.member(QUIET, "quiet")
    for channel in (TALK, PROPS, ADULT, NEWS, MUTED, CHILD, OTHER):
        town.say(channel, ME)
        town.say(channel, ME, "nobody reacts", [YOU])
        town.say(channel, ME, f"all <@{YOU}>", [YOU], reactions={THUMB: [YOU, BOT], PARTY: [YOU], DANCE: [BOT, LEFT]})
        town.say(channel, YOU, "to myself", reactions={HEART: [YOU], "🧵": [YOU]})
        town.say(channel, YOU, "to myself, and others", reactions={HEART: [YOU, ME]})
        town.say(channel, ME, f"twice <@{YOU}> and <@!{YOU}>, <@{BOT}>", [YOU, BOT], reactions={HEART: [ADMIN]})
        town.say(channel, ME, "an answer that pings", [YOU], reactions={THUMB: [QUIET]})
        town.say(channel, ME, f"who left: <@{LEFT}>", [LEFT], reactions={THUMB: [BOT]})
        town.say(channel, LEFT, "has left", [ME], reactions={THUMB: [ME]})
        town.say(channel, LEFT, "only those who left react", reactions={THUMB: [LEFT]})
        town.say(channel, ME, "by a webhook", [ME], webhook="1234", reactions={THUMB: [YOU]})
        town.say(channel, YOU, "worth nothing", [ME], reactions={"🤖": [ME]})
        town.say(channel, BOT, "<&>\"'` \N{EURO SIGN}", [BOT], reactions={THUMB: [BOT, ME], HEART: [ADMIN, YOU, ME]})
        town.say(channel, YOU, f"me <@{YOU}>", [YOU], after=7 * 86_400, reactions={THUMB: [ME]})
    return town


def _hostile() -> Town:
    """Names and texts that hurt: cut surrogates, markup, combining marks, right-to-left, controls, lengths."""
    town = Town()
    town.channel(TALK, 'général "<b>&')
    town.channel(PROPS, "💙" * 100)
    names = [
        "nineteen-characters💙💙",
        "'; DROP TABLE members; --",
        "<script>alert(1)</script>",
        "🦊" * 16,
        "---",
        "мир",
        "a\u0301\u202e\u200b\ufeff",
        "x" * 32,
        "line\nbreak\ttab\x7f\x1b\u2028",
        "same",
        "Same",
        "same",
        "constructor",
        "__proto__",
        "\ud7ff\ue000\uffff\U00010000\U0010ffff",
    ]
    people = [str(510_000_000_000_000_000 + number) for number, _ in enumerate(names)]
    for id, name in zip(people, names, strict=True):
        town.member(id, name, nick=name if int(id) % 2 else None)
    for at, (id, name) in enumerate(zip(people, names, strict=True)):
        others = [other for other in people if other != id][at % 5 : at % 5 + 3]
        reactions = {THUMB: others, "\U0001f3f4\U000e0067\U000e007f": others[:1], f"{name[:3]}_x:6{at}": others[1:]}
        town.say(TALK if at % 2 else PROPS, id, name * 3 + f"<@{others[0]}>", others[:2], reactions=reactions)
    text = "a" * 29 + "🦊" + "b"
    town.say(TALK, people[0], text, reactions={THUMB: people[1:3]})
    town.say(TALK, people[0], "\U0001f98a" * 40, reactions={THUMB: people[1:3]})
    town.say(TALK, people[0], "", reactions={THUMB: people[1:3]})
    return town


def _random_case(seed: int) -> dict[str, Any]:
    chance = random.Random(seed)
    town = Town()
    roles = [f"30000000000000000{n}" for n in range(4)]
    parents = [CATEGORY, DARK, None]
    channels = [str(220_000_000_000_000_000 + n) for n in range(5)]
    people = [str(520_000_000_000_000_000 + n * 10 ** chance.choice([0, 5, 9])) for n in range(9)]
    people = sorted(set(people))
    emojis = [THUMB, HEART, PARTY, DANCE, "🎉", "1️⃣"]
    for n, channel in enumerate(channels):
        town.channel(channel, f"c{n}", chance.choice([0, 0, 0, 5]), chance.choice(parents), chance.random() < 0.2)
    for n, person in enumerate(people[:-2]):
        mine = chance.sample(roles, chance.randrange(4))
        town.member(person, f"p{n}", chance.choice([None, f"Nick {n}"]), mine, bot=chance.random() < 0.2)
    for n in range(30):
        reactions = {
            emoji: chance.sample(people, chance.randint(1, 4)) for emoji in chance.sample(emojis, chance.randrange(4))
        }
        named = chance.sample(people, chance.randrange(3))
        text = " ".join(chance.choice(["<@{}>", "<@!{}>", "{}"]).format(who) for who in named for _ in range(2))
        webhook = "99" if chance.random() < 0.1 else None
        town.say(chance.choice(channels), chance.choice(people), f"{n} {text}", named, webhook, reactions=reactions)

    def weights(keys: list[str]) -> dict[str, Any]:
        picked = chance.sample(keys, 2)
        return {
            "defaultWeight": chance.choice([0, 1, 1, 0.3]),
            "weights": {key: chance.choice([0, 0.1, 2, 1 / 3]) for key in picked},
        }

    config = {
        "guildId": GUILD,
        "reactionWeightConfig": {
            **weights(emojis),
            "applyAveraging": chance.random() < 0.6,
            "confidenceDampener": chance.choice([0, 0.1, 2]),
        },
        "roleWeightConfig": weights(roles),
        "channelWeightConfig": {**weights([*channels, CATEGORY, DARK]), "defaultWeight": 1},
        "propsChannels": chance.sample(channels, 2),
        "includeNsfwChannels": chance.random() < 0.5,
        "simplifyGraph": seed == 3,
    }
    return {"config": [config], "api": town.api()}


def _emoji(reference: str) -> dict[str, Any]:
    name, _, number = reference.partition(":")
    return {"id": number or None, "name": name, **({"animated": True} if reference == DANCE else {})}
