"""A driver written for the old gateway's documentation, its base URL given a key, and nothing else changed."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.support.servers import Server
from tests.support.sink import Sink


@pytest.fixture(params=["key as password", "key as user name"])
def base_url(request: pytest.FixtureRequest, server: Server) -> str:
    """The address with the key in it, the only thing such a driver can be told."""
    user = f"x:{server.api_key}" if request.param == "key as password" else f"{server.api_key}:"
    return server.url.replace("http://", f"http://{user}@")


def test_the_documented_calls(base_url: str, server: Server) -> None:
    """As its page "for developers" shows them: create, list hooks, act, start, poll."""
    slug = f"my-community-{'p' if 'x:' in base_url else 'u'}"
    community = {
        "name": slug,
        "readable_name": "My community",
        "plugins": [{"name": "randomness", "config": {"default_low": 2, "default_high": 42}}],
    }
    header = {"X-Metagov-Community": slug}
    with httpx.Client(trust_env=False, timeout=20) as http:
        created = http.put(f"{base_url}/api/internal/community/{slug}", json=community)
        assert created.is_success
        assert http.put(f"{base_url}/api/internal/community/{slug}", json=community).status_code == 200
        hooks = http.get(f"{base_url}/api/internal/community/{slug}/hooks").json()
        assert hooks == {"hooks": []}
        for path in ("api/internal/action", "api/action"):
            rolled = http.post(
                f"{base_url}/{path}/randomness.random-int", json={"parameters": {"low": 2, "high": 5}}, headers=header
            )
            assert rolled.status_code == 200
            assert 2 <= rolled.json()["value"] <= 5
        started = http.post(
            f"{base_url}/api/internal/process/randomness.delayed-stochastic-vote",
            json={"options": ["one", "two", "three"], "delay": 0},
            headers=header,
        )
        assert started.status_code == 202
        result = http.get(f"{base_url}{started.headers['location']}", headers=header)
        assert result.status_code == 200
        assert result.json()["status"] == "completed"
        assert result.json()["outcome"]["winner"] in {"one", "two", "three"}
        assert "plugins" in http.get(f"{base_url}/api/internal/community/{slug}").json()
        assert "randomness" in http.get(f"{base_url}/api/internal/plugin-schemas").json()
        assert http.get(f"{base_url}/api/internal/plugin/randomness/metadata").json()["name"] == "randomness"


def test_identity_as_the_old_gateway_had_it(base_url: str) -> None:
    """Its calls, with the names and the query strings that its views read."""
    slug = f"people-{'p' if 'x:' in base_url else 'u'}"
    identity = f"{base_url}/api/internal/identity"
    with httpx.Client(trust_env=False, timeout=20) as http:
        plugins = [{"name": "randomness", "config": {"default_low": 1, "default_high": 2}}]
        http.put(f"{base_url}/api/internal/community/{slug}", json={"readable_name": "People", "plugins": plugins})
        created = http.post(f"{identity}/create_id", json={"community_slug": slug, "count": 3})
        assert created.status_code == 201
        first, second, third = created.json()
        assert len(http.post(f"{identity}/create_id", json={"community_slug": slug}).json()) == 1
        account = {
            "external_id": second,
            "community_slug": slug,
            "platform_type": "randomness",
            "platform_identifier": "alexmorgan",
            "community_platform_id": None,
            "custom_data": {"nickname": "Alex"},
            "link_type": "manual admin",
            "link_quality": "confirmed (weak)",
        }
        linked = http.post(f"{identity}/link_account", json=account)
        assert linked.status_code == 200
        assert linked.json() == {**account, "community": slug}
        merge = {"primary_instance_id": first, "secondary_instance_id": second}
        assert http.post(f"{identity}/merge_ids", json=merge).status_code == 200
        user = http.get(f"{identity}/get_user", params={"external_id": second}).json()
        held = {**linked.json(), "external_id": first}
        assert user == {"source_ID": second, "primary_ID": first, "linked_accounts": [held]}
        users = http.get(f"{identity}/get_users", params={"community": slug}).json()
        assert len(users) == 3
        query = {"community": slug, "platform_type": "randomness", "link_type": "manual admin"}
        found = http.get(f"{identity}/get_users", params=query).json()
        assert found == [{**user, "source_ID": first}]
        among = {"external_id_list": [second, third], **query}
        assert http.get(f"{identity}/filter_users_by_account", params=among).json() == [user]
        one = {"external_id": second, "platform_type": "randomness"}
        assert http.get(f"{identity}/get_linked_account", params=one).json() == held
        del account["external_id"]
        assert http.post(f"{identity}/unlink_account", json=account).status_code == 200
        assert http.get(f"{identity}/get_user", params={"external_id": second}).json()["linked_accounts"] == []


async def test_the_callback_gets_the_bare_process(base_url: str, server: Server, sink: Sink) -> None:
    slug = f"callbacks-{'p' if 'x:' in base_url else 'u'}"
    async with httpx.AsyncClient(trust_env=False, timeout=20) as http:
        body: dict[str, Any] = {
            "readable_name": "c",
            "plugins": [{"name": "randomness", "config": {"default_low": 1, "default_high": 2}}],
        }
        await http.put(f"{base_url}/api/internal/community/{slug}", json=body)
        started = await http.post(
            f"{base_url}/api/internal/process/randomness.delayed-stochastic-vote",
            json={"options": ["tea"], "delay": 0.005, "callback_url": f"{sink.url}/done"},
            headers={"X-Metagov-Community": slug},
        )
        assert (started.status_code, started.json()["status"]) == (202, "pending")
        posts = await sink.wait_for(1)
        process = posts[0].verify(server.signing_secret)
        assert process["id"] == started.json()["id"]
        assert (process["status"], process["outcome"]) == ("completed", {"winner": "tea"})
        polled = await http.get(f"{base_url}{started.headers['location']}", headers={"X-Metagov-Community": slug})
        assert polled.json() == process


async def test_without_its_key_it_is_told_so(server: Server) -> None:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        answers = await asyncio.gather(
            http.put("/api/internal/community/x", json={"name": "x", "readable_name": "x", "plugins": []}),
            http.get("/api/internal/community"),
        )
    assert [answer.status_code for answer in answers] == [401, 401]
