"""Run a plugin's code in a test as the gateway would: no database, no server, no network.

    ran = await perform(manifest, "random-int", {"low": 1, "high": 6}, config={"default_low": 0, "default_high": 9})
    assert 1 <= ran.result["value"] <= 6

    got = await receive(manifest, hook_request(body, sign_hmac_sha256("secret", body)), config={…})
    assert got.events[0].event.wire_type() == "issues.opened"

    vote = await start_process(manifest, "vote", {"title": "Lunch?"}, config={…})
    vote.signal("ballot", {"voter": "u1", "choice": "yes"})
    vote.close()
    assert vote.outcome == {…}

    archive = ArchiveInMemory({"discord.message": [{"id": "1", "channel_id": "7"}]})
    assert [row.id async for row in archive.rows(Message)] == ["1"]

    built = await build_graph_of(manifest, archive, config={…})
    assert built.graph.edge_count == 1

What the gateway would refuse (an impure fold, a state that JSON cannot keep, a result of another type than declared)
raises ContractError, and `check_manifest` holds a whole plugin to the rules that every plugin keeps.
"""

from metagov_sdk.testing.archives import ArchiveInMemory
from metagov_sdk.testing.binding import NOW, Binding, ContractError, bind, bind_oauth
from metagov_sdk.testing.calls import HookResult, Polled, Ran, perform, receive, run_poll
from metagov_sdk.testing.contract import check_manifest
from metagov_sdk.testing.graphs import build_graph_of
from metagov_sdk.testing.mirrors import MirrorInMemory, read_mirror
from metagov_sdk.testing.processes import ProcessesInMemory, RunningProcess, close, fold, start_process
from metagov_sdk.testing.requests import (
    hook_request,
    sign_ed25519,
    sign_hmac_sha256,
    sign_slack_v0,
    sign_standard_webhooks,
)

__all__ = [
    "NOW",
    "ArchiveInMemory",
    "Binding",
    "ContractError",
    "HookResult",
    "MirrorInMemory",
    "Polled",
    "ProcessesInMemory",
    "Ran",
    "RunningProcess",
    "bind",
    "bind_oauth",
    "build_graph_of",
    "check_manifest",
    "close",
    "fold",
    "hook_request",
    "perform",
    "read_mirror",
    "receive",
    "run_poll",
    "sign_ed25519",
    "sign_hmac_sha256",
    "sign_slack_v0",
    "sign_standard_webhooks",
    "start_process",
]
