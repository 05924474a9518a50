"""The README's walk-through, copied line by line, works on a real gateway; its plugin is one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from metagov_sdk import Manifest
from metagov_sdk.testing import check_manifest, perform
from tests.docs.commands import run_shell, shell_names
from tests.docs.pages import README, ROOT, blocks, shell
from tests.support.servers import Server, free_port


def answers(output: str) -> list[Any]:
    """The JSON documents in what was printed, in order."""
    decoder, found, position = json.JSONDecoder(), [], 0
    while (start := output.find("{", position)) >= 0:
        try:
            value, position = decoder.raw_decode(output, start)
        except ValueError:
            position = start + 1
        else:
            found.append(value)
    return found


async def test_the_walk_through_works_line_by_line(server: Server) -> None:
    done = await run_shell(shell(README).replace("9000", str(free_port())), shell_names(server))

    assert done.code == 0, done.output
    headers = done.output.lower()
    assert "http/1.1 202 accepted" in headers
    community, rolled, started, finished, events = answers(done.output)
    assert community["slug"] == "riverside"
    # Other pages use the same community on this server; what they enabled is now disabled.
    assert [plugin["name"] for plugin in community["plugins"] if plugin["status"] == "enabled"] == ["randomness"]
    assert 1 <= rolled["value"] <= 6
    assert f"location: /api/internal/process/{started['name']}/{started['id']}\n" in headers.replace("\r", "")
    assert started["status"] == "pending"
    assert "✓ callback received, signature verified: completed" in done.output
    assert (finished["id"], finished["status"]) == (started["id"], "completed")
    assert finished["outcome"]["winner"] in ("apple tree", "pear tree")
    # The log shows an event once no older transaction is open anywhere on the server, so it may take a moment.
    assert {event["event_type"] for event in events["events"]} <= {"process.updated"}
    assert events["next"]


async def test_the_receiver_refuses_what_another_secret_signed(server: Server) -> None:
    port = str(free_port())
    script = (
        '.venv/bin/python examples/receive_callback.py "$PORT" & receiver=$!\n'
        'until curl -s -o /dev/null -w "%{http_code}" "http://127.0.0.1:$PORT/" -H "webhook-id: m" -d "{}"'
        ' -H "webhook-timestamp: $(date +%s)" -H "webhook-signature: v1,AAAA"; do sleep 0.1; done\n'
        "kill $receiver\n"
    )
    done = await run_shell(script, {"PORT": port, "SECRET": server.signing_secret})
    assert done.code == 0, done.output
    assert "401" in done.output
    assert "✗ refused" in done.output
    assert "verified" not in done.output


async def test_the_environment_is_that_of_the_gateway_in_this_folder(tmp_path: Path) -> None:
    (tmp_path / ".metagov").mkdir()
    kept = {"url": "http://127.0.0.1:1", "api_key": "mgk_x", "signing_secret": "whsec_x"}
    (tmp_path / ".metagov/dev.json").write_text(json.dumps(kept))
    script = f'. "{ROOT}/examples/env.sh"\necho "$URL $KEY $SECRET"\n'
    assert (await run_shell(script, cwd=tmp_path)).output == "http://127.0.0.1:1 mgk_x whsec_x\n"
    assert (await run_shell(script, {"KEY": "mgk_y"}, cwd=tmp_path)).output == "http://127.0.0.1:1 mgk_y whsec_x\n"


async def test_the_plugin_is_one_and_greets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "readme_greeter.py").write_text(next(blocks(README, "python")).text)
    monkeypatch.syspath_prepend(tmp_path)
    manifest = __import__("readme_greeter").manifest
    assert isinstance(manifest, Manifest)
    check_manifest(manifest)
    ran = await perform(manifest, "greet", {"name": "Ada"}, community="riverside")
    assert ran.result == {"text": "Hello Ada, from riverside!"}


def test_it_starts_with_the_two_commands() -> None:
    first = next(blocks(README))
    assert first.language == "console"
    assert [line.split("#")[0].strip() for line in first.text.splitlines()] == ["$ make run", "$ make test"]
