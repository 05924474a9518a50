"""The project's pages, and the code blocks in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
README = ROOT / "README.md"
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, its text and the line it starts at."""

    language: str
    text: str
    line: int


def all_pages() -> list[Path]:
    """Every Markdown page that is written by hand."""
    pages = [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
    return sorted(page for page in pages if "node_modules" not in page.parts)


def blocks(page: Path, language: str | None = None) -> Iterator[Block]:
    """The page's fenced blocks, in order."""
    text = page.read_text()
    for match in _FENCE.finditer(text):
        if language in (None, match[2]):
            yield Block(match[2], match[3], text.count("\n", 0, match.start()) + 2)


def as_module(page: Path) -> str:
    """The page's Python blocks as one module whose line numbers are the page's."""
    lines: list[str] = []
    for block in blocks(page, "python"):
        lines += [""] * (block.line - 1 - len(lines))
        lines += block.text.splitlines()
    return "\n".join(lines) + "\n"


def shell(page: Path) -> str:
    """The page's shell blocks as one script."""
    return "".join(block.text for block in blocks(page, "sh"))


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return _FENCE.sub("", page.read_text())
