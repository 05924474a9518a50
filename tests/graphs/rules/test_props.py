"""Props: who gave them to whom, and how much they weigh."""

from __future__ import annotations

from metagov_sdk.graph import PublishedGraph
from metagov_sdk.testing import build_graph_of
from plugins.props import manifest
from tests.graphs.archived import server_archive
from tests.graphs.servers import BOT, GUILD, HEART, LEFT, ME, PROPS, QUIET, TALK, THUMB, YOU, Town


def town() -> Town:
    made = Town()
    made.channel(TALK, "talk")
    made.channel(PROPS, "did-a-<thing>")
    for id, name in ((ME, "ann"), (YOU, "bea"), (QUIET, "quiet")):
        made.member(id, name)
    made.member(BOT, "helper", bot=True)
    return made


async def build(made: Town, *channels: str) -> PublishedGraph:
    config = {"props_channels": list(channels or (PROPS,))}
    return await build_graph_of(manifest, server_archive(made.api(), GUILD), config=config)


def given(built: PublishedGraph) -> set[tuple[str, str, str]]:
    """Who gave props in which message to whom."""
    givers = {edge.dst: edge.src[-1] for edge in built.graph.edges() if edge.address[2] == "GIVES"}
    receives = [edge for edge in built.graph.edges() if edge.address[2] == "RECEIVES"]
    return {(givers[edge.src], edge.src[-1], edge.dst[-1]) for edge in receives}


def weight(built: PublishedGraph, message: str) -> float:
    return built.graph.weigh(built.declaration).node(("metagov", "props", "PROPS", PROPS, message))


async def test_props_go_from_the_author_to_everybody_named() -> None:
    made = town()
    first = made.say(PROPS, ME, f"<@{YOU}> and <@!{QUIET}> helped", [YOU, QUIET])
    second = made.say(PROPS, YOU, f"thanks <@{BOT}>", [BOT])
    made.say(TALK, ME, f"<@{YOU}>", [YOU])
    assert given(await build(made)) == {(ME, first, YOU), (ME, first, QUIET), (YOU, second, BOT)}


async def test_what_is_no_props_is_left_out() -> None:
    made = town()
    made.say(PROPS, ME, "nobody")
    made.say(PROPS, ME, f"me <@{ME}>", [ME])
    made.say(PROPS, ME, f"who left: <@{LEFT}>", [LEFT])
    made.say(PROPS, LEFT, f"from who left: <@{ME}>", [ME])
    made.say(PROPS, ME, f"by a webhook: <@{YOU}>", [YOU], webhook="77")
    made.say(PROPS, ME, "an answer that pings", [YOU])
    made.messages[-1]["message_reference"] = {"message_id": "1"}
    answer = made.say(PROPS, ME, f"an answer that names <@{QUIET}>, and pings", [YOU, QUIET])
    made.messages[-1]["message_reference"] = {"message_id": "1"}
    assert given(await build(made)) == {(ME, answer, QUIET)}


async def test_weight_is_of_the_people_who_react_and_are_not_praised() -> None:
    made = town()
    said = made.say(
        PROPS, ME, f"<@{YOU}>", [YOU], reactions={THUMB: [YOU, QUIET, LEFT], HEART: [QUIET, BOT], "🎈": [ME]}
    )
    ignored = made.say(PROPS, ME, f"<@{YOU}>", [YOU])
    built = await build(made)
    assert weight(built, said) == 3
    assert weight(built, ignored) == 0


async def test_description_has_the_text_and_a_link() -> None:
    made = town()
    said = made.say(PROPS, ME, f"<b> <@{YOU}>", [YOU])
    node = (await build(made)).graph.node(("metagov", "props", "PROPS", PROPS, said))
    assert node is not None
    assert node.description == (
        'Props in #did-a-&#x3C;thing&#x3E; ["&#x3C;b&#x3E; &#x3C;@500000000000000001&#x3E;..."]'
        f"(https://discord.com/channels/{GUILD}/{PROPS}/{said})"
    )


async def test_members_are_proposed_by_their_addresses_in_the_servers_graph() -> None:
    built = await build(town())
    assert {(one.name, one.type, one.address) for one in built.identities} == {
        (name, type, ("sourcecred", "discord", "MEMBER", kind, id))
        for name, type, kind, id in (
            ("ann", "USER", "user", ME),
            ("bea", "USER", "user", YOU),
            ("quiet", "USER", "user", QUIET),
            ("helper", "BOT", "bot", BOT),
        )
    }
    # Nodes of members are the other graph's: SourceCred refuses two that describe one differently.
    assert all(node.address[:2] == ("metagov", "props") for node in built.graph.nodes())


async def test_thread_can_be_a_props_channel() -> None:
    made = town()
    said = made.say("888", ME, f"<@{YOU}>", [YOU])
    archive = server_archive({**made.api(), "threads": [{"id": "888", "name": "kudos", "parent_id": TALK}]}, GUILD)
    built = await build_graph_of(manifest, archive, config={"props_channels": ["888", "888"]})
    assert given(built) == {(ME, said, YOU)}
    node = built.graph.node(("metagov", "props", "PROPS", "888", said))
    assert node is not None and "#kudos" in node.description
