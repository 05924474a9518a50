"""A plugin whose names read like the town's, once they are joined to component names and operation ids."""

from __future__ import annotations

from metagov_sdk import Manifest, Model, Plugin, action
from tests.openapi.samples import NoConfig


class Params(Model):
    """Not the town's Params."""

    volume: float


class TownRing(Plugin[NoConfig]):
    """A twin."""

    name = "town-ring"

    @action("bell")
    async def bell(self, params: Params) -> Params:
        """Not the town's bell."""
        return params


twin = Manifest(TownRing)
