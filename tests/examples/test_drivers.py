"""The example drivers tell their story on a real gateway, and know a genuine callback from another."""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.docs.commands import program_names, run
from tests.docs.pages import ROOT
from tests.support.servers import Server

NODE = shutil.which("node")
PYTHON_DRIVER = (sys.executable, str(ROOT / "examples/python-driver/driver.py"))
NODE_DRIVER = (NODE or "node", str(ROOT / "examples/node-driver/driver.mjs"))

each_driver = pytest.mark.parametrize(
    "command",
    [
        pytest.param(PYTHON_DRIVER, id="python"),
        pytest.param(
            NODE_DRIVER, id="node", marks=pytest.mark.skipif(NODE is None, reason="node is not installed here")
        ),
    ],
)
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed here")


@each_driver
async def test_it_hears_the_winner(command: tuple[str, ...], server: Server, tmp_path: Path) -> None:
    done = await run(*command, cwd=tmp_path, variables=program_names(server))
    assert done.code == 0, done.output
    assert "callback received, signature verified: completed" in done.output
    assert any(f"the winner is {tree}" in done.output for tree in ("apple tree", "pear tree", "cherry tree"))


@each_driver
async def test_it_finds_the_gateway_of_its_folder(command: tuple[str, ...], server: Server, tmp_path: Path) -> None:
    (tmp_path / ".metagov").mkdir()
    kept = {"url": server.url, "api_key": server.api_key, "signing_secret": server.signing_secret}
    (tmp_path / ".metagov/dev.json").write_text(json.dumps(kept))
    done = await run(*command, cwd=tmp_path)
    assert done.code == 0, done.output


@each_driver
async def test_it_says_what_to_do(command: tuple[str, ...], server: Server, tmp_path: Path) -> None:
    without = await run(*command, cwd=tmp_path)
    assert (without.code, without.output.count("\n")) == (1, 1)
    assert "start `make run` and come back to its folder" in without.output
    wrong = await run(*command, cwd=tmp_path, variables={**program_names(server), "METAGOV_API_KEY": "mgk_wrong"})
    assert (wrong.code, wrong.output.count("\n")) == (1, 1)
    assert "401, this API key is unknown or revoked" in wrong.output
    away = await run(*command, cwd=tmp_path, variables={**program_names(server), "METAGOV_URL": "http://127.0.0.1:9"})
    assert (away.code, away.output.count("\n")) == (1, 1)
    assert "start it with `make run`" in away.output


@needs_node
async def test_the_node_verifier_takes_what_is_signed_and_nothing_else(tmp_path: Path) -> None:
    secret = "whsec_" + base64.b64encode(os.urandom(32)).decode()
    (tmp_path / "check.mjs").write_text(
        f"""
        import {{ createHmac }} from "node:crypto";
        import {{ verify }} from {json.dumps(str(ROOT / "examples/node-driver/verify.mjs"))};
        const secret = {json.dumps(secret)}, body = '{{"a":"é"}}', key = Buffer.from(secret.slice(6), "base64");
        const now = Math.floor(Date.now() / 1000);
        const signed = (at, id = "evt_1") => ({{
          "webhook-id": id, "webhook-timestamp": `${{at}}`,
          "webhook-signature":
            "v1,AAAA v1," + createHmac("sha256", key).update(`${{id}}.${{at}}.${{body}}`).digest("base64"),
        }});
        const refused = (...call) => {{ try {{ verify(...call); return false; }} catch {{ return true; }} }};
        console.log(JSON.stringify([
          verify(secret, signed(now), Buffer.from(body)).a,
          refused(secret, signed(now), Buffer.from(body + " ")),
          refused(secret, signed(now - 301), Buffer.from(body)),
          refused(secret, {{ ...signed(now), "webhook-id": "evt_2" }}, Buffer.from(body)),
          refused("whsec_" + Buffer.alloc(32).toString("base64"), signed(now), Buffer.from(body)),
          refused(secret, {{ ...signed(now), "webhook-signature": "v1," }}, Buffer.from(body)),
          refused(secret, {{}}, Buffer.from(body)),
        ]));
        """
    )
    done = await run(NODE_DRIVER[0], str(tmp_path / "check.mjs"))
    assert json.loads(done.output) == ["é", True, True, True, True, True, True]


def test_the_requirements_are_what_the_driver_imports() -> None:
    lines = (ROOT / "examples/python-driver/requirements.txt").read_text().splitlines()
    assert {line.split(">=")[0] for line in lines} == {"httpx", "standardwebhooks"}
