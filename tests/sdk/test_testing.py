"""metagov_sdk.testing: it does what the gateway does, and objects to what the gateway would not take."""

from __future__ import annotations

from datetime import timedelta

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import ValidationError

from metagov_sdk import (
    Completed,
    Failed,
    Headers,
    Pending,
    Received,
    Rejected,
    Signal,
    Verifier,
    Wake,
    config,
    ed25519,
    hmac_sha256,
    slack_v0,
    standard_webhooks,
)
from metagov_sdk.testing import (
    NOW,
    ContractError,
    bind,
    close,
    fold,
    hook_request,
    perform,
    receive,
    run_poll,
    sign_ed25519,
    sign_hmac_sha256,
    sign_slack_v0,
    sign_standard_webhooks,
    start_process,
)
from tests.sdk.club import OWN, Ballots, Club, ClubState, Tally, Vote, manifest, signed

# bind and perform


async def test_an_action_is_checked_run_and_committed() -> None:
    ran = await perform(manifest, "greet", {"name": "ada"}, state={"members": 2}, community="town")
    assert ran.result == {"text": "town: ada", "at": "2026-01-02T03:04:05Z", "members": 2}
    assert ran.state.model_dump() == {"members": 5, "odd": None}
    assert ran.wire_events == [
        {
            "event_type": "joined",
            "data": {"name": "ada", "weight": 1},
            "initiator": {"user_id": "u1", "provider": "club", "is_metagov_bot": False},
        }
    ]
    assert ran.events[0].key == "k"


async def test_parameters_are_checked_as_the_gateway_does() -> None:
    for params in (None, {}, {"name": ""}, {"name": "a", "more": 1}):
        with pytest.raises(ValidationError):
            await perform(manifest, "greet", params)


async def test_an_unknown_action_is_named_with_those_there_are() -> None:
    with pytest.raises(LookupError, match=r"no action 'shout'; it has \['fetch', 'greet', 'misbehave'\]"):
        await perform(manifest, "shout", {})


async def test_the_transport_answers_below_the_base_url() -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, text="hi"))
    ran = await perform(manifest, "fetch", {"name": "a b"}, transport=transport, idempotency_key="once")
    assert ran.result == {"url": "https://club.example/api/members?name=a+b", "text": "hi", "key": "once"}


async def test_without_a_transport_nothing_leaves_the_test() -> None:
    with pytest.raises(ContractError, match=r"GET https://club\.example/api/members\?name=a.*transport=httpx"):
        await perform(manifest, "fetch", {"name": "a"})


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("result", "does not fit its return annotation"),
        ("change", "a change of the state returned NoneType"),
        ("state", "not the same after being kept as JSON"),
        ("event", "event joined: its data holds Infinity"),
        ("signal", "addressed to the process 'nowhere'"),
    ],
)
async def test_what_the_gateway_would_not_take_is_objected_to(rule: str, words: str) -> None:
    with pytest.raises(ContractError, match=words):
        await perform(manifest, "misbehave", {"name": rule})


def test_config_and_settings_are_checked_and_the_platform_id_follows_from_the_config() -> None:
    plugin = bind(Club, config={"club": "c1", "secret": "s"}, settings={"secret": "t"}, now=NOW + timedelta(days=1))
    assert (plugin.community_platform_id, plugin.now) == ("c1", NOW + timedelta(days=1))
    assert plugin.hook_url.endswith("/api/hooks/test-community/club")
    assert bind(Club, config={"club": "c1"}, community_platform_id="c2").community_platform_id == "c2"
    with pytest.raises(ValidationError):
        bind(manifest, config={"clubb": "c1"})


# receive


async def test_a_signed_webhook_is_handled_and_its_repeat_dropped() -> None:
    seen: set[str] = set()
    first = await receive(manifest, signed({"club": "c1", "name": "ada"}), config=OWN, seen=seen)
    again = await receive(manifest, signed({"club": "c1", "name": "ada"}), config=OWN, seen=seen)
    assert (first.verified, first.reply.status, first.key, first.handled) == (True, 202, "1", True)
    assert [event["data"]["name"] for event in first.wire_events] == ["ada"]
    assert first.signals == [Signal("vote", "k", "ballot", {"name": "ada"})]
    assert (again.verified, again.reply.status, again.handled, again.events) == (True, 200, False, [])


async def test_an_empty_delivery_id_is_none() -> None:
    got = await receive(manifest, signed({"club": "c1", "name": "ada"}, id=""), config=OWN, seen={""})
    assert (got.key, got.handled) == (None, True)


