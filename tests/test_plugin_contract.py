"""Every plugin of the project keeps the rules for plugins, and is found by its entry point."""

import importlib
import tomllib
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]  # it ships no types
import pytest
from pydantic import TypeAdapter

from metagov_sdk import Manifest
from metagov_sdk.testing import check_manifest

ROOT = Path(__file__).parent.parent
GROUP = "metagov.plugins"
_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LISTED: dict[str, str] = _PROJECT["entry-points"][GROUP]
FOLDERS = {path.parent.name for path in (ROOT / "plugins").glob("*/__init__.py")}

each_plugin = pytest.mark.parametrize("name", sorted(LISTED))


def load(name: str) -> Manifest:
    manifest = EntryPoint(name, LISTED[name], GROUP).load()
    assert isinstance(manifest, Manifest)
    return manifest


def test_every_folder_of_a_plugin_has_its_entry_point() -> None:
    named = {value.split(":")[0].removeprefix("plugins.") for value in LISTED.values()}
    assert named == FOLDERS


@each_plugin
def test_the_installed_project_has_the_entry_point(name: str) -> None:
    installed = {entry.name: entry.value for entry in entry_points(group=GROUP)}
    assert installed.get(name) == LISTED[name], "the entry points have changed: run `make install` again"


@each_plugin
def test_the_entry_point_has_the_plugins_name(name: str) -> None:
    assert load(name).name == name


@each_plugin
def test_it_keeps_the_rules(name: str) -> None:
    check_manifest(load(name))


@each_plugin
def test_its_schemas_are_json_schema(name: str) -> None:
    manifest = load(name)
    inputs = [TypeAdapter(manifest.config), *(action.params for action in manifest.actions.values())]
    outputs = [action.result for action in manifest.actions.values()]
    for process in manifest.processes.values():
        inputs.append(TypeAdapter(process.params))
        outputs.append(TypeAdapter(process.outcome))
    for adapter in inputs:
        jsonschema.Draft202012Validator.check_schema(adapter.json_schema(mode="validation"))
    for adapter in outputs:
        jsonschema.Draft202012Validator.check_schema(adapter.json_schema(mode="serialization"))


@each_plugin
def test_its_page_names_all_that_it_offers(name: str) -> None:
    manifest = load(name)
    module = importlib.import_module(LISTED[name].split(":")[0])
    assert module.__file__ is not None
    page = (Path(module.__file__).parent / "README.md").read_text()
    settings = [f"METAGOV_{name.upper().replace('-', '_')}_{field.upper()}" for field in manifest.settings.model_fields]
    offered = [*manifest.config.model_fields, *manifest.actions, *manifest.processes, *settings]
    assert [word for word in offered if word not in page] == []
