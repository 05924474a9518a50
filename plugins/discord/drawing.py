"""How a vote looks in Discord: an embed with a bar for each option, and the buttons under it. Pure.

Limits: docs.discord.com/developers/resources/message#embed-object-embed-limits, .../components/reference#button.
"""

from __future__ import annotations

from pydantic import JsonValue

from metagov_sdk import Status
from metagov_sdk.ballot import BallotOutcome, ChatBallotParams, ChatBallotState, Standing, standings, sum_up
from metagov_sdk.errors import Invalid
from plugins.discord.interactions import button_id
from plugins.discord.text import clip, escape, one_line

MOST_BUTTONS = 25
BUTTONS_IN_A_ROW = 5
_LONGEST_TITLE = 256
_LONGEST_DESCRIPTION = 4096
_LONGEST_LABEL = 80
_ROOM_FOR_OPTIONS = 3000
_LONGEST_OPTION = 300
_LONGEST_ROW = 40
"""What stands around an option: its bar, its share and its count."""
_LONGEST_SUMMARY = 400
_LONGEST_CLOSING = 60
_LEADING = "▸ "

SECONDARY, SUCCESS, DANGER = 2, 3, 4
OPEN_COLOUR, CLOSED_COLOUR = 0x5865F2, 0x57F287

SILENT: dict[str, JsonValue] = {"parse": []}
"""Allowed mentions: nobody is notified, whatever the text says."""


def check_room(params: ChatBallotParams) -> None:
    """Refuse what the message has no room for. Markup that is made harmless takes a character more.

    Raises Invalid, with a pointer from the parameters' root.
    """
    title = len(escape(one_line(params.title)))
    if title > _LONGEST_TITLE:
        raise Invalid("/title", f"takes {title} characters in Discord's markup, and there is room for {_LONGEST_TITLE}")
    room = _room_for_option(len(params.options))
    texts = [escape(one_line(option)) for option in params.options]
    for position, text in enumerate(texts):
        if len(text) > room:
            reason = f"takes {len(text)} characters in Discord's markup; among {len(texts)} options each has {room}"
            raise Invalid(f"/options/{position}", reason)
    room = _LONGEST_DESCRIPTION - _LONGEST_SUMMARY - sum(len(text) + _LONGEST_ROW for text in texts)
    details = len(_shown_details(params.details))
    if details > room:
        raise Invalid("/details", f"takes {details} characters in Discord's markup, and there is room for {room}")


def draw_vote(state: ChatBallotState, outcome: BallotOutcome, status: Status, process_id: str) -> dict[str, JsonValue]:
    """The message of a vote as it stands; without buttons once it is closed."""
    embed: dict[str, JsonValue] = {
        "title": escape(one_line(state.title)),
        "description": _description(state, outcome, status),
        "color": OPEN_COLOUR if status == "pending" else CLOSED_COLOUR,
        "footer": {"text": f"vote {process_id}"},
    }
    buttons = _buttons(state, process_id) if status == "pending" else []
    return {"content": "", "embeds": [embed], "components": buttons, "allowed_mentions": SILENT}


def _description(state: ChatBallotState, outcome: BallotOutcome, status: Status) -> str:
    """What voters should know, how the options stand, and a line below that repeats the winners."""
    rows = "\n".join(_row(row) for row in standings(outcome))
    summary = clip(escape(sum_up(outcome, status)), _LONGEST_SUMMARY - _LONGEST_CLOSING)
    if status == "pending" and state.closing_at is not None:
        summary += f"\n\nCloses <t:{state.closing_at.timestamp():.0f}:R>."
    return "\n\n".join(part for part in (_shown_details(state.details), rows, summary) if part)


def _shown_details(details: str | None) -> str:
    return escape(details.strip()) if details else ""


def _room_for_option(number: int) -> int:
    return min(_LONGEST_OPTION, _ROOM_FOR_OPTIONS // number - _LONGEST_ROW)


def _row(row: Standing) -> str:
    lead = _LEADING if row.wins else ""
    return f"{lead}**{escape(one_line(row.option))}**\n{row.text}"


def _buttons(state: ChatBallotState, process_id: str) -> list[JsonValue]:
    """Rows of five. The label is the option's beginning; its whole text stands above."""
    options = state.rules.options
    styles = {"yes": SUCCESS, "no": DANGER} if options == ("yes", "no") else {}
    buttons: list[JsonValue] = [
        {
            "type": 2,
            "style": styles.get(option, SECONDARY),
            "label": clip(one_line(option), _LONGEST_LABEL),
            "custom_id": button_id(process_id, position),
        }
        for position, option in enumerate(options)
    ]
    return [
        {"type": 1, "components": buttons[start : start + BUTTONS_IN_A_ROW]}
        for start in range(0, len(buttons), BUTTONS_IN_A_ROW)
    ]