async def test_a_reply_that_is_not_stored_ends_it() -> None:
    got = await receive(manifest, signed({}), config={"secret": "own"})
    assert (got.verified, got.reply.body, got.handled) == (True, b"pong", False)


@pytest.mark.parametrize(
    ("payload", "secret", "config", "shared", "verified"),
    [
        ({"club": "c1"}, "own", OWN, False, True),
        ({"club": "c1"}, "own", OWN, True, True),
        ({"club": "c1"}, "theirs", OWN, False, False),
        ({"club": "c2"}, "own", OWN, False, False),
        ({"club": "c1"}, "all", {"club": "c1"}, False, True),
        ({"club": "c1"}, "all", OWN, False, False),
        ({"club": "c2"}, "theirs", {"club": "c1"}, True, False),
        ({"name": "a"}, "own", {"secret": "own"}, False, True),
        ({"name": "a"}, "own", {"secret": "own"}, True, False),
        ({"name": "a"}, "all", {}, False, False),
        ({"name": "a"}, "own", OWN, False, False),
    ],
)
async def test_a_webhook_is_believed_from_the_right_sender_for_the_right_instance(
    payload: dict[str, str], secret: str, config: dict[str, str], shared: bool, verified: bool
) -> None:
    request = signed({"name": "a", **payload}, secret=secret)
    got = await receive(manifest, request, config=config, settings={"secret": "all"}, shared=shared)
    assert (got.verified, got.handled) == (verified, verified)
    assert got.reply.status == (202 if verified else 401)


async def test_on_the_shared_url_the_operators_webhooks_are_answered_though_they_are_for_nobody() -> None:
    settings = {"secret": "all"}
    stranger = await receive(
        manifest, signed({"club": "c2", "name": "a"}, secret="all"), settings=settings, shared=True
    )
    assert (stranger.verified, stranger.handled, stranger.reply.status) == (False, False, 200)
    ping = await receive(manifest, signed({}, secret="all"), settings=settings, shared=True)
    assert (ping.handled, ping.reply.body) == (False, b"pong")


async def test_a_hook_that_is_not_shared_has_no_shared_url() -> None:
    with pytest.raises(LookupError, match="is not shared"):
        await receive(manifest, hook_request(b"members", hook="hints"), shared=True)


async def test_bytes_that_cannot_be_read_are_answered_400() -> None:
    got = await receive(manifest, hook_request(b"["), config=OWN)
    assert (got.reply.status, got.verified) == (400, False)


async def test_what_the_handler_raises_reaches_the_test() -> None:
    with pytest.raises(Rejected, match="nobody"):
        await receive(manifest, signed({"club": "c1", "name": "nobody"}), config=OWN)


async def test_an_unsigned_hook_wakes_and_cannot_emit() -> None:
    got = await receive(manifest, hook_request(b"members", hook="hints"))
    assert (got.wakes, got.verified, got.events) == ((Wake(poll="members"),), False, [])
    with pytest.raises(RuntimeError, match="may only wake"):
        await receive(manifest, hook_request(b"emit", hook="hints"))
    with pytest.raises(ContractError, match="names the poll 'elsewhere'"):
        await receive(manifest, hook_request(b"elsewhere", hook="hints"))


async def test_a_poll_goes_on_from_its_cursor() -> None:
    first = await run_poll(manifest, "members")
    second = await run_poll(manifest, "members", first.cursor)
    assert (first.cursor, second.cursor) == (2, 4)
    assert [event["data"]["name"] for event in first.wire_events + second.wire_events] == ["m0", "m1", "m2", "m3"]


# processes


async def test_a_process_lives_from_start_to_outcome() -> None:
    vote = await start_process(manifest, "vote", {"text": "Lunch?"}, id="prc_9")
    assert (vote.status, vote.key, vote.url) == ("pending", "k", "https://club.example/1")
    assert vote.instance_state == ClubState(members=9)
    vote.signal("ballot", {"name": "ada"})
    vote.signal("ballot", {"name": "bob"})
    assert vote.outcome == {"yes": 2}
    assert vote.state.said == {"ada": "1", "bob": "2"}
    vote.close()
    vote.signal("ballot", {"name": "late"})
    assert (vote.status, vote.outcome, vote.errors) == ("completed", {"yes": 2}, {})
    with pytest.raises(ValueError, match="completed already"):
        vote.close()


