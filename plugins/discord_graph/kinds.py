"""The kinds of nodes and edges, and their default weights. Source: declaration.js of SourceCred 0.11.2's plugin."""

from __future__ import annotations

from metagov_sdk.graph import Declaration, EdgeType, EdgeWeight, NodeType

PREFIX = ("sourcecred", "discord")
MEMBER = (*PREFIX, "MEMBER")
MESSAGE = (*PREFIX, "MESSAGE")
REACTION = (*PREFIX, "REACTION")
AUTHORS = (*PREFIX, "AUTHORS", "MESSAGE")
ADDS_REACTION = (*PREFIX, "ADDS_REACTION")
REACTS_TO = (*PREFIX, "REACTS_TO")
MENTIONS = (*PREFIX, "MENTIONS")
PROPS = (*PREFIX, "PROPS")

_MEMBERS = NodeType("Member", "Members", MEMBER, 0, "A member of the Discord server")

DECLARATION = Declaration(
    name="Discord",
    node_prefix=PREFIX,
    edge_prefix=PREFIX,
    node_types=(
        _MEMBERS,
        NodeType("Message", "Messages", MESSAGE, 0, "A Discord message, posted in a particular channel"),
        NodeType("Reaction", "Reactions", REACTION, 1, "A reaction by some user, directed at some message"),
    ),
    edge_types=(
        EdgeType(
            "authors message",
            "message is authored by",
            AUTHORS,
            EdgeWeight(1 / 4, 1),
            "Connects an author to a message they've created.",
        ),
        EdgeType(
            "adds reaction",
            "reaction added by",
            ADDS_REACTION,
            EdgeWeight(1, 1 / 16),
            "Connects a member to a reaction that they added.",
        ),
        EdgeType(
            "reacts to",
            "is reacted to by",
            REACTS_TO,
            EdgeWeight(1, 1 / 16),
            "Connects a reaction to a message that it reacts to.",
        ),
        EdgeType(
            "mentions",
            "is mentioned by",
            MENTIONS,
            EdgeWeight(1, 1 / 16),
            "Connects a message to the member being mentioned.",
        ),
        EdgeType(
            "gives props to",
            "recieves props from",
            PROPS,
            EdgeWeight(19, 1 / 16),
            "Connects a props message to the person getting props",
        ),
    ),
    user_types=(_MEMBERS,),
    operator_keys=("reactionsAcrossParticipants", "reactionsOfSingleParticipant"),
    weight_keys=("emoji", "role", "channel", "category"),
    share_keys=("author", "mention"),
)
"""Word for word SourceCred's: an instance shows it to its users, and its weights are set by these prefixes."""
