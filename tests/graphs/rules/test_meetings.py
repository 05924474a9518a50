"""Meetings: who was there."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from metagov_sdk.graph import PublishedGraph
from metagov_sdk.testing import build_graph_of
from plugins.meetings import manifest
from tests.graphs.archived import server_archive
from tests.graphs.servers import GUILD, LEFT, ME, QUIET, TALK, YOU, Town

NOTES = "240000000000000000"


def town() -> Town:
    made = Town()
    made.channel(TALK, "talk")
    made.channel(NOTES, "notes")
    for id, name in ((ME, "ann"), (YOU, "bea"), (QUIET, "quiet")):
        made.member(id, name)
    return made


async def build(made: Town) -> PublishedGraph:
    return await build_graph_of(manifest, server_archive(made.api(), GUILD), config={"meeting_channels": [NOTES]})


def attended(built: PublishedGraph) -> set[tuple[str, str]]:
    return {(edge.dst[-1], edge.src[-1]) for edge in built.graph.edges()}


async def test_message_that_names_people_is_a_meeting_of_them() -> None:
    made = town()
    said = made.say(NOTES, ME, f"Monday: <@{YOU}>, <@{QUIET}>, <@{LEFT}>", [YOU, QUIET, LEFT])
    written = made.say(NOTES, "1", f"by a webhook: <@{ME}>", [ME], webhook="1")
    made.say(NOTES, ME, "no names")
    made.say(TALK, ME, f"elsewhere: <@{YOU}>", [YOU])
    built = await build(made)
    assert attended(built) == {(said, YOU), (said, QUIET), (written, ME)}
    node = built.graph.node(("metagov", "meetings", "MEETING", NOTES, said))
    assert node is not None and node.description.startswith('Meeting of 2 in #notes ["Monday')


async def test_meeting_weighs_as_many_as_were_there() -> None:
    made = town()
    said = made.say(NOTES, ME, f"<@{YOU}> <@{QUIET}>", [YOU, QUIET])
    weighing = (await build(made)).graph.weigh()
    assert weighing.node(("metagov", "meetings", "MEETING", NOTES, said)) == 2


async def test_answer_that_only_pings_is_no_meeting() -> None:
    made = town()
    made.say(NOTES, ME, "thanks for the notes", [YOU])
    made.messages[-1]["message_reference"] = {"message_id": "1"}
    assert attended(await build(made)) == set()


def test_config_without_channels_is_refused() -> None:
    with pytest.raises(ValidationError) as caught:
        manifest.config.model_validate({"channels": [NOTES]})
    assert {error["loc"] for error in caught.value.errors()} == {("meeting_channels",), ("channels",)}
