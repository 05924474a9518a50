"""Whom and what a post refers to, found in its Markdown.

SourceCred looks for links in the HTML that the forum made of it. The archive keeps what its author wrote; of that the
forum makes links to people of `@name`, and to posts of quotations.
Source: src/plugins/discourse/references.js of SourceCred 0.11.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_CODE = re.compile(r"^(```|~~~)[\s\S]*?(?:^\1|\Z)|`[^`\n]*`", re.MULTILINE)
_MENTION = re.compile(r"(?<![\w@/.])@(\w(?:[\w.-]{0,58}\w)?)")
_QUOTE = re.compile(r'\[quote="[^"\]\n]{0,200}?post:\s*(\d{1,12}),\s*topic:\s*(\d{1,12})[^"\]\n]{0,50}"')
_END = r"(?:\?[\w=-]*)?/?(?![\w/?-])"


@dataclass(frozen=True, slots=True)
class Reference:
    """To a topic, to the post with that number in it, or to a person; one of `topic` and `username` is set."""

    topic: int | None = None
    post_number: int | None = None
    username: str | None = None


class References:
    """Finds what posts of one forum refer to."""

    def __init__(self, server_url: str | None) -> None:
        """`server_url`: links with it count, besides those that name no server."""
        server = "" if server_url is None else re.escape(server_url.rstrip("/"))
        start = rf"(?:{server}|(?<=[(\s]))" if server else r"(?<=[(\s])"
        # A forum's own short links have no slug, and no slug is a number.
        self._topic = re.compile(
            rf"{start}/t/(?:(?!\d+/)[\w-]{{1,255}}/)?(\d{{1,12}})(?:/(\d{{1,12}}))?{_END}", re.IGNORECASE
        )
        self._user = re.compile(rf"{start}/u/(\w[\w.-]{{0,60}}){_END}", re.IGNORECASE)

    def of(self, markdown: str) -> Iterator[Reference]:
        """The references of a text, each once. Code does not count."""
        if "@" not in markdown and "/t/" not in markdown and "/u/" not in markdown and "[quote" not in markdown:
            return
        text = " " + _CODE.sub(" ", markdown)
        found: dict[Reference, None] = {}
        for number, topic in _QUOTE.findall(text):
            found[Reference(topic=int(topic), post_number=int(number))] = None
        for topic, number in self._topic.findall(text):
            found[Reference(topic=int(topic), post_number=int(number) if number else None)] = None
        for name in (*self._user.findall(text), *_MENTION.findall(text)):
            found[Reference(username=name.lower())] = None
        yield from found
