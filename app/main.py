"""The API: `create_app(settings)` puts routers, middleware and the one error handler together."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

import app.actions.routes
import app.console.routes
import app.events.routes
import app.events.stream_routes
import app.inbound.routes
import app.installs.catalog
import app.installs.routes
import app.processes.routes
from app.accounts.idempotency import IdempotentPosts
from app.core.asgi import HOOKS_PREFIX, GuardInput, Observe
from app.core.crypto import Vault
from app.core.http import PlainRoute, install_error_handlers
from app.core.limits import TokenBuckets
from app.core.log import configure_logging
from app.core.settings import Settings, load_settings
from app.events.stream import EventStreams
from app.gateway import open_gateway
from app.host.discovery import Plugins, discover
from app.inbound.hooks import HooksApp
from app.openapi import build_document

_ROUTERS = (
    app.installs.catalog.router,  # first: `/plugin/<p>/metadata` is not an instance's id
    app.installs.routes.router,
    app.processes.routes.router,
    app.inbound.routes.router,
    app.events.routes.router,
    app.events.stream_routes.router,
    app.console.routes.router,
)


def create_app(settings: Settings | None = None, plugins: Plugins | None = None) -> FastAPI:
    """The ASGI application; uvicorn calls it as a factory. Raises ValueError for settings it cannot run with."""
    settings = settings or load_settings()
    plugins = plugins or discover()
    configure_logging(settings)
    vault = Vault(settings.fernet_keys)

    @contextlib.asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[None]:
        async with open_gateway(settings, plugins) as gateway, EventStreams(gateway.db) as streams:
            api.state.settings = settings
            api.state.gateway = gateway
            api.state.db = gateway.db
            api.state.vault = gateway.vault
            api.state.egress = gateway.egress
            api.state.host = gateway.host
            api.state.installer = gateway.installer
            api.state.performer = gateway.performer
            api.state.runner = gateway.runner
            api.state.streams = streams
            api.state.hooks = HooksApp(gateway.targets, gateway.wake)
            api.state.public_calls = TokenBuckets(rate=5, burst=60)
            yield

    api = FastAPI(title="Metagov Gateway", lifespan=lifespan, redoc_url=None)
    hooks = PlainRoute("/api/hooks/{path:path}", _Hooks(api), methods=["POST"], include_in_schema=False)
    # Routes are tried one after the other, and actions are asked for the most. POSTs to hooks do not get this far.
    api.router.routes += app.actions.routes.ROUTES
    api.router.routes.append(hooks)
    for router in _ROUTERS:
        api.include_router(router)
    install_error_handlers(api)
    api.add_middleware(IdempotentPosts, db=lambda: api.state.db, vault=vault)
    api.add_middleware(GuardInput)
    api.add_middleware(_HooksFirst, hooks=hooks.handle)
    api.add_middleware(Observe)
    document = build_document(api, plugins)
    api.openapi = lambda: document  # type: ignore[method-assign]  # FastAPI's documented way
    return api


class _HooksFirst:
    """Takes webhooks past the framework, whose routing costs more than checking a signature.

    The route stays, to answer what is not a POST with 405.
    """

    def __init__(self, app: ASGIApp, hooks: ASGIApp) -> None:
        self._app = app
        self._hooks = hooks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].startswith(HOOKS_PREFIX):
            await self._hooks(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class _Hooks:
    """Hands hook requests to the app that the lifespan made."""

    def __init__(self, api: FastAPI) -> None:
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._api.state.hooks(scope, receive, send)
