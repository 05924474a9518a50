"""Which instances a webhook is for, and whether it is genuine. Verification is pure; instances are cached briefly.

A cache may be out of date: the ingest statement notices a changed generation, and a signature that fails against a
cached secret is checked once more against a fresh one, so rotating a secret needs no word between processes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from app.core.crypto import Vault
from app.core.db import Database
from app.core.errors import BadRequest, Conflict, NotFound, Unauthenticated
from app.host.binding import Host, InstanceData
from app.runtime import instances
from metagov_sdk import HookRequest, PluginError, Unsigned, Verifier, WebhookSpec

_FRESH_SECONDS = 5.0
_REFETCH_SECONDS = 0.25
_MOST_CACHED = 10_000

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Address:
    """What a hook URL names; `community` is None on a shared URL."""

    community: str | None
    plugin: str
    hook: str


@dataclass(slots=True)
class Targets:
    """Finds and verifies. One per API process."""

    db: Database
    host: Host
    vault: Vault
    _cache: dict[tuple[str, str], tuple[float, list[InstanceData]]] = field(default_factory=dict)

    def spec(self, address: Address) -> WebhookSpec:
        """The hook at an address. Raises NotFound."""
        loaded = self.host.plugins.loaded.get(address.plugin)
        hook = loaded.manifest.webhooks.get(address.hook) if loaded else None
        if hook is None or (address.community is None and not hook.shared):
            raise NotFound("there is no webhook at this path")
        return hook

    async def enabled(self, address: Address, *, fresh: bool = False) -> list[InstanceData]:
        """The instances behind a community's hook URL. Raises NotFound when there are none."""
        if cached := self._cached(address, _REFETCH_SECONDS if fresh else _FRESH_SECONDS):
            return cached
        key = (address.community or "", address.plugin)
        found = await instances.by_slug(self.db.pool, self.vault, *key)
        if not found:
            self._cache.pop(key, None)
            raise NotFound("the plugin is not enabled for this community")
        if len(self._cache) >= _MOST_CACHED:
            self._cache.clear()
        self._cache[key] = (time.monotonic(), found)
        return found

    def _cached(self, address: Address, seconds: float) -> list[InstanceData] | None:
        cached = self._cache.get((address.community or "", address.plugin))
        return None if cached is None or time.monotonic() - cached[0] >= seconds else cached[1]

    def forget(self, address: Address) -> None:
        """Drop what is cached for an address: it is known to be out of date."""
        self._cache.pop((address.community or "", address.plugin), None)

    def clear(self) -> None:
        """Drop everything that is cached."""
        self._cache.clear()

    async def verified(self, address: Address, hook: WebhookSpec, request: HookRequest) -> list[InstanceData]:
        """The instances that a genuine webhook is for, perhaps none. Raises Unauthenticated, NotFound or Conflict."""
        if isinstance(hook.verify, Unsigned):
            raise NotFound("this webhook is not signed")
        if address.community is None:
            ids = self._located(hook, request)
            return await self._verified_shared(address, hook, hook.verify, request, ids or [])
        for fresh in (False, True):
            found = await self.enabled(address, fresh=fresh)
            if genuine := self._genuine_of(found, hook, hook.verify, request):
                return genuine
        if self._signed_for_nobody(found, hook, hook.verify, request) and _asks_for_an_answer_alone(hook, request):
            return []
        raise Unauthenticated("the webhook's signature does not verify")

    def verified_at_hand(self, address: Address, hook: WebhookSpec, request: HookRequest) -> list[InstanceData] | None:
        """The same by what is cached for a community's URL; None where that does not say. Raises as `verified`."""
        if isinstance(hook.verify, Unsigned) or address.community is None:
            return None
        cached = self._cached(address, _FRESH_SECONDS)
        return cached and self._genuine_of(cached, hook, hook.verify, request)

    def _genuine_of(
        self, found: list[InstanceData], hook: WebhookSpec, verify: Verifier, request: HookRequest
    ) -> list[InstanceData]:
        ids = self._located(hook, request) if self._has_to_be_named(found, verify) else None
        return [data for data in self._meant(found, ids) if self._genuine(data, hook, verify, request, ids)]

    def _has_to_be_named(self, found: Sequence[InstanceData], verify: Verifier) -> bool:
        """Whether it matters whom the webhook names, which costs more to read than its signature to check.

        It does not where it can mean but one instance, that has a secret and no platform id.
        """
        alone = len(found) == 1 and not found[0].community_platform_id
        return not (alone and self.host.owns_secret(found[0], verify.secret))

    async def _verified_shared(
        self, address: Address, hook: WebhookSpec, verify: Verifier, request: HookRequest, ids: Sequence[str]
    ) -> list[InstanceData]:
        """On a shared URL each instance is verified with its own secret; with none, the operator's must hold."""
        found = await instances.by_platform_ids(self.db.pool, self.vault, address.plugin, ids)
        genuine = [data for data in found if self._genuine(data, hook, verify, request, ids)]
        if not genuine and not self._signed_with_setting(address.plugin, verify, request):
            raise Unauthenticated("the webhook's signature does not verify")
        return genuine

    def _signed_for_nobody(
        self, found: Sequence[InstanceData], hook: WebhookSpec, verify: Verifier, request: HookRequest
    ) -> bool:
        """Whether an instance's own secret signs what names nobody, as when its URL is being set up."""
        return not self._located(hook, request) and any(
            self.host.owns_secret(data, verify.secret)
            and verify(self.host.read_secret(data, verify.secret), request.headers, request.body, time.time())
            for data in found
        )

    def _signed_with_setting(self, plugin: str, verify: Verifier, request: HookRequest) -> bool:
        secret = self.host.read_setting(plugin, verify.secret)
        return verify(secret, request.headers, request.body, time.time())

    def _genuine(
        self,
        data: InstanceData,
        hook: WebhookSpec,
        verify: Verifier,
        request: HookRequest,
        ids: Sequence[str] | None,
    ) -> bool:
        secret = self.host.read_secret(data, verify.secret)
        if not verify(secret, request.headers, request.body, time.time()):
            return False
        if ids is None or data.community_platform_id in ids:
            return True
        # Under the operator's secret every community's webhooks verify: this one's must be named in it.
        return not data.community_platform_id and self.host.owns_secret(data, verify.secret)

    def _meant(self, found: list[InstanceData], ids: Sequence[str] | None) -> list[InstanceData]:
        if len(found) > 1:
            named = [data for data in found if ids is not None and data.community_platform_id in ids]
            if not named:
                raise Conflict(
                    "the community has several instances of this plugin and the webhook names none of them",
                    slug="ambiguous-instance",
                )
            return named
        return found

    def _located(self, hook: WebhookSpec, request: HookRequest) -> Sequence[str] | None:
        if hook.locate is None:
            return None
        try:
            return list(hook.locate(request))
        except PluginError as error:
            raise BadRequest(error.reason) from error
        except Exception as error:
            # Runs on unverified bytes: whatever they make foreign code do is the sender's error, not ours.
            _log.warning("a webhook could not be read", hook=hook.method, error=type(error).__name__)
            raise BadRequest("the webhook cannot be read") from error


def _asks_for_an_answer_alone(hook: WebhookSpec, request: HookRequest) -> bool:
    try:
        reply = hook.reply(request) if hook.reply else None
    except Exception as error:
        # Foreign code on bytes that may be anything.
        _log.warning("a webhook could not be read", hook=hook.method, error=type(error).__name__)
        return False
    return reply is not None and not reply.store
