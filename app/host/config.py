"""An instance's config between its three forms: as sent, as stored (secrets apart, encrypted) and as shown (masked)."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pydantic import BaseModel, Secret, SecretBytes, SecretStr, ValidationError

from app.core.crypto import MASK
from app.core.errors import Invalid
from metagov_sdk import Config


@dataclass(frozen=True, slots=True)
class CheckedConfig:
    """A config that fits its schema: the typed value, and its JSON with the secret fields apart."""

    value: Config
    plain: dict[str, Any]
    secrets: dict[str, Any] = field(repr=False)


@cache
def secret_fields(config: type[Config]) -> frozenset[str]:
    """The names of the fields that hold a SecretStr anywhere in their type."""
    return frozenset(name for name, field in config.model_fields.items() if _holds_secret(field.annotation))


def _holds_secret(annotation: Any, above: tuple[type, ...] = ()) -> bool:
    kind = typing.get_origin(annotation) or annotation
    if isinstance(kind, type) and issubclass(kind, Secret | SecretStr | SecretBytes):
        return True
    if isinstance(kind, type) and issubclass(kind, BaseModel) and kind not in above:
        return any(_holds_secret(field.annotation, (*above, kind)) for field in kind.model_fields.values())
    return any(_holds_secret(part, above) for part in typing.get_args(annotation))


def check_config(
    config: type[Config], sent: Mapping[str, Any], stored_secrets: Mapping[str, Any], path: tuple[str | int, ...]
) -> CheckedConfig:
    """Validate what a driver sent. A secret sent back as its mask keeps the stored value: in a list, that at its place.

    Raises Invalid with JSON pointers below `path`.
    """
    secret = secret_fields(config)
    values = dict(sent)
    for name in secret & values.keys():
        values[name] = _unmask(values[name], stored_secrets.get(name), (*path, name))
    try:
        value = config.model_validate(values)
    except ValidationError as error:
        raise Invalid.schema(error, path) from None
    plain = value.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude=set(secret))
    return CheckedConfig(
        value, plain, {name: values[name] for name in secret & values.keys() if values[name] is not None}
    )


def masked(plain: Mapping[str, Any], secrets: Mapping[str, Any]) -> dict[str, Any]:
    """The config as it is shown: every secret masked, its shape kept."""
    return {**plain, **{name: mask(value) for name, value in secrets.items()}}


def mask(value: Any) -> Any:
    """A secret's mask: a list of secrets becomes as many masks, an object keeps its names."""
    if isinstance(value, list):
        return [mask(item) for item in value]
    if isinstance(value, dict):
        return {name: mask(item) for name, item in value.items()}
    return MASK


def _unmask(sent: Any, stored: Any, path: tuple[str | int, ...]) -> Any:
    """What was sent, with the stored value wherever its mask stands. Raises Invalid where nothing is stored."""
    if isinstance(sent, list):
        kept = stored if isinstance(stored, list) else []
        return [
            _unmask(item, kept[index] if index < len(kept) else None, (*path, index)) for index, item in enumerate(sent)
        ]
    if isinstance(sent, dict):
        named = stored if isinstance(stored, dict) else {}
        return {name: _unmask(item, named.get(name), (*path, name)) for name, item in sent.items()}
    if sent != MASK:
        return sent
    if stored is None or isinstance(stored, list | dict):
        raise Invalid.found([(path, "is the mask of a secret that is not stored; send the secret itself")])
    return stored
