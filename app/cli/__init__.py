"""The `metagov` command. Each command's module is imported when it is called for: `metagov --help` answers at once."""

from __future__ import annotations

import sys
from importlib import import_module

import click
from pydantic import ValidationError

from app.core.errors import Problem

_COMMANDS = {
    "archive": "app.cli.archive",
    "dev": "app.cli.dev",
    "doctor": "app.cli.doctor",
    "driver": "app.cli.driver",
    "graph": "app.cli.graph",
    "instance": "app.cli.instance",
    "migrate": "app.cli.serve",
    "mirror": "app.cli.mirror",
    "openapi": "app.cli.plugins",
    "plugin": "app.cli.plugins",
    "plugins": "app.cli.plugins",
    "seed": "app.cli.seed",
    "serve": "app.cli.serve",
    "worker": "app.cli.serve",
}
"""Where each command is; the command's object has the command's name."""


class _Commands(click.Group):
    """A group whose commands are found by name in their modules."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _COMMANDS.get(cmd_name)
        return getattr(import_module(module), cmd_name) if module else None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="metagov-gateway")
def cli() -> None:
    """Metagov Gateway: connects governance engines to the platforms where communities live."""


def main() -> None:
    """Run the command line; errors a person can mend are one line, not a traceback."""
    try:
        cli()
    except ValidationError as error:
        for item in error.errors(include_input=False):
            name = "METAGOV_" + "_".join(str(part) for part in item["loc"]).upper()
            click.secho(f"{name}: {item['msg']}", fg="red", err=True)
        sys.exit(2)
    except Problem as problem:
        click.secho(problem.detail, fg="red", err=True)
        sys.exit(1)
