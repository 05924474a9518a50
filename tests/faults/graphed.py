"""A graph that is built while its worker dies at a kill point, and how it has to look in the end."""

from __future__ import annotations

from app.core.killpoints import KillPoint
from app.graphs.files import GraphFiles
from metagov_sdk.graph import read_graph
from tests.faults.clones import VotesRig
from tests.faults.flows import PATIENCE, Resumed, column, taken_up
from tests.faults.mirrored import POSTS, TOPICS, sync
from tests.faults.rig import until


async def graph(rig: VotesRig, point: KillPoint) -> Resumed:
    """A platform is read, archived, and made a graph."""
    assert await rig.enable(quotes={}) == 200
    rig.start_doomed("worker", point)
    await sync(rig)
    await rig.died("worker", point)
    resumed = await taken_up(rig)

    async def built() -> bool:
        return await rig.count("SELECT count(*) FROM graphs WHERE state = 'built' AND lease_until IS NULL") == 1

    await until(built, 2 * PATIENCE, "the graph is built")
    await _check(rig)
    return resumed


async def _check(rig: VotesRig) -> None:
    told = await column(rig, "SELECT event_type FROM events WHERE event_type LIKE 'graph.%'")
    assert told == ["graph.built"], "told once"
    ((files, nodes, edges),) = await rig.rows("SELECT files -> 'graph' ->> 'sha256' AS files, nodes, edges FROM graphs")
    assert (nodes, edges) == (TOPICS * (POSTS + 1), TOPICS * POSTS)
    folder = rig.log.parent / "graphs"
    made = read_graph(GraphFiles(folder).read_packed(files))
    assert (made.node_count, made.edge_count) == (nodes, edges)
    whole = [path for path in folder.glob("*/*") if path.parent.name != "tmp"]
    assert sorted(path.suffix for path in whole) == [".gz", ".gz", ".gz", ".sqlite"], "the same build, the same files"
    assert list((folder / "tmp").iterdir()) == [], "no half-written file"
