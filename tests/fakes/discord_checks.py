"""What the fake Discord refuses in bodies and queries: limits that its OpenAPI document leaves out or has laxer.

Sources: docs.discord.com/developers/resources/message#embed-object-embed-limits, .../components/reference,
.../resources/poll, .../interactions/application-commands; codes: .../topics/opcodes-and-status-codes#json.
"""

from __future__ import annotations

import re
from typing import Any, NoReturn

from aiohttp import web

LONGEST_CONTENT = 2000
_COMMAND = re.compile(r"[-_'\w]{1,32}")


class Refused(Exception):
    """An error answer: HTTP status, Discord's code, its words, and the tree of errors by field."""

    def __init__(self, status: int, code: int, message: str, errors: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.errors = status, code, message, errors


def problem(status: int, code: int, message: str, errors: dict[str, Any] | None = None) -> web.Response:
    """The body of an error answer."""
    body: dict[str, Any] = {"message": message or f"{status}: error", "code": code}
    return web.json_response(body | ({"errors": errors} if errors else {}), status=status)


def _refuse(field: str, code: str, message: str) -> NoReturn:
    errors: dict[str, Any] = {"_errors": [{"code": code, "message": message}]}
    for part in reversed(field.split(".")):
        errors = {part: errors}
    raise Refused(400, 50035, "Invalid Form Body", errors)


def _at_most(field: str, text: str | None, most: int) -> None:
    if text is not None and len(text) > most:
        _refuse(field, "BASE_TYPE_MAX_LENGTH", f"Must be {most} or fewer in length.")


def check_message(body: Any, *, edit: bool = False) -> None:
    """A message's parts. Raises Refused."""
    if not isinstance(body, dict):
        raise Refused(400, 50109, "The request body contains invalid JSON.")
    _at_most("content", body.get("content"), LONGEST_CONTENT)
    for number, embed in enumerate(body.get("embeds") or ()):
        _check_embed(f"embeds.{number}", embed)
    _check_components(body.get("components") or ())
    if body.get("poll"):
        _check_poll(body["poll"])
    forwards = (body.get("message_reference") or {}).get("type") == 1
    if not edit and not forwards and not any(body.get(part) for part in ("content", "embeds", "components", "poll")):
        raise Refused(400, 50006, "Cannot send an empty message")


def _check_embed(field: str, embed: dict[str, Any]) -> None:
    footer = (embed.get("footer") or {}).get("text", "")
    _at_most(f"{field}.title", embed.get("title"), 256)
    _at_most(f"{field}.description", embed.get("description"), 4096)
    _at_most(f"{field}.footer.text", footer, 2048)
    total = len(embed.get("title") or "") + len(embed.get("description") or "") + len(footer)
    for number, part in enumerate(embed.get("fields") or ()):
        _at_most(f"{field}.fields.{number}.name", part["name"], 256)
        _at_most(f"{field}.fields.{number}.value", part["value"], 1024)
        total += len(part["name"]) + len(part["value"])
    if total > 6000:
        _refuse(field, "MAX_EMBED_SIZE_EXCEEDED", "Embed size exceeds maximum size of 6000")


def _check_components(rows: Any) -> None:
    if len(rows) > 5:
        _refuse("components", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 5 in length.")
    seen: set[str] = set()
    for at, row in enumerate(rows):
        buttons = row.get("components") or ()
        if row.get("type") != 1 or not 1 <= len(buttons) <= 5:
            _refuse(f"components.{at}", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 5 in length.")
        for place, button in enumerate(buttons):
            field = f"components.{at}.components.{place}"
            _at_most(f"{field}.label", button.get("label"), 80)
            _at_most(f"{field}.custom_id", button.get("custom_id"), 100)
            if button.get("type") == 2 and not (button.get("label") or "").strip() and not button.get("emoji"):
                _refuse(f"{field}.label", "BASE_TYPE_REQUIRED", "A button must have a label or emoji")
            if button.get("custom_id") in seen:
                _refuse(field, "COMPONENT_CUSTOM_ID_DUPLICATED", "Component custom id cannot be duplicated")
            seen.add(button.get("custom_id", ""))


def _check_poll(poll: dict[str, Any]) -> None:
    text = poll["question"].get("text") or ""
    if not 1 <= len(text) <= 300:
        _refuse("poll.question.text", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 300 in length.")
    if not 1 <= len(poll["answers"]) <= 10:
        _refuse("poll.answers", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 10 in length.")
    for number, answer in enumerate(poll["answers"]):
        if not 1 <= len(answer["poll_media"].get("text") or "") <= 55:
            _refuse(f"poll.answers.{number}", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 55 in length.")
    if not 1 <= (poll.get("duration") or 24) <= 768:
        _refuse("poll.duration", "NUMBER_TYPE_MAX", "int value should be less than or equal to 768.")


def check_command(body: Any) -> None:
    """A slash command's parts. Raises Refused."""
    if not isinstance(body, dict) or not isinstance(body.get("name"), str):
        raise Refused(400, 50035, "Invalid Form Body", {"name": {"_errors": [{"code": "BASE_TYPE_REQUIRED"}]}})
    if not _COMMAND.fullmatch(body["name"]) or body["name"] != body["name"].lower():
        _refuse("name", "APPLICATION_COMMAND_INVALID_NAME", "Command name is invalid")
    if not 1 <= len(body.get("description") or "") <= 100:
        _refuse("description", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 100 in length.")
    optional = False
    for number, option in enumerate(body.get("options") or ()):
        if option.get("required") and optional:
            code = "APPLICATION_COMMAND_OPTIONS_REQUIRED_INVALID"
            _refuse(f"options.{number}", code, "Required options must be placed before non-required options")
        optional = optional or not option.get("required")


def checked_query(query: dict[str, str], *, limit: tuple[int, int, int], **ids: int | None) -> dict[str, Any]:
    """`limit` within (lowest, highest, default), and ids with their defaults. Raises Refused."""
    lowest, highest, default = limit
    asked = query.get("limit", str(default))
    if not asked.isdigit() or not lowest <= int(asked) <= highest:
        _refuse("limit", "NUMBER_TYPE_MAX", f"int value should be between {lowest} and {highest}.")
    values: dict[str, Any] = {"limit": int(asked)}
    for name, usual in ids.items():
        given = query.get(name)
        if given is not None and not given.isdigit():
            _refuse(name, "NUMBER_TYPE_COERCE", "Value is not snowflake.")
        values[name] = usual if given is None else int(given)
    return values
