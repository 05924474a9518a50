"""A person's two visits: on the way to the platform, and back from it.

The first writes nothing, so that visits of nobody fill no table. The second ends at the driver's registered redirect
URI, with a one-time code or a named error; only where the state cannot be believed, there is a page instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args
from urllib.parse import urlencode, urlsplit, urlunsplit

import asyncpg
import structlog

from app.host.binding import Host
from app.host.discovery import Loaded
from app.installs.installer import Installer
from app.installs.oauth import grants
from app.installs.oauth.pages import Stop
from app.installs.oauth.revocation import revoke
from app.installs.oauth.state import LONGEST_DRIVER_STATE, BadState, States, Visit, challenge, digest
from app.runtime.calls import PluginCrashed, ask
from metagov_sdk import Authorize, Installed, OAuth, OAuthDenied, OAuthType, PluginError, Retry, Returned, SignedIn

_LONGEST_WAIT = 15.0
"""Seconds a person waits for the platform at most."""
_WORD = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
_OWN = ("redirect_uri", "community", "type", "state")

_log = structlog.get_logger(__name__)

# One answer for an unknown community and for a redirect URI that is not its driver's: strangers learn of neither.
_BY_COMMUNITY = """
SELECT c.driver_id, c.id FROM communities c JOIN redirect_uris r ON r.driver_id = c.driver_id AND r.uri = $2
WHERE c.slug = $1 AND c.deleted_at IS NULL
"""
_BY_REDIRECT = "SELECT driver_id, NULL AS id FROM redirect_uris WHERE uri = $1 LIMIT 2"
_INSTANCES = """
SELECT community_platform_id, status FROM instances WHERE community_id = $1 AND plugin = $2 AND deleted_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class OAuthFlow:
    """What the way through OAuth needs: all that installing needs, and the keys of states."""

    installer: Installer
    states: States

    @property
    def host(self) -> Host:
        """The plugins."""
        return self.installer.host

    @property
    def pool(self) -> asyncpg.Pool[asyncpg.Record]:
        """For single statements."""
        return self.installer.db.pool


class Refused(Exception):
    """The visit ends at the driver, with an error: its name, and what it means."""

    def __init__(self, name: str, description: str) -> None:
        super().__init__(name)
        self.name = name
        self.description = description


async def authorize(flow: OAuthFlow, plugin: str, query: Mapping[str, Sequence[str]]) -> str:
    """Where to send a person who is to authorize the plugin. Raises Stop."""
    loaded, oauth = _declared(flow.host, plugin)
    given = {name: _single(query, name) for name in _OWN}
    kind = _kind(plugin, oauth, given["type"] or "app")
    missing = oauth.missing(loaded.settings)
    if missing:
        names = ", ".join(f"METAGOV_{plugin.replace('-', '_').upper()}_{name.upper()}" for name in missing)
        raise Stop(404, f"{plugin} is not set up here.", f"Whoever operates this gateway has to set {names}.")
    redirect_uri, state = given["redirect_uri"], given["state"]
    if not redirect_uri:
        raise Stop(400, "The link names no redirect_uri.", "The app that made it has to say where to return to.")
    if state is not None and len(state) > LONGEST_DRIVER_STATE:
        raise Stop(
            400, f"The link's state is longer than {LONGEST_DRIVER_STATE} characters.", "Keep a key to it there."
        )
    driver_id, community_id = await _find_driver(flow, redirect_uri, given["community"], kind)
    present = await _workspaces(flow, community_id, plugin)
    if kind == "user" and not any(row["status"] != "disabled" for row in present):
        raise Stop(404, f"{plugin} is not enabled for this community.", "Install it first.")
    sealed, verifier = flow.states.make(plugin, kind, driver_id, community_id, redirect_uri, state)
    request = Authorize(
        type=kind,
        redirect_uri=flow.host.callback_url(plugin),
        state=sealed,
        code_challenge=challenge(verifier) if oauth.pkce else None,
        community_platform_id=_only(present),
    )
    try:
        return flow.host.oauth(plugin).authorize_url(request)
    except PluginError as error:
        raise Stop(400, f"{plugin} cannot be authorized: {error.reason}") from error
    except Exception as error:
        # Foreign code. Its words may hold the state, and stay out of the log.
        _log.error("plugin failed", what="authorize_url", plugin=plugin, error=type(error).__name__)
        raise Stop(502, f"{plugin} failed here.", "The gateway's log names the reason.") from None


