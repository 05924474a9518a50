"""The kinds of nodes and edges, and their default weights. Source: declaration.js of SourceCred 0.11.2's plugin."""

from __future__ import annotations

from metagov_sdk.graph import Declaration, EdgeType, EdgeWeight, NodeType

PREFIX = ("sourcecred", "discourse")
USER, TOPIC, POST, LIKE = ((*PREFIX, kind) for kind in ("user", "topic", "post", "like"))
REPLIES = (*PREFIX, "replyTo")
AUTHORS_TOPIC, AUTHORS_POST = (*PREFIX, "authors", "topic"), (*PREFIX, "authors", "post")
CONTAINS = (*PREFIX, "topicContainsPost")
HAS_LIKED = (*PREFIX, "topicHasLikedPost")
LIKES, CREATES_LIKE = (*PREFIX, "likes"), (*PREFIX, "createsLike")
REFERS_POST, REFERS_TOPIC, REFERS_USER = ((*PREFIX, "references", kind) for kind in ("post", "topic", "user"))

_USERS = NodeType("User", "Users", USER, 0, "A user account on a particular Discourse instance.")

DECLARATION = Declaration(
    name="Discourse",
    node_prefix=PREFIX,
    edge_prefix=PREFIX,
    node_types=(
        _USERS,
        NodeType(
            "Topic",
            "Topics",
            TOPIC,
            0,
            "A topic (or post-container) in a Discourse instance. Every topic has at least one post.",
        ),
        NodeType("Post", "Posts", POST, 0, "A post in some topic in a Discourse instance."),
        NodeType("Like", "Likes", LIKE, 4, "A like by some user, directed at some post"),
    ),
    edge_types=(
        EdgeType(
            "post is reply to",
            "post replied to by",
            REPLIES,
            EdgeWeight(1, 0),
            "Connects a post to the post that it is a reply to.",
        ),
        EdgeType(
            "authors topic",
            "topic is authored by",
            AUTHORS_TOPIC,
            EdgeWeight(0, 0),
            "Connects an author to a topic they created.",
        ),
        EdgeType(
            "authors post",
            "post is authored by",
            AUTHORS_POST,
            EdgeWeight(1 / 4, 1),
            "Connects an author to a post they've created.",
        ),
        EdgeType(
            "contains post",
            "is contained by topic",
            CONTAINS,
            EdgeWeight(1 / 8, 1),
            "Connects a topic to the posts that it contains.",
        ),
        EdgeType(
            "has post with likes",
            "is liked post within topic",
            HAS_LIKED,
            EdgeWeight(1, 0),
            "Connects a topic to posts with likes, with weight proportional to the number of likes",
        ),
        EdgeType(
            "likes", "is liked by", LIKES, EdgeWeight(1, 0), "Connects a Discourse like to a post that was liked."
        ),
        EdgeType(
            "creates like",
            "like created by",
            CREATES_LIKE,
            EdgeWeight(1, 0),
            "Connects a Discourse user to a like that they created.",
        ),
        EdgeType(
            "references post",
            "post is referenced by",
            REFERS_POST,
            EdgeWeight(1 / 2, 0),
            "Connects a Discourse post to another post it referenced.",
        ),
        EdgeType(
            "references topic",
            "topic is referenced by",
            REFERS_TOPIC,
            EdgeWeight(1 / 2, 0),
            "Connects a Discourse post to a topic it referenced.",
        ),
        EdgeType(
            "mentions",
            "is mentioned by",
            REFERS_USER,
            EdgeWeight(1 / 2, 0),
            "Connects a Discourse post to a user it mentions",
        ),
    ),
    user_types=(_USERS,),
)
"""Word for word SourceCred's: an instance shows it to its users, and its weights are set by these prefixes."""
