"""Strangers' text in descriptions, which whoever shows them takes for Markdown: cut and escaped as by SourceCred."""

from __future__ import annotations

import re

_UNSAFE = re.compile("[&<>\"'\u0080-\U0010ffff]")


def cut(text: str, units: int) -> str:
    """The first UTF-16 code units of a text, as JavaScript counts. The last may be half of a pair: escape it."""
    head = text[:units]
    if head.isascii() or max(head) <= "\uffff":
        return head
    return head.encode("utf-16-le", "surrogatepass")[: 2 * units].decode("utf-16-le", "surrogatepass")


def escape(text: str) -> str:
    """The text with `&<>"'` and all beyond ASCII as character references: `&#x2019;`.

    Source: the npm package entities 2.2 (`escape`), which SourceCred 0.11.2 uses.
    """
    return _UNSAFE.sub(lambda found: f"&#x{ord(found[0]):X};", text)
