"""Base classes for the typed values a plugin declares. All are frozen: a plugin asks for changes and makes none."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """A value with named fields: action parameters and results, process parameters and outcomes."""

    # What fails a schema can be a secret, and an error's text ends in a log.
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True)


class Versioned(Model):
    """A value that is stored. Raise `version` when its shape changes; `upgrade` says how old rows become new ones."""

    version: ClassVar[int] = 1

    @classmethod
    def upgrade(cls, old: dict[str, Any], from_version: int) -> dict[str, Any]:
        """Pure: the stored JSON object of `from_version` in the shape of `version`. Raise ValueError if impossible."""
        raise ValueError(f"{cls.__name__} cannot read version {from_version}: it defines no upgrade")


class Config(Versioned):
    """What a driver sets when it enables a plugin. `SecretStr` fields are encrypted at rest and masked in answers."""


class State(Versioned):
    """What an instance remembers between calls. Every field needs a default: a new instance starts with `State()`."""


class NoState(State):
    """For plugins that remember nothing."""


class Settings(BaseModel):
    """What the operator sets for all instances, read from METAGOV_<PLUGIN>_<FIELD> environment variables."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True, hide_input_in_errors=True)


class NoSettings(Settings):
    """For plugins the operator need not configure."""
