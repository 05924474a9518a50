"""The `metagov` command. Heavy imports happen inside the commands: `metagov --help` answers at once."""

from __future__ import annotations

import sys

import click
from pydantic import ValidationError

from app.cli.dev import dev
from app.cli.doctor import doctor
from app.cli.driver import driver
from app.cli.instance import instance
from app.cli.plugins import openapi, plugin, plugins
from app.cli.seed import seed
from app.cli.serve import migrate, serve, worker
from app.core.errors import Problem


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="metagov-gateway")
def cli() -> None:
    """Metagov Gateway: connects governance engines to the platforms where communities live."""


for command in (dev, serve, worker, migrate, driver, instance, plugins, plugin, openapi, doctor, seed):
    cli.add_command(command)


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
