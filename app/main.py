"""The API: `create_app(settings)` puts routers, middleware and the one error handler together."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

import app.actions.routes
import app.archives.routes
import app.console.routes
import app.events.routes
import app.events.stream_routes
import app.graphs.public
import app.graphs.routes
import app.identity.routes
import app.inbound.routes
import app.installs.catalog
import app.installs.oauth.routes
import app.installs.routes
import app.mirrors.routes
import app.processes.routes
from app.accounts.idempotency import IdempotentPosts
from app.core.asgi import HOOKS_PREFIX, HOOKS_ROUTE, GuardInput, Observe, logs_taken_webhooks
from app.core.crypto import Vault
from app.core.http import PlainRoute, install_error_handlers
from app.core.limits import TokenBuckets
from app.core.log import configure_logging
from app.core.quick_posts import TakePost
from app.core.settings import Settings, load_settings
from app.events.stream import EventStreams
from app.gateway import open_gateway
from app.host.discovery import Plugins, discover
from app.inbound.hooks import HooksApp
from app.openapi import build_document

_ROUTERS = (
    app.installs.catalog.router,  # first: `/plugin/<p>/metadata` is not an instance's id
    app.installs.routes.router,
    app.installs.oauth.routes.router,
    app.processes.routes.router,
    app.inbound.routes.router,
    app.events.routes.router,
    app.events.stream_routes.router,
    app.identity.routes.router,
    app.archives.routes.router,
    app.mirrors.routes.router,
    app.graphs.routes.router,
    app.console.routes.router,
)


def create_app(settings: Settings | None = None, plugins: Plugins | None = None) -> FastAPI:
    """The ASGI application; uvicorn calls it as a factory. Raises ValueError for settings it cannot run with."""
    settings = settings or load_settings()
    plugins = plugins or discover()
    configure_logging(settings)
    vault = Vault(settings.fernet_keys)

    @contextlib.asynccontextmanager
    async def lifespan(api: _Api) -> AsyncIterator[None]:
        async with open_gateway(settings, plugins) as gateway, EventStreams(gateway.db) as streams:
            api.state.settings = settings
            api.state.gateway = gateway
            api.state.db = gateway.db
            api.state.vault = gateway.vault
            api.state.egress = gateway.egress
            api.state.host = gateway.host
            api.state.installer = gateway.installer
            api.state.oauth = gateway.oauth
            api.state.performer = gateway.performer
            api.state.runner = gateway.runner
            api.state.mirrors = gateway.mirrors
            api.state.graphs = gateway.graphs
            api.state.streams = streams
            api.hooks = HooksApp(gateway.targets, gateway.wake)
            # Debugging has a line in the log for each webhook, which the application writes.
            api.take_post = None if logs_taken_webhooks() else api.hooks.take_post
            api.state.public_calls = TokenBuckets(rate=5, burst=60)
            yield

    api = _Api(title="Metagov Gateway", lifespan=lifespan, redoc_url=None)
    # Routes are tried one after the other, and actions are asked for the most. POSTs to hooks do not get this far.
    api.router.routes += app.actions.routes.ROUTES
    api.router.routes.append(api.hooks_route)
    api.router.routes += app.installs.oauth.routes.ROUTES
    api.router.routes += app.graphs.public.ROUTES
    for router in _ROUTERS:
        api.include_router(router)
    install_error_handlers(api)
    api.add_middleware(IdempotentPosts, db=lambda: api.state.db, vault=vault)
    api.add_middleware(GuardInput)
    api.add_middleware(Observe)
    api.add_middleware(ProxyHeadersMiddleware, trusted_hosts=os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1"))
    document = build_document(api, plugins)
    api.openapi = lambda: document  # type: ignore[method-assign]  # FastAPI's documented way
    return api


class _Api(FastAPI):
    """Takes webhooks past the framework, whose layers together cost more than checking a signature.

    The route stays, to answer what is not a POST with 405.
    """

    hooks: HooksApp
    """Made by the lifespan."""
    quick_prefix = HOOKS_PREFIX
    take_post: TakePost | None = None
    """The lifespan's too; what our HTTP protocol asks before it comes here (`app.core.quick_posts`)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._observed_hooks = Observe(self._answer_hook)
        self.hooks_route = PlainRoute(HOOKS_ROUTE, self._answer_hook, methods=["POST"], include_in_schema=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].startswith(HOOKS_PREFIX):
            scope["route"] = self.hooks_route
            await self._observed_hooks(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def _answer_hook(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.hooks(scope, receive, send)
