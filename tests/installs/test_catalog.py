"""What plugins there are: schemas and metadata."""

from __future__ import annotations

import httpx

from tests.conftest import Driver
from tests.support.problems import problem


async def test_config_schemas(driver: Driver) -> None:
    schemas = (await driver.http.get("/api/internal/plugin-schemas")).json()
    assert {"randomness", "github", "sourcecred", "probe"} <= set(schemas)
    assert schemas["randomness"]["required"] == ["default_low", "default_high"]
    assert schemas["randomness"]["properties"]["default_low"]["type"] == "integer"


async def test_metadata(driver: Driver) -> None:
    shown = (await driver.http.get("/api/internal/plugin/randomness/metadata")).json()
    assert (shown["name"], shown["auth_type"], shown["uses_webhook"]) == ("randomness", "none", False)
    assert set(shown["schemas"]) == {"config", "actions", "events", "processes"}
    roll = next(action for action in shown["schemas"]["actions"] if action["id"] == "random-int")
    assert set(roll) == {"id", "description", "parameters_schema", "response_schema"}
    assert set(roll["parameters_schema"]["properties"]) == {"low", "high"}
    assert set(roll["response_schema"]["properties"]) == {"value"}
    assert [process["id"] for process in shown["schemas"]["processes"]] == ["delayed-stochastic-vote"]
    probe = (await driver.http.get("/api/internal/plugin/probe/metadata")).json()
    assert (probe["auth_type"], probe["uses_webhook"]) == ("api_key", True)
    assert [event["id"] for event in probe["schemas"]["events"]] == ["poked"]


async def test_needs_a_key_and_a_known_plugin(driver: Driver, anonymous: httpx.AsyncClient) -> None:
    problem(await driver.http.get("/api/internal/plugin/nonesuch/metadata"), 404)
    problem(await anonymous.get("/api/internal/plugin/randomness/metadata"), 401)
    problem(await anonymous.get("/api/internal/plugin-schemas"), 401)
