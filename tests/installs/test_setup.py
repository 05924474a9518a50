"""When plugins' `setup` and `teardown` are called, and what a failing one leaves behind: nothing."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app.gateway import Gateway
from metagov_sdk import Rejected, Retry, Unauthorized
from tests.conftest import Driver
from tests.support import probe as plugin
from tests.support.probe import BEHAVIOUR, LOG, Probe, ProbeConfig
from tests.support.problems import problem

HEADER = {"X-Metagov-Community": "town"}


def team(label: str) -> dict[str, Any]:
    return {"name": "probe", "config": {"label": label, "team": f"T-{label}", "webhook_secret": f"secret {label}"}}


def plain(label: str, **config: Any) -> dict[str, Any]:
    return {"name": "probe", "config": {"label": label, **config}}


def said() -> list[str]:
    """What the plugin did since this was last asked."""
    lines = LOG.copy()
    LOG.clear()
    return lines


@pytest.fixture
def picky(monkeypatch: pytest.MonkeyPatch) -> None:
    """`setup` of a config labelled "bad" fails."""
    good = Probe.setup

    async def setup(self: Probe, old_config: ProbeConfig | None = None) -> None:
        await good(self, old_config)
        if self.config.label == "bad":
            raise Rejected("no such team")

    monkeypatch.setattr(Probe, "setup", setup)


async def test_setup_when_enabled_and_when_changed(driver: Driver) -> None:
    await driver.put(plugins=[plain("a")])
    assert said() == ["setup a after None"]
    await driver.put(plugins=[plain("a")])
    await driver.put(readable_name="Town")
    assert said() == [], "nothing changed"
    await driver.put(plugins=[plain("b")])
    assert said() == ["setup b after a"]
    await driver.post("plugin/probe", {"label": "c"})
    assert said() == ["setup c after b"]


async def test_teardown_when_disabled_or_removed(driver: Driver) -> None:
    (made,) = (await driver.put(plugins=[plain("a")])).json()["plugins"]
    path = f"/api/internal/plugin/probe/{made['id']}"
    said()
    await driver.put(plugins=[])
    assert said() == ["teardown a"]
    await driver.put(plugins=[])
    assert said() == [], "it was down already"
    await driver.http.patch(path, json={"enabled": True}, headers=HEADER)
    assert said() == ["setup a after None"], "nothing of it is on the platform any more"
    await driver.http.patch(path, json={"enabled": True}, headers=HEADER)
    assert said() == []
    await driver.http.patch(path, json={"enabled": False}, headers=HEADER)
    assert said() == ["teardown a"]
    await driver.http.patch(path, json={"enabled": False}, headers=HEADER)
    assert said() == []
    await driver.http.patch(path, json={"config": {"label": "b"}}, headers=HEADER)
    assert said() == [], "a disabled instance is only configured"
    await driver.http.patch(path, json={"config": {"label": "c"}, "enabled": True}, headers=HEADER)
    assert said() == ["setup c after None"]
    await driver.http.patch(path, json={"config": {"label": "d"}, "enabled": False}, headers=HEADER)
    assert said() == ["teardown c"], "as it was set up"
    await driver.http.delete(path, headers=HEADER)
    assert said() == []


async def test_teardown_with_its_community(driver: Driver) -> None:
    await driver.put(plugins=[team("a"), team("b")])
    await driver.put(plugins=[team("a")])
    assert sorted(said()) == ["setup a after None", "setup b after None", "teardown b"]
    await driver.http.delete("/api/internal/community/town")
    assert said() == ["teardown a"]


async def test_removing_goes_on_when_teardown_fails(driver: Driver) -> None:
    (made,) = (await driver.put(plugins=[plain("a")])).json()["plugins"]
    BEHAVIOUR["teardown"] = ZeroDivisionError("a bug")
    gone = await driver.http.delete(f"/api/internal/plugin/probe/{made['id']}", headers=HEADER)
    assert gone.status_code == 204
    assert (await driver.get("plugin")).json()["plugins"] == []


async def test_what_can_no_longer_be_read_can_still_be_removed(driver: Driver, gateway: Gateway) -> None:
    (made,) = (await driver.put(plugins=[plain("a")])).json()["plugins"]
    await gateway.db.pool.execute("UPDATE instances SET config_version = 99")
    path = f"/api/internal/plugin/probe/{made['id']}"
    problem(await driver.act("probe.read"), 409, "parked")
    problem(await driver.http.patch(path, json={"config": {"label": "b"}}, headers=HEADER), 409, "parked")
    assert (await driver.http.patch(path, json={"enabled": False}, headers=HEADER)).status_code == 200
    assert (await driver.http.delete(path, headers=HEADER)).status_code == 204
    await driver.put(plugins=[plain("a")])
    await gateway.db.pool.execute("UPDATE instances SET config_version = 99")
    assert (await driver.http.delete("/api/internal/community/town")).status_code == 204


@pytest.mark.parametrize(
    ("failure", "status", "slug"),
    [
        (Rejected("no such team"), 502, "rejected"),
        (Unauthorized("bad token"), 409, "needs_auth"),
        (Retry("busy", after=7), 503, ""),
        (ZeroDivisionError("a bug"), 502, "plugin-failed"),
        (httpx.ConnectError("refused"), 503, ""),
    ],
)
async def test_a_failing_setup_creates_nothing(driver: Driver, failure: Exception, status: int, slug: str) -> None:
    BEHAVIOUR["setup"] = failure
    answer = await driver.put(plugins=[plain("a")])
    problem(answer, status, slug)
    assert ("retry-after" in answer.headers) == (status == 503)
    problem(await driver.http.get("/api/internal/community/town"), 404)


async def test_a_failing_setup_leaves_everything_as_it_was(driver: Driver, picky: None) -> None:
    dice = {"name": "randomness", "config": {"default_low": 1, "default_high": 6}}
    await driver.put(readable_name="Town", plugins=[plain("a"), dice])
    await driver.act("probe.count")
    before = (await driver.http.get("/api/internal/community/town")).json()
    said()
    problem(await driver.put(readable_name="New", plugins=[plain("bad")]), 502, "rejected")
    assert said() == ["setup bad after a"], "what stays in use is not torn down"
    assert (await driver.http.get("/api/internal/community/town")).json() == before
    assert (await driver.act("probe.read")).json() == {"count": 1}
    problem(await driver.post("plugin/probe", {"label": "bad"}), 502)
    assert (await driver.http.get("/api/internal/community/town")).json() == before


async def test_what_was_set_up_before_the_failure_is_torn_down(driver: Driver, picky: None) -> None:
    await driver.put(plugins=[team("old")])
    said()
    problem(await driver.put(plugins=[team("old"), team("a"), team("b"), team("bad")]), 502)
    assert said() == [
        "setup a after None",
        "setup b after None",
        "setup bad after None",
        "teardown b",
        "teardown a",
    ]
    (kept,) = (await driver.get("plugin")).json()["plugins"]
    assert kept["community_platform_id"] == "T-old"


async def test_what_was_enabled_again_before_the_failure_is_torn_down(driver: Driver, picky: None) -> None:
    await driver.put(plugins=[team("a")])
    await driver.put(plugins=[])
    said()
    problem(await driver.put(plugins=[team("a"), team("bad")]), 502)
    assert said() == ["setup a after None", "setup bad after None", "teardown a"]


async def test_state_set_in_setup_is_kept(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    async def setup(self: Probe, old_config: ProbeConfig | None = None) -> None:
        self.change(lambda state: plugin.ProbeState(count=state.count + 10))

    monkeypatch.setattr(Probe, "setup", setup)
    await driver.put(plugins=[plain("a")])
    assert (await driver.act("probe.read")).json() == {"count": 10}
    await driver.put(plugins=[plain("b")])
    assert (await driver.act("probe.read")).json() == {"count": 20}


async def test_a_needs_auth_instance_works_again_with_new_credentials(driver: Driver) -> None:
    await driver.put(plugins=[plain("a", token="old")])
    BEHAVIOUR["action"] = Unauthorized("token revoked")
    problem(await driver.act("probe.count"), 409, "needs_auth")
    (shown,) = (await driver.get("plugin")).json()["plugins"]
    assert shown["status"] == "needs_auth"
    BEHAVIOUR.clear()
    problem(await driver.act("probe.read"), 409, "needs_auth")
    await driver.put(plugins=[plain("a", token="new")])
    assert (await driver.act("probe.read")).status_code == 200