async def come_back(flow: OAuthFlow, plugin: str, query: Mapping[str, Sequence[str]]) -> str:
    """Where to send a person who is back from the platform. Raises Stop when the state is not to be believed."""
    _, oauth = _declared(flow.host, plugin)
    try:
        visit, verifier = flow.states.read(_single(query, "state") or "", plugin)
    except BadState as error:
        raise Stop(400, str(error)) from error
    redirect_uri = await _still_registered(flow, visit)
    slug = None
    if visit.community_id is not None:
        slug = await flow.pool.fetchval(
            "SELECT slug FROM communities WHERE id = $1 AND deleted_at IS NULL", visit.community_id
        )
        if slug is None:
            raise Stop(404, "The community has been deleted meanwhile.")
    state_hash = await grants.open_grant(flow.installer.db, visit)
    if state_hash is None:
        raise Stop(400, "This answer of the platform has been used already.")
    try:
        given = await _redeem(flow, visit, verifier if oauth.pkce else None, query)
        try:
            code = await grants.fill(flow.installer.db, flow.installer.vault, state_hash, given)
        except (TypeError, ValueError, AttributeError) as error:
            _log.error("the plugin's OAuth gave what cannot be kept", plugin=plugin, error=type(error).__name__)
            raise Refused("server_error", "the platform's answer cannot be used") from error
    except Refused as refusal:
        _log.info("oauth refused", plugin=plugin, error=refusal.name, reason=refusal.description)
        return _back(redirect_uri, visit, slug, error=refusal.name, error_description=refusal.description)
    return _back(redirect_uri, visit, slug, code=code)


async def _redeem(
    flow: OAuthFlow, visit: Visit, verifier: str | None, query: Mapping[str, Sequence[str]]
) -> Installed | SignedIn:
    """What the platform gives for the query that the person came back with. Raises Refused."""
    if error := _single(query, "error"):
        if error == "access_denied":
            raise Refused("access_denied", "the person declined at the platform")
        said = error if _WORD.fullmatch(error) else "an error"
        raise Refused("provider_refused", f"the platform says {said}")
    present = await _workspaces(flow, visit.community_id, visit.plugin)
    returned = Returned(
        type=visit.type,
        query={name: values[-1] for name, values in query.items() if name != "state"},
        redirect_uri=flow.host.callback_url(visit.plugin),
        code_verifier=verifier,
        community_platform_id=_only(present),
    )
    seconds = min(flow.installer.timeout, _LONGEST_WAIT)
    given = await _exchange(flow.host.oauth(visit.plugin), returned, seconds, visit.plugin)
    if isinstance(given, Installed):
        taken = {row["community_platform_id"] for row in present} - {""}
        if taken and given.community_platform_id not in taken:
            tokens = given.credentials.values()
            await revoke(flow.installer.db, flow.host, visit.plugin, given.community_platform_id, tokens)
            raise Refused("wrong_workspace", "the community is connected with another workspace of the platform")
    else:
        _check_workspace(given, present)
    return given


async def _exchange(oauth: OAuth[Any], returned: Returned, seconds: float, plugin: str) -> Installed | SignedIn:
    try:
        given = await ask(oauth.exchange(returned), seconds=seconds, what="the exchange", plugin=plugin)
    except OAuthDenied as error:
        raise Refused("access_denied", error.reason) from error
    except Retry as error:
        raise Refused("temporarily_unavailable", error.reason) from error
    except PluginError as error:
        raise Refused("provider_refused", error.reason) from error
    except PluginCrashed as error:
        raise Refused("server_error", "the platform's answer cannot be used") from error
    if not isinstance(given, Installed if returned.type == "app" else SignedIn):
        _log.error("exchange() returned the wrong type", plugin=plugin, type=type(given).__name__)
        raise Refused("server_error", "the platform's answer cannot be used")
    return given


