"""API keys: how they are sent, checked, given out and revoked."""

from __future__ import annotations

import base64

import httpx
import pytest
from fastapi import FastAPI

from app.accounts import service
from app.accounts.auth import api_key_of
from app.core.errors import Conflict, Invalid, NotFound
from app.gateway import Gateway
from tests.conftest import Driver
from tests.support.problems import problem

PATH = "/api/internal/community"


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_where_the_key_is_found() -> None:
    key = "mgk_abc"
    for header in (
        f"Bearer {key}",
        f"bearer  {key} ",
        basic("x", key),
        basic(key, ""),
        basic(key, "x"),
        basic("", key),
        basic(key, key),
    ):
        assert api_key_of(header) == key
    assert api_key_of(basic("own-key", "")) == "own-key"
    assert api_key_of(basic("x", "a:b")) == "a:b"


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic", "Basic !!", "Basic /w==", "Digest x", "mgk_abc"]
)
def test_where_there_is_none(header: str | None) -> None:
    assert api_key_of(header) == ""


async def test_bearer_and_basic(driver: Driver, anonymous: httpx.AsyncClient) -> None:
    for header in (f"Bearer {driver.api_key}", basic("x", driver.api_key), basic(driver.api_key, "")):
        assert (await anonymous.get(PATH, headers={"Authorization": header})).status_code == 200
    assert (await anonymous.get(f"http://x:{driver.api_key}@gateway.test{PATH}")).status_code == 200
    assert (await anonymous.get(f"http://{driver.api_key}:@gateway.test{PATH}")).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer mgk_wrong"},
        {"Authorization": "Basic %%%"},
        {"Authorization": basic("x", "mgk_wrong")},
        {"Authorization": "Bearer \u00e9\u00ff".encode("latin-1")},
        {"Authorization": "Bearer " + "x" * 5000},
    ],
)
async def test_no_key_or_a_wrong_one_is_401(anonymous: httpx.AsyncClient, headers: dict[str, str]) -> None:
    for method, path in (
        ("GET", PATH),
        ("PUT", f"{PATH}/town"),
        ("GET", "/api/internal/plugin"),
        ("POST", "/api/internal/action/probe.count"),
        ("POST", "/api/action/probe.count"),
        ("POST", "/api/internal/process/probe.vote"),
        ("GET", "/api/internal/process"),
        ("GET", "/api/internal/receipts"),
        ("GET", "/api/internal/receipts/x"),
        ("GET", "/api/internal/events"),
        ("GET", "/api/internal/driver/endpoints"),
        ("GET", "/api/internal/plugin-schemas"),
    ):
        answer = await anonymous.request(method, path, headers=headers, json={} if method != "GET" else None)
        problem(answer, 401)
        assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_revoked_key_is_dead_at_once_and_others_live(
    driver: Driver, gateway: Gateway, anonymous: httpx.AsyncClient
) -> None:
    async with gateway.db.begin() as session:
        second = await service.add_key(session, driver.id)
        first = (await service.list_keys(session, driver.id))[0]
        await service.revoke_key(session, driver.id, first.id)
    problem(await driver.http.get(PATH), 401)
    assert (await anonymous.get(PATH, headers={"Authorization": f"Bearer {second}"})).status_code == 200
    async with gateway.db.begin() as session:
        with pytest.raises(NotFound):
            await service.revoke_key(session, driver.id, first.id)
        with pytest.raises(NotFound):
            await service.revoke_key(session, "drv_other", first.id)


async def test_a_key_belongs_to_one_driver(driver: Driver, other_driver: Driver, gateway: Gateway) -> None:
    async with gateway.db.begin() as session:
        with pytest.raises(Conflict):
            await service.add_key(session, other_driver.id, driver.api_key)


@pytest.mark.parametrize("name", ["", "  ", "a\0b", "x" * 201])
async def test_driver_names(gateway: Gateway, name: str) -> None:
    with pytest.raises(Invalid):
        async with gateway.db.begin() as session:
            await service.create_driver(session, gateway.vault, name)


async def test_driver_names_are_unique(gateway: Gateway, driver: Driver) -> None:
    with pytest.raises(Conflict):
        async with gateway.db.begin() as session:
            await service.create_driver(session, gateway.vault, "one")


@pytest.mark.parametrize("key", ["dev", "secret", "a longer key of the operator's own"])
async def test_no_key_can_be_read_from_its_hint(gateway: Gateway, driver: Driver, key: str) -> None:
    async with gateway.db.begin() as session:
        await service.add_key(session, driver.id, key)
        hint = (await service.list_keys(session, driver.id))[-1].hint
    assert key.startswith(hint)
    assert len(hint) <= len(key) / 4


async def test_redirect_uris(gateway: Gateway, driver: Driver) -> None:
    async with gateway.db.begin() as session:
        await service.add_redirect(session, driver.id, "https://driver.example/done")
        await service.add_redirect(session, driver.id, "https://driver.example/done")
        assert await service.list_redirects(session, driver.id) == ["https://driver.example/done"]
        for uri in ("javascript:alert(1)", "/done", "https://driver.example/#x", "https://x/" + "y" * 2000):
            with pytest.raises(Invalid):
                await service.add_redirect(session, driver.id, uri)
        await service.remove_redirect(session, driver.id, "https://driver.example/done")
        with pytest.raises(NotFound):
            await service.remove_redirect(session, driver.id, "https://driver.example/done")


async def test_open_routes_need_no_key(anonymous: httpx.AsyncClient, app: FastAPI) -> None:
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
        assert (await anonymous.get(path)).status_code == 200, path
