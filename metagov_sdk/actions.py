"""Actions: what a driver can ask a plugin to do, `POST /api/action/<plugin>.<slug>`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class ActionSpec:
    """An action as declared. `params` and `result` check values and describe them (JSON schema)."""

    slug: str
    method: str
    description: str
    public: bool
    exclusive: bool
    params: TypeAdapter[Any]
    result: TypeAdapter[Any]


@dataclass(frozen=True, slots=True)
class ActionMark:
    """What `@action` leaves on the method for the manifest to read."""

    slug: str
    public: bool
    exclusive: bool


ActionMethod = TypeVar("ActionMethod", bound=Callable[..., Awaitable[Any]])


def action(slug: str, *, public: bool = False, exclusive: bool = False) -> Callable[[ActionMethod], ActionMethod]:
    """Declare an action: `async def name(self, params: ParamsModel) -> ResultModel`, its docstring the description.

    public     may be called without an API key (rate-limited): for what anybody may read.
    exclusive  one call at a time per instance: for read-decide-call-write on the instance's state.
    """

    def declare(method: ActionMethod) -> ActionMethod:
        method.__metagov__ = ActionMark(slug, public, exclusive)  # type: ignore[attr-defined]
        return method

    return declare
