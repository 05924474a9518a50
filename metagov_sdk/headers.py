"""The headers of an HTTP request as they arrived: ordered, repeatable, looked up in any case."""

from collections.abc import Iterable, Iterator
from typing import final


@final
class Headers:
    """An immutable, ordered multi-value map from header name to value.

    A webhook's signature may not be read from "the last" or "the joined" value of a repeated
    header, so every value is kept. Iterating yields the distinct names in lower case, in the order
    they first appeared, and ``len`` counts those. ``repr`` shows names only: values may be secrets.
    """

    __slots__ = ("_raw", "_values")

    _raw: tuple[tuple[str, str], ...]
    _values: dict[str, tuple[str, ...]]

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        """Keep ``pairs`` of (name, value) in their order, duplicates and all."""
        self._raw = tuple(pairs)
        values: dict[str, tuple[str, ...]] = {}
        for name, value in self._raw:
            key = name.lower()
            values[key] = (*values[key], value) if key in values else (value,)
        self._values = values

    @property
    def raw(self) -> tuple[tuple[str, str], ...]:
        """Every (name, value) pair, spelled and ordered as it was given."""
        return self._raw

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return the first value of ``name``, in any case, or ``default``."""
        values = self._values.get(name.lower())
        return values[0] if values else default

    def getall(self, name: str) -> tuple[str, ...]:
        """Return every value of ``name`` in order; empty when the header is absent."""
        return self._values.get(name.lower(), ())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        return self._raw == other._raw if isinstance(other, Headers) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._raw)

    def __repr__(self) -> str:
        return f"Headers({', '.join(name for name, _ in self._raw)})"
