"""Where the graph has its props."""

from __future__ import annotations

PREFIX = ("metagov", "props")
PROPS, GIVES, RECEIVES = ((*PREFIX, kind) for kind in ("PROPS", "GIVES", "RECEIVES"))
