"""Drawing votes with Block Kit. Pure, and within its limits: what cannot be drawn is refused beforehand, by name.

Sources: https://docs.slack.dev/reference/block-kit/blocks, https://docs.slack.dev/messaging/formatting-message-text
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from metagov_sdk import Status
from metagov_sdk.ballot import BallotOutcome, OptionTally, standings, sum_up
from metagov_sdk.errors import Invalid

Block = dict[str, Any]
EmojiFamily = Literal["hearts", "flowers", "numbers"]

EMOJIS: dict[EmojiFamily, tuple[str, ...]] = {
    "hearts": (
        "heart", "orange_heart", "yellow_heart", "green_heart", "blue_heart", "purple_heart", "brown_heart",
        "black_heart", "white_heart", "sparkling_heart",
    ),
    "flowers": (
        "tulip", "sunflower", "rose", "hibiscus", "cherry_blossom", "blossom", "bouquet", "white_flower",
        "four_leaf_clover", "herb",
    ),
    "numbers": ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "keycap_ten"),
}  # fmt: skip
"""What marks the options, in their order; options beyond the tenth are numbered."""

MOST_BUTTONS = 25
"""In one block of actions."""
MOST_CANDIDATES = 40
"""A section each, of the 50 blocks a message can have."""
MOST_MENU_OPTIONS = 100
_SECTION = 3000
_BUTTON = 75
_MENU_OPTION = 75
_TITLE = 2900
_DETAILS = 5800
_WHOLE = 12_000
"""Characters of all blocks as JSON. Slack refuses more than about 13,200 (`msg_blocks_too_long`), which its reference
does not say: https://github.com/slackapi/bolt-js/issues/2509"""
_NOTIFICATION = 300
_RESULT = 400


@dataclass(frozen=True, slots=True)
class Asked:
    """What a vote's message says beside its count. `place` goes into its blocks' ids, and comes back with clicks."""

    place: str
    title: str
    details: str | None
    closing_at: datetime | None


@dataclass(frozen=True, slots=True)
class Drawing:
    """A message: its blocks, and the text that notifications show."""

    text: str
    blocks: list[Block]


def escape(text: str) -> str:
    """Text as it is shown, and not what Slack would make of it: a mention, a link, a channel."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def clip(text: str, most: int) -> str:
    """Text of so many characters at most."""
    return text if len(text) <= most else text[: most - 1] + "…"


def emoji_labels(family: EmojiFamily, number: int) -> list[str]:
    """What stands before each of `number` options."""
    emojis = [f":{name}:" for name in EMOJIS[family][:number]]
    return emojis + [f"{position}." for position in range(len(emojis) + 1, number + 1)]


def draw_buttons(asked: Asked, labels: Sequence[str], outcome: BallotOutcome, status: Status) -> Drawing:
    """A vote by a button for each option; without the buttons once it is over."""
    stands = standings(outcome)
    lines = [f"{label} {escape(stand.option)}\n`{stand.text}`" for label, stand in zip(labels, stands, strict=True)]
    blocks = [*_heading(asked), *(_section(text) for text in _joined(lines))]
    if status == "pending":
        buttons = [
            {
                "type": "button",
                "action_id": f"vote-{position}",
                "value": str(position),
                "text": _plain(f"{label} {stand.option}", _BUTTON),
            }
            for position, (label, stand) in enumerate(zip(labels, stands, strict=True))
        ]
        blocks.append({"type": "actions", "block_id": f"{asked.place}:0", "elements": buttons})
    return _finished(asked, blocks, outcome, status)


def draw_menus(
    asked: Asked, rows: Sequence[tuple[str, Sequence[OptionTally]]], outcome: BallotOutcome, status: Status
) -> Drawing:
    """A vote by a menu for each candidate; without the menus once it is over. `rows` are the candidates' counts."""
    blocks = _heading(asked)
    for position, (candidate, tallies) in enumerate(rows):
        section = _section(f"*{position + 1}.* {escape(candidate)}\n{_counts(tallies)}")
        if status == "pending":
            section["block_id"] = f"{asked.place}:{position}"
            section["accessory"] = _menu([tally.option for tally in tallies])
        blocks.append(section)
    return _finished(asked, blocks, outcome, status)


