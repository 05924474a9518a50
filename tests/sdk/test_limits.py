"""What a plugin may say of limits, and what is read from headers that anybody may have written."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from metagov_sdk import (
    Config,
    HookRequest,
    Limit,
    Manifest,
    NoState,
    Plugin,
    Settings,
    Wait,
    bounded_seconds,
    hmac_sha256,
    retry_after,
    setting,
    unsigned,
    webhook,
)
from metagov_sdk.testing import bind, hook_request, receive, sign_hmac_sha256

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30", 30.0),
        ("0.65", 0.65),
        (" 7 ", 7.0),
        ("1e308", 86_400.0),
        ("999999999", 86_400.0),
        ("Fri, 02 Jan 2026 03:05:05 GMT", 60.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400.0),
        ("-5", None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("", None),
        ("9" * 10_000, None),
        ("\u0663", None),
        ("Fri, 99 Jan 2026 03:05:05 GMT", None),
        ("Fri, 02 Jan 0000 03:05:05 +9999", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_never_more_than_a_day(value: str, seconds: float | None) -> None:
    assert retry_after(httpx.Headers({"retry-after": value}, encoding="utf-8"), now=NOW) == seconds


def test_a_date_counts_from_the_answers_own() -> None:
    headers = {"Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT", "Date": "Wed, 21 Oct 2015 07:28:00 GMT"}
    assert retry_after(headers, now=NOW) == 30


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1.5", 1.5),
        (2, 2.0),
        (None, 0.0),
        ("x", 0.0),
        ("\u0663", 0.0),
        ("-1", 0.0),
        ("nan", 0.0),
        ("inf", 86_400.0),
        (10**400, 0.0),
    ],
)
def test_seconds_from_outside_are_bounded(value: Any, seconds: float) -> None:
    assert bounded_seconds(value) == seconds
    assert Wait("bucket", value).seconds == seconds


@pytest.mark.parametrize(
    "numbers",
    [
        {"rate": 0, "per": 1},
        {"rate": 1, "per": 0},
        {"rate": float("nan"), "per": 1},
        {"rate": 1, "per": float("inf")},
        {"rate": 1, "per": 1, "burst": 0},
        {"rate": 1, "per": 1, "cost": -1},
    ],
)
def test_numbers_that_are_no_pace_are_refused(numbers: Any) -> None:
    with pytest.raises(ValueError, match="a limit"):
        Limit("bucket", **numbers)


class ClubSettings(Settings):
    """The app's secret."""

    secret: SecretStr | None = None


class Club(Plugin[Config, NoState, ClubSettings]):
    """A club with limits."""

    name = "club"

    def limits(self, request: httpx.Request) -> list[Limit]:
        """One per path."""
        return (
            []
            if request.url.path == "/free"
            else [Limit(request.url.path, rate=1, per=1), Limit("all", rate=50, per=1)]
        )

    @webhook("gone", verify=hmac_sha256(setting("secret"), header="X-Hub-Signature-256"))
    async def gone(self, request: HookRequest) -> None:
        """The app was uninstalled."""
        self.disable("the app was uninstalled")

    @webhook("hint", verify=unsigned(reason="nobody signs"))
    def hint(self, request: HookRequest) -> list[Any]:
        """Anybody may say so."""
        self.disable("somebody says so")
        return []


manifest = Manifest(Club)


def test_by_default_a_retry_after_is_for_the_requests_first_bucket() -> None:
    club = bind(Club)

    def learn(path: str, status: int, headers: dict[str, str]) -> Any:
        request = httpx.Request("GET", f"https://club.example{path}")
        return club.learn(request, httpx.Response(status, headers=headers))

    assert learn("/a", 429, {"Retry-After": "3"}) == (Wait("/a", 3.0),)
    assert learn("/a", 503, {"Retry-After": "3"}) == (Wait("/a", 3.0),)
    assert learn("/a", 200, {"Retry-After": "3"}) == ()
    assert learn("/a", 429, {}) == ()
    assert learn("/free", 429, {"Retry-After": "3"}) == ()


def test_limits_belong_to_the_instance_unless_the_plugin_says_otherwise() -> None:
    assert bind(Club).limit_owner == "ins_test"


def test_disable_is_part_of_what_a_call_asks_for() -> None:
    club = bind(Club)
    assert not club.emitted
    club.disable("the app was uninstalled")
    assert club.emitted
    assert club.emitted.disabled == "the app was uninstalled"
    club.emitted.clear()
    assert not club.emitted


async def test_the_test_kit_shows_that_an_instance_is_taken_out_of_use() -> None:
    got = await receive(
        manifest, hook_request(b"{}", sign_hmac_sha256("s", b"{}"), hook="gone"), settings={"secret": "s"}
    )
    assert (got.handled, got.disabled) == (True, "the app was uninstalled")


async def test_what_anybody_can_post_disables_nothing() -> None:
    with pytest.raises(RuntimeError, match="can disable nothing"):
        await receive(manifest, hook_request(b"{}", hook="hint"))
