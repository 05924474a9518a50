"""What the OpenAPI document says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from app.host.discovery import discover
from tests.openapi.conftest import Document, describe
from tests.openapi.samples import town, with_plugins
from tests.openapi.twin import twin

MANIFESTS = [loaded.manifest for loaded in discover({}).loaded.values()]
OPEN = ("/api/hooks/", "/api/graphs/", "/auth/", "/healthz", "/readyz")


def operations(document: Document) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def resolve(document: Document, node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        found: Any = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        node = found
    return node


def answer(document: Document, path: str, method: str, status: str) -> dict[str, Any]:
    response = document["paths"][path][method]["responses"][status]
    return resolve(document, response["content"]["application/json"]["schema"])


def body(document: Document, path: str, method: str = "post") -> dict[str, Any]:
    schema = document["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"]
    return resolve(document, schema)


def parameters(document: Document, operation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = [resolve(document, parameter) for parameter in operation.get("parameters", [])]
    return {parameter["name"]: parameter for parameter in found}


@pytest.mark.parametrize("which", ["document", "wide_document"])
def test_it_is_valid_openapi_3_1(which: str, request: pytest.FixtureRequest) -> None:
    document = request.getfixturevalue(which)
    assert document["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(document).validate()


def test_it_is_the_same_in_every_process() -> None:
    command = [sys.executable, "-m", "app.cli", "openapi"]
    first, second = (
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True, timeout=60)
        for seed in ("1", "2")
    )
    assert first.stdout == second.stdout
    assert first.stdout


def test_the_order_of_plugins_does_not_matter() -> None:
    assert describe(with_plugins(town, twin)) == describe(with_plugins(twin, town))


def test_every_action_has_an_operation(document: Document) -> None:
    for manifest in MANIFESTS:
        for slug, spec in manifest.actions.items():
            operation = document["paths"][f"/api/action/{manifest.name}.{slug}"]["post"]
            assert operation["operationId"] == f"{manifest.name}_{slug}".replace("-", "_")
            assert operation["description"] == spec.description
    assert "/api/action/randomness.random-int" in document["paths"]


def test_every_process_has_an_operation(document: Document) -> None:
    for manifest in MANIFESTS:
        for name in manifest.processes:
            operation = document["paths"][f"/api/internal/process/{manifest.name}.{name}"]["post"]
            assert operation["operationId"] == f"start_{manifest.name}_{name}".replace("-", "_")
    vote = document["paths"]["/api/internal/process/randomness.delayed-stochastic-vote"]["post"]
    assert vote["operationId"] == "start_randomness_delayed_stochastic_vote"


def test_aliases_and_generic_routes_are_left_out(document: Document) -> None:
    assert not [path for path in document["paths"] if path.startswith("/api/internal/action")]
    assert not {"/api/action/{name}", "/metrics", "/docs", "/openapi.json"} & document["paths"].keys()
    assert "post" not in document["paths"].get("/api/internal/process/{name}", {})
    assert {"get", "delete"} <= document["paths"]["/api/internal/process/{name}/{process_id}"].keys()


def test_operation_ids_are_unique_and_plain(wide_document: Document) -> None:
    hooks = [item["post"] for item in wide_document["webhooks"].values()]
    ids = Counter(operation["operationId"] for operation in [*(op for _, _, op in operations(wide_document)), *hooks])
    assert max(ids.values()) == 1
    assert all(name.isidentifier() and name == name.lower() for name in ids)


def test_an_action_is_typed(document: Document) -> None:
    path = "/api/action/randomness.random-int"
    call = body(document, path)
    assert call["additionalProperties"] is False
    params = resolve(document, call["properties"]["parameters"])
    assert params["title"] == "RandomnessRandomIntParams"
    assert params["properties"].keys() == {"low", "high"}
    assert answer(document, path, "post", "200")["properties"]["value"]["type"] == "integer"


def test_parameters_are_required_only_where_nothing_will_not_do(document: Document) -> None:
    assert "required" not in body(document, "/api/action/randomness.random-int")
    assert body(document, "/api/action/randomness.set-lucky-number")["required"] == ["parameters"]
    assert body(document, "/api/action/sourcecred.user-cred")["required"] == ["parameters"]


def test_a_start_takes_parameters_beside_the_gateways_options(document: Document) -> None:
    path = "/api/internal/process/randomness.delayed-stochastic-vote"
    start = body(document, path)
    assert start["properties"].keys() == {
        "options",
        "delay",
        "callback_url",
        "correlation_id",
        "community_platform_id",
    }
    assert start["required"] == ["options", "delay"]
    accepted = document["paths"][path]["post"]["responses"]["202"]
    assert "Location" in accepted["headers"]
    process = answer(document, path, "post", "202")
    outcome, nothing = process["properties"]["outcome"]["anyOf"]
    assert resolve(document, outcome)["properties"].keys() == {"winner"}
    assert nothing == {"type": "null"}


def test_a_callback_gets_the_signed_process(document: Document) -> None:
    start = document["paths"]["/api/internal/process/randomness.delayed-stochastic-vote"]["post"]
    [callback] = start["callbacks"].values()
    posted = callback["{$request.body#/callback_url}"]["post"]
    assert posted["requestBody"]["content"] == start["responses"]["202"]["content"]
    assert {"webhook-id", "webhook-timestamp", "webhook-signature"} == parameters(document, posted).keys()


def test_events_are_webhooks(wide_document: Document) -> None:
    webhooks = wide_document["webhooks"]
    assert {"process.updated", "github.*", "town.*", "town.resident.moved", "metagov.test"} <= webhooks.keys()
    for item in webhooks.values():
        headers = parameters(wide_document, item["post"])
        assert {"webhook-id", "webhook-timestamp", "webhook-signature"} == headers.keys()

    def event(name: str) -> dict[str, Any]:
        schema = webhooks[name]["post"]["requestBody"]["content"]["application/json"]["schema"]
        properties: dict[str, Any] = resolve(wide_document, schema)["properties"]
        return properties

    moved = event("town.resident.moved")
    assert moved["event_type"]["const"] == "resident.moved"
    assert moved["source"]["const"] == "town"
    assert resolve(wide_document, moved["data"])["properties"].keys() == {"street"}
    assert event("town.*")["event_type"] == {"type": "string"}
    assert "outcome" in resolve(wide_document, event("process.updated")["data"])["properties"]


def test_a_model_name_that_two_plugins_share_stays_apart(wide_document: Document) -> None:
    of_town = resolve(wide_document, body(wide_document, "/api/action/town.ring-bell")["properties"]["parameters"])
    of_twin = resolve(wide_document, body(wide_document, "/api/action/town-ring.bell")["properties"]["parameters"])
    assert of_town["properties"].keys() == {"street", "mood"}
    assert of_twin["properties"].keys() == {"volume"}
    assert "Params" not in wide_document["components"]["schemas"]


def test_component_names_and_operation_ids_that_collide_are_told_apart(wide_document: Document) -> None:
    """`town`'s RingParams and `town-ring`'s Params would both be TownRingParams; likewise town_ring_bell."""
    schemas = wide_document["components"]["schemas"]
    assert len({name.lower() for name in schemas}) == len(schemas)
    assert schemas["TownRingParams"]["properties"].keys() == {"times"}
    assert schemas["TownRing2Params"]["properties"].keys() == {"volume"}
    paths = wide_document["paths"]
    assert paths["/api/action/town.ring-bell"]["post"]["operationId"] == "town_ring_bell"
    assert paths["/api/action/town-ring.bell"]["post"]["operationId"] == "town_ring_bell_2"


def test_plugins_of_many_types_are_described(wide_document: Document) -> None:
    grow = resolve(wide_document, body(wide_document, "/api/action/town.grow")["properties"]["parameters"])
    assert resolve(wide_document, grow["properties"]["branches"]["items"]) == grow
    assert answer(wide_document, "/api/action/town.feed", "post", "200") == {"type": "integer"}
    listed = answer(wide_document, "/api/action/town.ring-bell", "post", "200")
    branch = resolve(wide_document, listed["properties"]["items"]["items"])
    assert branch["properties"].keys() == {"label", "branches"}
    odd = resolve(wide_document, body(wide_document, "/api/action/town.odd")["properties"]["parameters"])
    assert odd["properties"]["size"]["type"] == "integer"


def test_the_gateways_options_win_over_parameters_of_the_same_name(wide_document: Document) -> None:
    start = body(wide_document, "/api/internal/process/town.poll")
    assert {"type": "integer"} not in start["properties"]["correlation_id"]["anyOf"]
    assert start["required"] == ["question"]


def test_public_actions_need_no_key(wide_document: Document) -> None:
    optional: list[dict[str, list[str]]] = [{}, {"bearer": []}, {"basic": []}]
    assert wide_document["paths"]["/api/action/town.ring-bell"]["post"]["security"] == optional
    assert "security" not in wide_document["paths"]["/api/action/town.grow"]["post"]
    assert wide_document["security"] == [{"bearer": []}, {"basic": []}]


def test_the_community_header_is_asked_for_where_it_is_needed(document: Document) -> None:
    def asks(path: str, method: str) -> bool:
        header = parameters(document, document["paths"][path][method]).get("X-Metagov-Community")
        return header is not None and header["required"] is True

    assert asks("/api/action/randomness.random-int", "post")
    assert asks("/api/internal/plugin/{plugin}", "post")
    assert asks("/api/internal/process/{name}/{process_id}", "get")
    assert asks("/api/internal/receipts", "get")
    assert not asks("/api/internal/community/{slug}", "put")
    assert not asks("/api/internal/events", "get")


def test_posts_that_act_take_an_idempotency_key(document: Document) -> None:
    for path, method, operation in operations(document):
        key = parameters(document, operation).get("Idempotency-Key")
        if method == "post" and not path.startswith(OPEN):
            assert key is not None, path
            assert key["required"] is False
        else:
            assert key is None, path


def test_every_error_is_a_problem(wide_document: Document) -> None:
    for path, method, operation in operations(wide_document):
        failures = {status: response for status, response in operation["responses"].items() if status >= "4"}
        assert failures, path
        if not path.startswith(OPEN):
            assert {"401", "422", "503"} <= failures.keys(), f"{method} {path}"
        for status, response in failures.items():
            if path == "/readyz" and status == "503":
                continue
            content = resolve(wide_document, response)["content"]
            if path.startswith("/auth/") and "text/html" in content:
                continue  # People see these.
            assert content == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    assert "HTTPValidationError" not in str(wide_document)


def test_hooks_take_bytes_from_anybody(document: Document) -> None:
    for path in ("/api/hooks/{community}/{plugin}", "/api/hooks/{community}/{plugin}/{hook}", "/api/hooks/{plugin}"):
        operation = document["paths"][path]["post"]
        assert operation["requestBody"]["content"].keys() == {"application/octet-stream"}
        assert operation["security"] == []
        assert {"200", "202", "401", "404", "409", "413", "503"} <= operation["responses"].keys()


@pytest.mark.parametrize("which", ["document", "wide_document"])
def test_examples_fit_their_schemas(which: str, request: pytest.FixtureRequest) -> None:
    document = request.getfixturevalue(which)
    seen = set()
    for _, _, operation in operations(document):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            if "example" in content:
                OAS31Validator({**content["schema"], "components": document["components"]}).validate(content["example"])
                seen.add(operation["operationId"])
    assert {"put_community", "create_endpoint", "randomness_random_int"} <= seen
    assert "start_randomness_delayed_stochastic_vote" in seen


def test_a_plugins_own_examples_are_shown(wide_document: Document) -> None:
    start = wide_document["paths"]["/api/internal/process/town.poll"]["post"]
    assert start["requestBody"]["content"]["application/json"]["example"]["question"] == "Shall we plant?"
