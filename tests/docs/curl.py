"""A page's `curl` commands, asked of an app as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import httpx

from tests.docs.pages import blocks


async def follow(page: Path, client: httpx.AsyncClient, names: dict[str, str]) -> list[httpx.Response]:
    """What is answered to a page's commands, in their order. `names`: shell variables; LOCATION is set as it goes."""
    answers: list[httpx.Response] = []
    for command in _commands(page):
        answers.append(await _curl(client, _expanded(command, names)))
        names["LOCATION"] = answers[-1].headers.get("location", names["LOCATION"])
    return answers


def _commands(page: Path) -> list[str]:
    """What follows the prompts."""
    return [command for block in blocks(page, "console") for command in re.split(r"^\$ ", block.text, flags=re.M)[1:]]


def _expanded(command: str, names: dict[str, str]) -> list[str]:
    """A command's words, as a shell would make them of these variables."""
    for name, value in names.items():
        command = re.sub(rf"\${name}\b", value, command)
    assert "$" not in command, f"a variable that the page does not explain: {command}"
    return shlex.split(command)


async def _curl(client: httpx.AsyncClient, words: list[str]) -> httpx.Response:
    """What `curl` with these words would ask."""
    assert words.pop(0) == "curl"
    method, url, headers, body = None, "", {}, None
    while words:
        word = words.pop(0)
        if word == "-X":
            method = words.pop(0)
        elif word == "-H":
            name, _, value = words.pop(0).partition(": ")
            headers[name] = value
        elif word == "-d":
            body = words.pop(0)
        elif word not in ("-s", "-i"):
            url = word
    return await client.request(method or ("GET" if body is None else "POST"), url, headers=headers, content=body)