def _check_workspace(given: SignedIn, present: Sequence[asyncpg.Record]) -> None:
    enabled = {row["community_platform_id"] for row in present if row["status"] != "disabled"}
    workspace = given.user.community_platform_id
    if not enabled:
        raise Refused("plugin_not_enabled", "the plugin is not enabled for the community any more")
    if workspace is not None and workspace not in enabled:
        raise Refused("wrong_workspace", "the person signed in to another workspace than the community's")


def _declared(host: Host, plugin: str) -> tuple[Loaded, type[OAuth[Any]]]:
    loaded = host.plugins.loaded.get(plugin)
    if loaded is None:
        raise Stop(404, "There is no such platform here.", "The app that made the link has its name wrong.")
    if loaded.manifest.oauth is None:
        raise Stop(404, f"{plugin} is not installed by visiting a page.", "The app enables it with a config instead.")
    return loaded, loaded.manifest.oauth


def _kind(plugin: str, oauth: type[OAuth[Any]], wanted: str) -> OAuthType:
    for kind in oauth.types:
        if kind == wanted:
            return kind
    if wanted in get_args(OAuthType):
        raise Stop(404, f"{plugin} does not offer type={wanted}.")
    raise Stop(400, "The link's type is neither app nor user.")


async def _find_driver(
    flow: OAuthFlow, redirect_uri: str, community: str | None, kind: OAuthType
) -> tuple[str, str | None]:
    if community:
        found = await flow.pool.fetch(_BY_COMMUNITY, community, redirect_uri)
    elif kind == "user":
        raise Stop(400, "The link names no community.", "Signing in is for a community: the app has to name it.")
    else:
        found = await flow.pool.fetch(_BY_REDIRECT, redirect_uri)
    if not found:
        raise Stop(
            404,
            "There is no such community, or the link returns to where its driver has not said that people may return.",
            "Whoever runs the app has to have this very redirect_uri registered: `metagov driver redirect add`.",
        )
    if len(found) > 1:
        raise Stop(400, "Several drivers return to this address.", "The link has to name the community.")
    return found[0]["driver_id"], found[0]["id"]


async def _workspaces(flow: OAuthFlow, community_id: str | None, plugin: str) -> Sequence[asyncpg.Record]:
    """The community's instances of the plugin."""
    return [] if community_id is None else await flow.pool.fetch(_INSTANCES, community_id, plugin)


def _only(present: Sequence[asyncpg.Record]) -> str | None:
    ids = {row["community_platform_id"] for row in present} - {""}
    return ids.pop() if len(ids) == 1 else None


async def _still_registered(flow: OAuthFlow, visit: Visit) -> str:
    rows = await flow.pool.fetch("SELECT uri FROM redirect_uris WHERE driver_id = $1", visit.driver_id)
    for row in rows:
        if digest(row["uri"]) == visit.redirect:
            uri: str = row["uri"]
            return uri
    raise Stop(404, "The address that this returns to is not registered any more.")


def _single(query: Mapping[str, Sequence[str]], name: str) -> str | None:
    values = query.get(name, ())
    if len(values) > 1:
        raise Stop(400, f"The link says {name} twice.")
    return values[0] if values else None


def _back(redirect_uri: str, visit: Visit, slug: str | None, **said: str) -> str:
    """The driver's redirect URI, its own query kept."""
    pairs = {"state": visit.driver_state, "community": slug, **said}
    added = urlencode({name: value for name, value in pairs.items() if value is not None}, errors="replace")
    parts = urlsplit(redirect_uri)
    return urlunsplit(parts._replace(query=f"{parts.query}&{added}" if parts.query else added))