def check_texts(title: str, details: str | None, listed: Sequence[str], where: str) -> None:
    """Refuse what no section has room for; `where` points to the list. Raises Invalid."""
    if len(escape(title)) > _TITLE:
        raise Invalid(
            "/title", f"Slack has room for {_TITLE} characters of a title, with &, < and > taking up to 5 each"
        )
    if details is not None and len(escape(details)) > _DETAILS:
        raise Invalid(
            "/details", f"Slack has room for {_DETAILS} characters of details, with &, < and > taking up to 5"
        )
    for position, text in enumerate(listed):
        if len(escape(text)) > _SECTION // 2:
            raise Invalid(f"{where}/{position}", f"Slack has room for {_SECTION // 2} characters of it")


def check_size(drawing: Drawing, where: str) -> None:
    """Refuse what is too much for one message; `where` points to the list. Raises Invalid."""
    size = len(json.dumps(drawing.blocks, ensure_ascii=False, separators=(",", ":")))
    if size > _WHOLE:
        raise Invalid(where, f"one Slack message has no room for all of this: {size} characters of {_WHOLE}")


def _menu(options: Sequence[str]) -> Block:
    return {
        "type": "static_select",
        "action_id": "choose",
        "placeholder": _plain("Choose", _MENU_OPTION),
        "options": [
            {"text": _plain(option, _MENU_OPTION), "value": str(position)} for position, option in enumerate(options)
        ],
    }


def _counts(tallies: Sequence[OptionTally]) -> str:
    """Who chose what, as far as a section has room for it."""
    line = ""
    for tally in tallies:
        part = f"{escape(clip(tally.option, 40))}: {tally.count}"
        if len(line) + len(part) > _SECTION // 2 - 50:
            return f"{line} · …"
        line = f"{line} · {part}" if line else part
    return line


def _heading(asked: Asked) -> list[Block]:
    # Bold does not go over a line's end, and ends at a star.
    bold = not re.search(r"[*\r\n]", asked.title)
    title = f"*{escape(asked.title)}*" if bold else escape(asked.title)
    details = asked.details if asked.details and asked.details.strip() else ""
    return [_section(title), *(_section(part) for part in _pieces(details))]


def _finished(asked: Asked, blocks: list[Block], outcome: BallotOutcome, status: Status) -> Drawing:
    """The message with its last line: how many have voted, who has won, when it closes."""
    result = sum_up(outcome, status)
    words = escape(clip(result, _RESULT))
    if status == "pending" and asked.closing_at is not None:
        words += f" · closes {_moment(asked.closing_at)}"
    blocks.append({"type": "context", "elements": [_text(words)]})
    return Drawing(f"{escape(clip(asked.title, _NOTIFICATION))}: {escape(clip(result, _NOTIFICATION))}", blocks)


def _moment(time: datetime) -> str:
    """A time in the reader's own time zone."""
    return f"<!date^{int(time.timestamp())}^{{date_short_pretty}} {{time}}|{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC>"


def _section(text: str) -> Block:
    return {"type": "section", "text": _text(text)}


def _text(text: str) -> Block:
    # Verbatim: Slack is not to make links and mentions of what looks like them.
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _plain(text: str, most: int) -> Block:
    return {"type": "plain_text", "text": clip(text, most), "emoji": True}


def _joined(lines: Sequence[str]) -> Iterator[str]:
    """Lines in as few sections as they fit in."""
    section = ""
    for line in lines:
        if section and len(section) + 2 + len(line) > _SECTION:
            yield section
            section = ""
        section = f"{section}\n\n{line}" if section else line
    if section:
        yield section


def _pieces(text: str) -> Iterator[str]:
    """Escaped text in pieces that fit a section."""
    piece = ""
    for character in text:
        escaped = escape(character)
        if len(piece) + len(escaped) > _SECTION:
            if piece.strip():
                yield piece
            piece = ""
        piece += escaped
    if piece.strip():
        yield piece
