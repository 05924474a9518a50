"""What Slack refuses of a message's blocks: the limits of Block Kit, as its reference states them.

Source: https://docs.slack.dev/reference/block-kit (each block's and element's page); the size of all blocks together,
which no page states, from https://github.com/slackapi/bolt-js/issues/2509.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

MOST_BLOCKS = 50
MOST_CHARACTERS = 13_200
_TEXTS = {"section": 3000, "header": 150}


def faults(blocks: object) -> list[str]:
    """What is wrong with these blocks, in words; nothing if Slack takes them."""
    if not isinstance(blocks, list):
        return ["blocks should be a list"]
    found = [fault for block in blocks for fault in _of_block(block)]
    if len(blocks) > MOST_BLOCKS:
        found.append(f"no more than {MOST_BLOCKS} items allowed")
    ids = [block.get("block_id") for block in blocks if isinstance(block, dict) and block.get("block_id")]
    if len(ids) != len(set(ids)):
        found.append("block_id already exists")
    return found


def is_too_long(blocks: list[Any]) -> bool:
    """Whether Slack answers `msg_blocks_too_long`."""
    return len(json.dumps(blocks, ensure_ascii=False, separators=(",", ":"))) > MOST_CHARACTERS


def _of_block(block: object) -> Iterator[str]:
    if not isinstance(block, dict):
        yield "a block should be an object"
        return
    kind = block.get("type")
    if len(str(block.get("block_id", ""))) > 255:
        yield "block_id: must be less than 256 characters"
    if kind in _TEXTS:
        yield from _text(block.get("text"), _TEXTS[kind], f"{kind}.text", plain=kind == "header")
        if "accessory" in block:
            yield from _element(block["accessory"])
    elif kind in ("actions", "context"):
        yield from _elements(kind, block.get("elements"))
    elif kind != "divider":
        yield f"unsupported type: {kind}"


def _elements(kind: str, elements: object) -> Iterator[str]:
    most = 25 if kind == "actions" else 10
    if not isinstance(elements, list) or not 1 <= len(elements) <= most:
        yield f"{kind}.elements: must have 1 to {most} items"
        return
    ids = [element.get("action_id") for element in elements if kind == "actions"]
    if len(ids) != len(set(ids)):
        yield "action_id already exists"
    for element in elements:
        if kind == "actions":
            yield from _element(element)
        else:
            yield from _text(element, 3000, "context.elements")


def _element(element: Any) -> Iterator[str]:
    if not 1 <= len(str(element.get("action_id", ""))) <= 255:
        yield "action_id: must have 1 to 255 characters"
    if element.get("type") == "button":
        yield from _text(element.get("text"), 75, "button.text", plain=True)
        if len(str(element.get("value", ""))) > 2000:
            yield "button.value: must be less than 2001 characters"
    elif element.get("type") == "static_select":
        yield from _text(element.get("placeholder"), 150, "static_select.placeholder", plain=True)
        options = element.get("options")
        if not isinstance(options, list) or not 1 <= len(options) <= 100:
            yield "static_select.options: must have 1 to 100 items"
            return
        for option in options:
            yield from _text(option.get("text"), 75, "option.text", plain=True)
            if not 1 <= len(str(option.get("value", ""))) <= 150:
                yield "option.value: must have 1 to 150 characters"
    else:
        yield f"unsupported element: {element.get('type')}"


def _text(value: Any, most: int, what: str, *, plain: bool = False) -> Iterator[str]:
    kinds = ("plain_text",) if plain else ("plain_text", "mrkdwn")
    if not isinstance(value, dict) or value.get("type") not in kinds or not isinstance(value.get("text"), str):
        yield f"{what}: must be a text object ({' or '.join(kinds)})"
    elif not 1 <= len(value["text"]) <= most:
        yield f"{what}: must have 1 to {most} characters"
