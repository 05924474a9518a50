"""From a community's archive to the scores of a real SourceCred, over a share of a real server."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fastapi import FastAPI

from tests.graphs.service.conftest import place
from tests.graphs.service.towns import DISCORD_CONFIG, PROPS_CONFIG, Place
from tests.graphs.sourcecred.install import tree
from tests.graphs.sourcecred.instance import run_by_urls
from tests.support.servers import listening

__all__ = ["place"]

KEYS = {"graphUrl": "graph_url", "declarationUrl": "declaration_url", "identityProposalsUrl": "identity_proposals_url"}


async def test_an_instance_takes_what_a_share_opens(place: Place, app: FastAPI, tmp_path: Path) -> None:
    await place.enable(props=PROPS_CONFIG, discord_graph=DISCORD_CONFIG)
    await place.work()
    async with listening(app) as base:
        urls = {
            name: {theirs: share[ours].replace("http://127.0.0.1:8000", base) for theirs, ours in KEYS.items()}
            for name, share in [(name, await place.share(name)) for name in ("props", "discord-graph")]
        }
        scored = await asyncio.to_thread(run_by_urls, tmp_path, await asyncio.to_thread(tree), urls)
    names = {each.name: each.total for each in scored}
    assert names.keys() == {"ann", "quiet", "B-a--b--amp---co-"}
    assert all(total is not None and total > 0 for name, total in names.items() if name != "quiet")
