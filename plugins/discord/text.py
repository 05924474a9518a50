"""Text from outside inside Discord's markdown: shown as it is written, and no longer than there is room for."""

from __future__ import annotations

import re

_SPECIAL = re.compile(r"([\\*_~`|\[\]()<>@#])")
_LIST = re.compile(r"^([ \t]*)([-+]|\d+(?=\.))", re.MULTILINE)
_ELLIPSIS = "…"


def escape(text: str) -> str:
    """Text that Discord shows character by character: no markup, no mention, no link with a text of its own.

    A backslash takes the meaning from any punctuation. Source: docs.discord.com/developers/reference#message-formatting
    """
    return _LIST.sub(_escape_list, _SPECIAL.sub(r"\\\1", text))


def _escape_list(found: re.Match[str]) -> str:
    indent, mark = found.groups()
    return f"{indent}{mark}\\" if mark[0].isdigit() else f"{indent}\\{mark}"


def one_line(text: str) -> str:
    """The same without line breaks, and with single spaces."""
    return " ".join(text.split())


def clip(text: str, most: int) -> str:
    """At most so many characters, the last an ellipsis if something is left out; no escape is cut in half."""
    if len(text) <= most:
        return text
    kept = text[: max(0, most - 1)]
    backslashes = len(kept) - len(kept.rstrip("\\"))
    return (kept[:-1] if backslashes % 2 else kept).rstrip() + _ELLIPSIS
