"""A reader's own rows, and how they are bound to a table that somebody else writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import ValidationError

from metagov_sdk.archive.canonical import restore
from metagov_sdk.archive.columns import kinds_of
from metagov_sdk.archive.errors import MissingFields, WrongValue
from metagov_sdk.models import Model

RowT = TypeVar("RowT", bound="Row")


class Row(Model):
    """What a reader wants of a table's rows: `class Message(Row, table="discord.message"): id: str; channel_id: str`.

    The table may have any number of further columns; only the declared ones are handed on.
    """

    table: ClassVar[str] = ""
    """The table's full name, `<provider>.<table>`."""

    def __init_subclass__(cls, *, table: str = "", **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.table = table or cls.table


def bind_row(row: type[RowT], schema: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], RowT]:
    """Check a row against a table's JSON Schema, once; returns what makes one of it.

    Raises MissingFields, naming all the fields that the table lacks or has as something else. What is returned raises
    WrongValue for a row that does not fit.
    """
    there, wanted = kinds_of(schema), kinds_of(row.model_json_schema(by_alias=False))
    missing = sorted(wanted.keys() - there.keys())
    other = sorted(
        f"{name} ({there[name]} there, {kind} declared)"
        for name, kind in wanted.items()
        if name in there and kind != there[name] and "json" not in (kind, there[name])
    )
    if missing or other:
        parts = [f"{row.table or row.__name__} has no {', '.join(missing)}"] if missing else []
        parts += [f"other types: {', '.join(other)}"] if other else []
        raise MissingFields(f"{row.__name__}: {'; '.join(parts)}")
    json = {name for name in wanted if there[name] == "json"}
    optional = {name: None for name, field in row.model_fields.items() if not field.is_required()}
    names = [*wanted]
    defaults = {name: row.model_fields[name].get_default(call_default_factory=True) for name in optional}

    def make(raw: Mapping[str, Any]) -> RowT:
        values = {}
        for name in names:
            value = raw.get(name)
            if value is None and name in defaults:
                value = defaults[name]
            values[name] = restore(value) if name in json else value
        try:
            return row.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise WrongValue(f"{row.__name__}.{place}: {first['msg']}") from None

    return make
