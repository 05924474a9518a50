"""Where the graph has its props and its people."""

from __future__ import annotations

PREFIX = ("metagov", "props")
PROPS, GIVES, RECEIVES = ((*PREFIX, kind) for kind in ("PROPS", "GIVES", "RECEIVES"))
MEMBER = ("sourcecred", "discord", "MEMBER")
"""Members have the addresses that SourceCred's Discord plugin gives them, so that everybody is one participant of an
instance that has its graph, too. They are no nodes of this graph, as no two may describe a node differently."""
