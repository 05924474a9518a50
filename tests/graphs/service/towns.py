"""A town whose Discord server is archived, and rule sets that read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.archives.snapshot import Written
from app.archives.source import TableInfo
from app.gateway import Gateway
from app.graphs.builds import build_due, notice_moved
from tests.archives.memory import MemorySource
from tests.conftest import Driver
from tests.graphs.archived import GUILD_RECORDS, records_of
from tests.graphs.servers import GUILD, ME, PROPS, QUIET, TALK, YOU, Town

MOMENT = {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}
PROPS_CONFIG = {"source": "discord", "props_channels": [PROPS]}
EMOJI_WEIGHTS = {"defaultWeight": 1, "weights": {}, "applyAveraging": False}
DISCORD_CONFIG = {"source": "discord", "config": {"guildId": GUILD, "reactionWeightConfig": EMOJI_WEIGHTS}}


def small_town(praises: int = 3) -> Town:
    """Ann praises Béa now and then."""
    town = Town()
    town.channel(PROPS, "did-a-thing")
    town.channel(TALK, "talk")
    town.member(ME, "ann")
    town.member(YOU, "bea", nick="Béa <b>&amp; 'co'")
    town.member(QUIET, "quiet")
    for number in range(praises):
        town.say(PROPS, ME, f"<@{YOU}> helped {number}", mentions=[YOU], reactions={"👍": [QUIET]})
    town.say(PROPS, YOU, f"thanks <@{ME}>", mentions=[ME])
    return town


def source_of(town: Town, community: str = "town") -> MemorySource:
    """The town's mirror, as archives are written from."""
    rows: dict[str, list[dict[str, Any]]] = {f"discord.{record.table}": [] for record in GUILD_RECORDS}
    for row in records_of(town.api(), GUILD):
        rows[f"discord.{row.table}"].append(row.model_dump())
    data: dict[str, tuple[TableInfo, list[dict[str, Any]]]] = {}
    for record in GUILD_RECORDS:
        schema: Mapping[str, Any] = record.model_json_schema()
        full = {**schema, "properties": {**schema["properties"], "deleted_at": MOMENT}}
        name = f"discord.{record.table}"
        data[name] = TableInfo(name, full, record.key, record.partition, record.time), rows[name]
    return MemorySource(data, provider="discord", community=community)


@dataclass(frozen=True, slots=True)
class Place:
    """The town, with the gateway and its driver."""

    gateway: Gateway
    driver: Driver
    slug: str = "town"

    async def archive(self, town: Town | None = None) -> Written:
        """Archive the town as it is now."""
        source = source_of(town or small_town(), self.slug)
        return await self.gateway.archives.write(await self.community_id(), source)

    async def community_id(self) -> str:
        found: str = await self.gateway.db.pool.fetchval("SELECT id FROM communities WHERE slug = $1", self.slug)
        return found

    async def work(self) -> int:
        """What the worker does: notice what has moved, and build it, until nothing is due."""
        count = 0
        for _ in range(5):
            await notice_moved(self.gateway.graphs)
            if not (done := await build_due(self.gateway.graphs)):
                break
            count += done
        return count

    async def graphs(self) -> dict[str, dict[str, Any]]:
        """The list that the driver gets, by name."""
        answer = await self.driver.get("graph", slug=self.slug)
        assert answer.status_code == 200, answer.text
        return {each["name"]: each for each in answer.json()["graphs"]}

    async def share(self, plugin: str, **body: Any) -> dict[str, str]:
        """A share's answer."""
        answer = await self.driver.post(f"graph/{plugin}/shares", body or None, slug=self.slug)
        assert answer.status_code == 201, answer.text
        made: dict[str, str] = answer.json()
        return made

    async def enable(self, **plugins: Mapping[str, Any]) -> None:
        """Have these plugins and no others; `_` stands for the hyphen."""
        wanted = [{"name": name.replace("_", "-"), "config": config} for name, config in plugins.items()]
        answer = await self.driver.put(self.slug, plugins=wanted)
        assert answer.status_code in (200, 201), answer.text
