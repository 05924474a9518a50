"""The plugin: what a driver enables, and what it can ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from metagov_sdk import GraphPlugin, Model, action
from metagov_sdk.graph import Address, Direction, GraphConfig, GraphNeighbour
from metagov_sdk.graph.discord import MEMBER
from plugins.props.addresses import GIVES, RECEIVES

_MOST = 1000


class PropsConfig(GraphConfig):
    """Where people give props."""

    source: str = "discord"
    """The plugin whose archive is read."""
    props_channels: tuple[str, ...]
    """The ids of the channels or threads in which a mention is props."""


class PropsOf(Model):
    """Whose props."""

    account: str = Field(min_length=1, max_length=64)
    """The account's id on the platform."""
    limit: Annotated[int, Field(ge=1, le=100)] = 50
    """How many messages."""


class PropsGiven(Model):
    """A message in which props were given."""

    address: Address
    """The message's node."""
    text: str
    """How its node is described."""
    timestamp_ms: float | None
    """Milliseconds since 1970."""
    weight: float
    """By how many people's reactions it counts."""
    accounts: list[str]
    """Those it was given to; or, of what was received, those who gave it."""


class PropsList(Model):
    """Props, the newest first."""

    account: str
    count: int
    """How many messages there are in all, up to a thousand."""
    props: list[PropsGiven]


class PropsPlugin(GraphPlugin[PropsConfig]):
    """Who gave props to whom, as a graph: from the channels of a Discord server that are meant for it."""

    name = "props"

    @action("given")
    async def given(self, params: PropsOf) -> PropsList:
        """The props that an account gave, each with those it was given to."""
        return await self._props(params, mine=(GIVES, "out"), others=(RECEIVES, "out"))

    @action("received")
    async def received(self, params: PropsOf) -> PropsList:
        """The props that an account received, each with who gave it."""
        return await self._props(params, mine=(RECEIVES, "in"), others=(GIVES, "in"))

    async def _props(
        self, params: PropsOf, *, mine: tuple[Address, Direction], others: tuple[Address, Direction]
    ) -> PropsList:
        found: list[GraphNeighbour] = []
        for kind in ("user", "bot"):
            found += await self._at((*MEMBER, kind, params.account), mine)
        props = []
        for message in (each.node for each in found[: params.limit]):
            accounts = [each.node.address[-1] for each in await self._at(message.address, others)]
            props.append(
                PropsGiven(
                    address=message.address,
                    text=message.label,
                    timestamp_ms=message.timestamp_ms,
                    weight=message.weight,
                    accounts=sorted(accounts),
                )
            )
        return PropsList(account=params.account, count=len(found), props=props)

    async def _at(self, address: Address, edges: tuple[Address, Literal["out", "in"]]) -> Sequence[GraphNeighbour]:
        return await self.graph.neighbours(address, edges=edges[0], direction=edges[1], limit=_MOST)