async def test_timers_fire_when_they_are_due() -> None:
    vote = await start_process(manifest, "vote")
    vote.advance(NOW + timedelta(minutes=29))
    assert vote.state.shown == 0
    vote.advance(NOW + timedelta(minutes=30))
    assert (vote.state.shown, vote.wake_at, vote.status) == (1, None, "pending")
    vote.advance(NOW + timedelta(hours=1))
    assert (vote.status, vote.outcome) == ("completed", {"yes": 0})


async def test_a_start_may_fail_and_a_close_too() -> None:
    refused = await start_process(manifest, "vote", {"text": "refuse"})
    assert (refused.status, refused.errors) == ("completed", {"refused": "no"})
    vote = await start_process(manifest, "vote")
    vote.close("disabled")
    assert (vote.status, vote.errors, vote.outcome) == ("completed", {"closed": "disabled"}, None)


async def test_a_process_that_no_driver_closes() -> None:
    fixed = await start_process(manifest, "fixed")
    with pytest.raises(ValueError, match="closable = False"):
        fixed.close()
    fixed.close("deleted")
    assert fixed.status == "completed"


async def test_a_step_that_is_not_pure_is_objected_to() -> None:
    vote = await start_process(manifest, "vote")
    with pytest.raises(ContractError, match="two different steps"):
        vote.signal("clock")


async def test_effects_are_performed_unless_they_have_expired() -> None:
    Vote.done.clear()
    vote = await start_process(manifest, "vote", id="prc_e")
    vote.signal("tell")
    vote.advance(NOW + timedelta(minutes=6))
    await vote.perform_effects()
    await vote.perform_effects()
    assert Vote.done == [("key_test", "later")]
    with pytest.raises(ContractError, match=r"Do\('tel'\)"):
        vote.signal("typo")


async def test_rendering_and_observing() -> None:
    Vote.done.clear()
    vote = await start_process(manifest, "vote", id="prc_r")
    await vote.observe()
    assert vote.outcome is None
    await vote.observe(final=True)
    await vote.render()
    assert vote.outcome == {"yes": 1}
    assert Vote.done == [("prc_r", "1 pending")]


async def test_an_observation_addressed_elsewhere_is_objected_to() -> None:
    vote = await start_process(manifest, "vote", config={"club": "elsewhere"})
    with pytest.raises(ContractError, match="observe addressed its signal"):
        await vote.observe()


async def test_an_unknown_process_is_named_with_those_there_are() -> None:
    with pytest.raises(LookupError, match=r"no process 'poll'; it has \['fixed', 'vote'\]"):
        await start_process(manifest, "poll")


def test_fold_stops_at_the_end() -> None:
    ballots = [Signal("vote", "k", kind, {"name": kind}) for kind in ("ballot", "end", "ballot")]
    assert fold(Vote, Ballots(), *ballots) == Completed(Tally(yes=1))
    assert fold(Vote, Ballots()) == Pending(Ballots())
    received = Received("ballot", {"name": "a"}, 7, NOW)
    assert fold(Vote, Ballots(), received) == Pending(Ballots(said={"a": "7"}), outcome=Tally(yes=1))


def test_close_is_one_pure_step() -> None:
    assert close(Vote, Ballots(said={"a": "1"})) == Completed(Tally(yes=1))
    assert close(Vote, Ballots(), "disabled") == Failed({"closed": "disabled"})


# signing


_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))


@pytest.mark.parametrize(
    ("verifier", "secret", "headers"),
    [
        (hmac_sha256(config("s")), "s3cret", sign_hmac_sha256("s3cret", b"body")),
        (
            hmac_sha256(config("s"), header="X-Discourse-Event-Signature"),
            "s3cret",
            sign_hmac_sha256("s3cret", b"body", header="X-Discourse-Event-Signature"),
        ),
        (slack_v0(config("s")), "s3cret", sign_slack_v0("s3cret", b"body")),
        (
            ed25519(config("s")),
            _KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex(),
            sign_ed25519(_KEY, b"body"),
        ),
        (standard_webhooks(config("s")), "whsec_c2VjcmV0", sign_standard_webhooks("whsec_c2VjcmV0", b"body")),
    ],
    ids=["github", "discourse", "slack", "ed25519", "standard"],
)
def test_signatures_are_those_that_the_verifiers_take(verifier: Verifier, secret: str, headers: dict[str, str]) -> None:
    assert verifier(secret, Headers(headers.items()), b"body", NOW.timestamp())
    assert not verifier(secret, Headers(headers.items()), b"bodi", NOW.timestamp())
