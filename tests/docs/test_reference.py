"""The pages name all there is to name, and nothing that is not there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import click
import prometheus_client
import pytest

import metagov_sdk
from app.cli import cli
from app.core import metrics
from app.core.settings import Settings
from app.host.discovery import discover
from tests.docs.commands import find_command
from tests.docs.pages import DOCS, README, ROOT, all_pages

_VARIABLE = re.compile(r"\bMETAGOV_[A-Z0-9_]*[A-Z0-9]\b")
# What the example drivers read, and what a page calls a family of variables by.
_NOT_SETTINGS = {"METAGOV_URL", "METAGOV_API_KEY", "METAGOV_SIGNING_SECRET"}


def own_settings() -> dict[str, object]:
    """The gateway's variables with their defaults."""
    return {f"METAGOV_{name.upper()}": field.default for name, field in Settings.model_fields.items()}


def plugin_settings() -> set[str]:
    """The variables of every plugin that is part of the project."""
    return {
        f"METAGOV_{name.replace('-', '_').upper()}_{field.upper()}"
        for name, loaded in discover({}).loaded.items()
        if loaded.distribution == "metagov-gateway"
        for field in loaded.manifest.settings.model_fields
    }


def rows(page: str) -> dict[str, list[str]]:
    """A page's table rows by what their first cell names in code."""
    found = {}
    for line in (DOCS / page).read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if match := re.fullmatch(r"`([^`]+)`", cells[0]):
            found[match[1]] = cells[1:]
    return found


def test_every_setting_is_documented_with_its_default() -> None:
    documented = rows("settings.md")
    assert own_settings().keys() | plugin_settings() <= documented.keys()
    for name, default in own_settings().items():
        shown = documented[name][0].strip("`")
        if not isinstance(default, str | int | float):
            continue  # Secrets and lists are empty unless they are set.
        wanted = str(default).lower() if isinstance(default, bool) else str(default)
        assert shown == wanted, name


def test_no_page_names_a_setting_that_is_not_there() -> None:
    known = own_settings().keys() | plugin_settings() | _NOT_SETTINGS
    files = [*all_pages(), ROOT / ".env.example", ROOT / "compose.yaml", ROOT / "Dockerfile"]
    named = {(file.name, name) for file in files for name in _VARIABLE.findall(file.read_text())}
    assert {(file, name) for file, name in named if name not in known} == set()


def test_every_public_name_of_the_sdk_is_on_a_page() -> None:
    text = "\n".join(page.read_text() for page in DOCS.rglob("*.md"))
    missing = {name for name in metagov_sdk.__all__ if not re.search(rf"(?<![\w.]){name}(?!\w)", text)}
    assert missing == set()
    # Those that plugin authors import stand in the one table as well.
    table = (DOCS / "plugins.md").read_text().partition("## The SDK's names")[2]
    assert {name for name in metagov_sdk.__all__ if f"`{name}`" not in table} == set()


def test_the_metrics_page_is_the_metrics() -> None:
    collectors = [
        value
        for value in vars(metrics).values()
        if isinstance(value, prometheus_client.Counter | prometheus_client.Histogram | prometheus_client.Gauge)
    ]
    there = {}
    for collector in collectors:
        (family,) = collector.describe()
        name = f"{family.name}_total" if family.type == "counter" else family.name
        there[name] = ", ".join(f"`{label}`" for label in collector._labelnames)
    documented = {name: cells[0] for name, cells in rows("operations.md").items() if name.startswith("metagov_")}
    assert documented == there


@pytest.mark.parametrize("page", [README, *sorted(DOCS.rglob("*.md"))], ids=lambda page: page.name)
def test_it_names_only_commands_that_are_there(page: Path) -> None:
    text = page.read_text()
    for words in re.findall(r"(?:^|`|\$ )metagov ([a-z]+)(?: ([a-z]+))?", text, re.MULTILINE):
        command = find_command(words[0])
        assert command is not None, f"metagov {words[0]}"
        if isinstance(command, click.Group):
            assert find_command(*words) is not None, f"metagov {' '.join(words)}"


def test_every_command_is_named_somewhere() -> None:
    text = "\n".join(page.read_text() for page in all_pages())
    assert [name for name in cli.list_commands(click.Context(cli)) if f"metagov {name}" not in text] == []


def test_decisions_are_short_numbered_and_listed() -> None:
    records = sorted((DOCS / "decisions").glob("*.md"))
    assert [record.name[:4] for record in records] == [f"{number:04}" for number in range(1, len(records) + 1)]
    listed = (DOCS / "architecture.md").read_text()
    for record in records:
        text = record.read_text()
        assert text.startswith(f"# {record.name[:4]} ")
        assert text.count("\n") <= 30, record.name
        parts = ["**Context.**", "**Decision.**", "**Why.**", "**Consequences.**"]
        assert [part for part in parts if part not in text] == [], record.name
        assert f"(decisions/{record.name})" in listed


def test_the_architecture_page_has_the_layers_of_the_import_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    shown = re.sub(r"\s+", " ", (DOCS / "architecture.md").read_text())
    assert " > ".join(layers) in shown
