"""Discord's signatures, cross-checked with PyNaCl and with Discord's own `discord-interactions` for Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, get_args

import nacl.exceptions
import nacl.signing
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from metagov_sdk import Headers
from metagov_sdk.testing import hook_request, receive
from plugins.discord import manifest
from tests.fakes.discord import FakeDiscord
from tests.fakes.discord_interactions import Spoilt
from tests.fakes.discord_world import Guild

NODE = Path(__file__).parents[2] / "node"
PACKAGE = NODE / "node_modules" / "discord-interactions"

CHECK = """
const { verifyKey } = require(process.argv[1]);
let text = '';
process.stdin.on('data', chunk => text += chunk).on('end', async () => {
  const cases = JSON.parse(text);
  const verdicts = [];
  for (const each of cases) {
    verdicts.push(await verifyKey(Buffer.from(each.body, 'hex'), each.signature, each.timestamp, each.key));
  }
  process.stdout.write(JSON.stringify(verdicts));
});
"""


def cases(discord: FakeDiscord) -> list[tuple[bool, bytes, dict[str, str]]]:
    """(whether it is genuine, body, headers), with bodies that are awkward to sign and to read."""
    made: list[tuple[bool, bytes, dict[str, str]]] = []
    bodies = [b'{"type":1}', '{"type":1,"x":"ключ 🗝"}'.encode(), b"", b"\xff\x00\r\n", b" " * 5000]
    for body in bodies:
        made.append((True, *discord.interactions.sign(body)))
        for spoilt in get_args(Spoilt):
            if spoilt != "missing":
                made.append((False, *discord.interactions.sign(body, spoilt)))
    return made


def verdict(key: str, body: bytes, headers: dict[str, str]) -> bool:
    (hook,) = manifest.webhooks.values()
    return hook.verify(key, Headers(headers.items()), body, 0.0)  # type: ignore[operator]


def test_the_fake_itself_signs_what_pynacl_verifies(discord: FakeDiscord) -> None:
    key = nacl.signing.VerifyKey(bytes.fromhex(discord.interactions.public_key))
    for genuine, body, headers in cases(discord):
        signed = headers["X-Signature-Timestamp"].encode() + body
        try:
            key.verify(signed, bytes.fromhex(headers["X-Signature-Ed25519"]))
            believed = True
        except nacl.exceptions.BadSignatureError:
            believed = False
        assert believed is genuine
        assert verdict(discord.interactions.public_key, body, headers) is genuine


def test_what_pynacl_signs_is_genuine() -> None:
    key = nacl.signing.SigningKey.generate()
    body, sent_at = b'{"type":1}', "1753000000"
    headers = {
        "X-Signature-Ed25519": key.sign(sent_at.encode() + body).signature.hex(),
        "X-Signature-Timestamp": sent_at,
    }
    assert verdict(key.verify_key.encode().hex(), body, headers)
    assert not verdict(nacl.signing.SigningKey.generate().verify_key.encode().hex(), body, headers)


def test_discords_own_package_for_node_agrees(discord: FakeDiscord) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    if not PACKAGE.exists():
        pytest.skip("discord-interactions is not installed in tests/node: run `make install`")
    made = cases(discord)
    asked = [
        {
            "body": body.hex(),
            "signature": headers["X-Signature-Ed25519"],
            "timestamp": headers["X-Signature-Timestamp"],
            "key": discord.interactions.public_key,
        }
        for _, body, headers in made
    ]
    ran = subprocess.run(
        [node, "-e", CHECK, str(PACKAGE)],
        input=json.dumps(asked).encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr.decode()[-2000:]
    verdicts = json.loads(ran.stdout)
    ours = [verdict(discord.interactions.public_key, body, headers) for _, body, headers in made]
    assert verdicts == [genuine for genuine, _, _ in made] == ours


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("spoilt", get_args(Spoilt))
async def test_a_forged_interaction_is_refused(
    discord: FakeDiscord, town: Guild, spoilt: Spoilt, shared: bool, binding: Any
) -> None:
    channel = next(iter(town.channels.values()))
    command = discord.interactions.command(town, channel, discord.add_member(town, "eve"), "take")
    body, headers = discord.interactions.sign(command.body, spoilt)
    got = await receive(manifest, hook_request(body, headers), shared=shared, **binding)
    assert (got.verified, got.handled, got.reply.status) == (False, False, 401)
    assert discord.requests == []


async def test_a_communitys_own_key_is_the_only_one_for_it(discord: FakeDiscord, town: Guild, binding: Any) -> None:
    own = Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
    binding["config"] = {**binding["config"], "public_key": own, "bot_token": "own"}
    body, headers = discord.interactions.sign(discord.interactions.ping().body)
    got = await receive(manifest, hook_request(body, headers), **binding)
    assert (got.verified, got.reply.status) == (False, 401), "signed by the deployment's app, not by the community's"


async def test_without_any_key_nothing_is_genuine(discord: FakeDiscord, binding: Any) -> None:
    del binding["settings"]["public_key"]
    body, headers = discord.interactions.sign(discord.interactions.ping().body)
    got = await receive(manifest, hook_request(body, headers), shared=True, **binding)
    assert got.reply.status == 401
