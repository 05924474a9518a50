"""Receiving a platform's webhooks.

A hook is a method under `@webhook(...)`. What runs before the gateway answers the platform is pure (verify, dedupe,
locate, reply: bytes in, value out); the method itself runs later, in a worker, from the stored receipt.
"""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qs

from metagov_sdk.errors import ManifestError, Rejected
from metagov_sdk.headers import Headers
from metagov_sdk.verify import Unsigned, Verifier


@dataclass(frozen=True, slots=True)
class HookRequest:
    """A webhook as it came in: the raw body, the headers in order, and the hook's slug ("" for the only hook)."""

    body: bytes
    headers: Headers = field(default_factory=lambda: Headers(()))
    hook: str = ""

    def json(self) -> dict[str, Any]:
        """The body as a JSON object. Raises Rejected when it is anything else."""
        try:
            value = json.loads(self.body, parse_constant=_refuse_constant, parse_float=_finite)
        except (ValueError, RecursionError) as error:
            raise Rejected("the webhook's body is not JSON") from error
        if not isinstance(value, dict):
            raise Rejected("the webhook's body is JSON, but not an object")
        return value

    def form(self) -> dict[str, str]:
        """The body as a URL-encoded form, first value per name. Raises Rejected when it is not text."""
        try:
            fields = parse_qs(self.body.decode(), keep_blank_values=True, max_num_fields=1000)
        except ValueError as error:
            raise Rejected("the webhook's body is not a form") from error
        return {name: values[0] for name, values in fields.items()}


def _refuse_constant(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    """The number; one too large for a float would turn into an infinity, which no table takes."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


@dataclass(frozen=True, slots=True)
class Reply:
    """What the platform is answered at once. `store=False` when the webhook asks for nothing more (a ping)."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    store: bool = True

    @classmethod
    def json(cls, value: object, *, status: int = 200, store: bool = True) -> Reply:
        """A JSON answer."""
        body = json.dumps(value, separators=(",", ":")).encode()
        return cls(status, body, (("content-type", "application/json"),), store)


@dataclass(frozen=True, slots=True)
class Wake:
    """A hint from an unsigned hook: look again at this poll, or this process. It carries no data, so it forges none."""

    poll: str | None = None
    process: str | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        if (self.poll is None) == (self.process is None):
            raise ValueError("a Wake names either a poll or a process")
        if self.process is not None and self.key is None:
            raise ValueError("a Wake for a process needs the process's key")


Dedupe = Callable[[HookRequest], str | None]
Locate = Callable[[HookRequest], Sequence[str]]
Answer = Callable[[HookRequest], Reply | None]


def by_header(name: str) -> Dedupe:
    """Deduplicate by a header that the platform keeps the same across its retries."""

    def dedupe(request: HookRequest) -> str | None:
        return request.headers.get(name) or None

    return dedupe


@dataclass(frozen=True, slots=True)
class WebhookSpec:
    """A hook as declared; `method` is the name of the plugin's method."""

    slug: str
    method: str
    verify: Verifier | Unsigned
    dedupe: Dedupe | None
    reply: Answer | None
    shared: bool
    locate: Locate | None
    mask: tuple[str, ...]
    ordered: bool = False
    flag_repeats: bool = False


HookMethod = TypeVar("HookMethod", bound=Callable[..., Awaitable[None]] | Callable[..., Sequence[Wake]])


def webhook(
    slug: str = "",
    *,
    verify: Verifier | Unsigned,
    dedupe: Dedupe | None = None,
    reply: Answer | None = None,
    shared: bool = False,
    locate: Locate | None = None,
    mask: Sequence[str] = (),
    ordered: bool = False,
    flag_repeats: bool = False,
) -> Callable[[HookMethod], HookMethod]:
    """Declare a hook at `/api/hooks/<community>/<plugin>[/<slug>]`.

    verify   how the platform signs; `unsigned(reason=…)` where it does not, and then the method is a plain function
             that returns `Wake`s and may emit nothing.
    dedupe   request → a key that is equal for repeats of one webhook (None: every request counts).
    reply    request → the answer owed at once (None: 202 stored, 200 repeated).
    shared   also serve `/api/hooks/<plugin>`, one URL for all communities.
    locate   request → the community_platform_ids it is for; a request for another id than the instance's is refused.
    mask     JSON pointers into the body that are secrets: masked whenever a stored receipt is shown. In a body that is
             a form they begin with a field's name; what follows points into the JSON that the field holds.
    ordered  handle an instance's webhooks of such hooks one at a time, in the order in which they came: a later one
             waits while an earlier one is tried again. For platforms whose webhooks mean nothing out of order; it
             costs speed.
    flag_repeats  tell the operator of a webhook whose body equals an earlier one's. Where what `dedupe` reads is not
             signed, a captured webhook can be sent again under another key; it is handled all the same.
    """
    if shared and locate is None:
        raise ManifestError("@webhook: shared=True needs locate=… to tell whose the request is")
    if ordered and isinstance(verify, Unsigned):
        raise ManifestError("@webhook: ordered=True needs a signed hook; what an unsigned one is sent is not kept")

    def declare(method: HookMethod) -> HookMethod:
        spec = WebhookSpec(
            slug, method.__name__, verify, dedupe, reply, shared, locate, tuple(mask), ordered, flag_repeats
        )
        method.__metagov__ = spec  # type: ignore[union-attr]
        return method

    return declare
