"""The Web API's methods as a fake Slack answers them; `call` finds one by its name.

Source: https://docs.slack.dev/reference/methods, and the SDK's response types.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from typing import Any

from tests.fakes.slack_blocks import faults, is_too_long
from tests.fakes.slack_state import Channel, Grant, Refused, World, as_bool, page_of

Fields = Mapping[str, Any]
Method = Callable[[World, Grant, Fields], dict[str, Any]]
METHODS: dict[str, Method] = {}

TIERS = {
    "chat.delete": 50, "chat.postEphemeral": 100, "chat.update": 50, "conversations.history": 50,
    "conversations.info": 50, "conversations.join": 50, "conversations.list": 20, "conversations.members": 100,
    "conversations.open": 50, "conversations.replies": 50, "reactions.add": 50, "reactions.get": 50,
    "reactions.remove": 20, "team.info": 50, "users.info": 100, "users.list": 20, "views.publish": 100,
}  # fmt: skip
"""Calls a minute that a workspace has of a method; those that are not here are not counted."""
NOT_MARKETPLACE = {"conversations.history": 1, "conversations.replies": 1}


def call(world: World, grant: Grant, method: str, fields: Fields) -> dict[str, Any]:
    """The answer of a method that takes a token. Raises Refused."""
    if method not in METHODS:
        raise Refused("unknown_method", req_method=method)
    return {"ok": True, **METHODS[method](world, grant, fields)}


def _method(name: str) -> Callable[[Method], Method]:
    def declare(method: Method) -> Method:
        METHODS[name] = method
        return method

    return declare


@_method("auth.test")
def _auth_test(world: World, grant: Grant, fields: Fields) -> dict[str, Any]:
    own = {"bot_id": grant.bot_id} if grant.kind == "bot" else {}
    names = {"team": grant.team.domain, "user": grant.team.members.get(grant.user_id, "")}
    return {
        "url": f"https://{grant.team.domain}.slack.com/",
        **names,
        "team_id": grant.team.id,
        "user_id": grant.user_id,
        "is_enterprise_install": grant.enterprise,
        **own,
    }


@_method("auth.revoke")
def _auth_revoke(world: World, grant: Grant, fields: Fields) -> dict[str, Any]:
    if as_bool(fields.get("test")):
        return {"revoked": False}
    grant.error = "token_revoked"
    return {"revoked": True}


@_method("apps.uninstall")
def _apps_uninstall(world: World, grant: Grant, fields: Fields) -> dict[str, Any]:
    if (fields.get("client_id"), fields.get("client_secret")) != (world.app.client_id, world.app.client_secret):
        raise Refused("client_id_token_mismatch")
    world.void(grant.team, "account_inactive")
    return {}


@_method("team.info")
def _team_info(world: World, grant: Grant, fields: Fields) -> dict[str, Any]:
    grant.require("team:read")
    return {"team": {"id": grant.team.id, "name": grant.team.domain, "domain": grant.team.domain}}


@_method("chat.postMessage")
def _post_message(world: World, grant: Grant, fields: Fields) -> dict[str, Any]:
    grant.require("chat:write")
    channel = _find(world, grant, _needed(fields, "channel"), opens=True)
    if channel.archived:
        raise Refused("is_archived")
    if grant.user_id not in channel.members and "chat:write.public" not in grant.scopes:
        raise Refused("not_in_channel")
    message = {
        "type": "message",
        "user": grant.user_id,
        "team": grant.team.id,
        "ts": world.ts(),
        "bot_id": grant.bot_id,
        "app_id": world.app.id,
        "bot_profile": {"id": grant.bot_id, "app_id": world.app.id, "name": "gateway", "team_id": grant.team.id},
        **_content(fields, longest=40_000),
    }
    if fields.get("thread_ts"):
        message["thread_ts"] = channel.find(fields["thread_ts"])["ts"]
    channel.messages.append(message)
    return {"channel": channel.id, "ts": message["ts"], "message": copy.deepcopy(message)}


@_method("chat.update")
def _update(world: World, grant: Grant, fields: Fields) -> dict[str, Any]:
    grant.require("chat:write")
    channel = _find(world, grant, _needed(fields, "channel"))
    if channel.archived:
        raise Refused("is_archived")
    message = channel.find(_needed(fields, "ts"))
    if message.get("bot_id") != grant.bot_id:
        raise Refused("cant_update_message")
    message.update(_content(fields, longest=4000))
    shown = {name: message[name] for name in ("text", "blocks", "user", "bot_id") if name in message}
    return {"channel": channel.id, "ts": message["ts"], "text": message["text"], "message": copy.deepcopy(shown)}


@_method("chat.delete")
def _delete(world: World, grant: Grant, fields: Fields) -> dict[str, Any]:
    grant.require("chat:write")
    channel = _find(world, grant, _needed(fields, "channel"))
    message = channel.find(_needed(fields, "ts"))
    if message.get("bot_id") != grant.bot_id:
        raise Refused("cant_delete_message")
    channel.messages.remove(message)
    return {"channel": channel.id, "ts": message["ts"]}


@_method("chat.postEphemeral")
def _post_ephemeral(world: World, grant: Grant, fields: Fields) -> dict[str, Any]:
    grant.require("chat:write")
    channel = _find(world, grant, _needed(fields, "channel"))
    if grant.user_id not in channel.members:
        raise Refused("not_in_channel")
    if _needed(fields, "user") not in channel.members:
        raise Refused("user_not_in_channel")
    _content(fields, longest=40_000)
    return {"message_ts": world.ts()}


@_method("chat.getPermalink")
def _permalink(world: World, grant: Grant, fields: Fields) -> dict[str, Any]:
    channel = _find(world, grant, _needed(fields, "channel"))
    ts = channel.find(_needed(fields, "message_ts"))["ts"]
    link = f"https://{grant.team.domain}.slack.com/archives/{channel.id}/p{ts.replace('.', '')}"
    return {"channel": channel.id, "permalink": link}


@_method("conversations.open")
def _open(world: World, grant: Grant, fields: Fields) -> dict[str, Any]:
    users = [user for user in str(_needed(fields, "users")).split(",") if user]
    grant.require("im:write" if len(users) == 1 else "mpim:write")
    if not users or len(users) > 8:
        raise Refused("too_many_users" if users else "users_list_not_supplied")
    if unknown := [user for user in users if user not in grant.team.members]:
        raise Refused("user_not_found", users=unknown)
    return {"channel": {"id": _direct(world, grant, users).id}}


@_method("conversations.join")
def _join(world: World, grant: Grant, fields: Fields) -> dict[str, Any]:
    grant.require("channels:join")
    channel = _find(world, grant, _needed(fields, "channel"))
    if channel.kind != "channel":
        raise Refused("method_not_supported_for_channel_type")
    if channel.archived:
        raise Refused("is_archived")
    channel.members.add(grant.user_id)
    return {"channel": channel.shown()}


@_method("conversations.list")
def _list(world: World, grant: Grant, fields: Fields) -> dict[str, Any]:
    kinds = {"public_channel": "channel", "private_channel": "group", "im": "im", "mpim": "mpim"}
    wanted = [kinds[kind.strip()] for kind in str(fields.get("types") or "public_channel").split(",")]
    for kind in wanted:
        grant.require({"channel": "channels", "group": "groups"}.get(kind, kind) + ":read")
    found = [
        channel.shown()
        for channel in grant.team.channels.values()
        if channel.kind in wanted
        and (channel.kind == "channel" or grant.user_id in channel.members)
        and not (channel.archived and as_bool(fields.get("exclude_archived")))
    ]
    page, cursor = page_of(found, fields, most=1000)
    return {"channels": page, "response_metadata": {"next_cursor": cursor}}


@_method("conversations.info")
def _info(world: World, grant: Grant, fields: Fields) -> dict[str, Any]:
    channel = _find(world, grant, _needed(fields, "channel"))
    grant.require(f"{channel.scope}:read")
    return {"channel": channel.shown()}


@_method("conversations.members")
def _members(world: World, grant: Grant, fields: Fields) -> dict[str, Any]:
    channel = _find(world, grant, _needed(fields, "channel"))
    grant.require(f"{channel.scope}:read")
    page, cursor = page_of(sorted(channel.members), fields, most=1000)
    return {"members": page, "response_metadata": {"next_cursor": cursor}}


@_method("conversations.history")
def _history(world: World, grant: Grant, fields: Fields) -> dict[str, Any]:
    channel = _readable(world, grant, fields)
    return _messages(world, [message for message in channel.messages if "thread_ts" not in message], fields)


@_method("conversations.replies")
def _replies(world: World, grant: Grant, fields: Fields) -> dict[str, Any]:
    channel = _readable(world, grant, fields)
    parent = channel.find(_needed(fields, "ts"))
    thread = [message for message in channel.messages if message.get("thread_ts", message["ts"]) == parent["ts"]]
    return _messages(world, list(reversed(thread)), fields)


@_method("users.info")
def _users_info(world: World, grant: Grant, fields: Fields) -> dict[str, Any]:
    grant.require("users:read")
    user = _needed(fields, "user")
    if user not in grant.team.members:
        raise Refused("user_not_found")
    return {"user": {"id": user, "team_id": grant.team.id, "name": grant.team.members[user]}}


@_method("users.list")
def _users_list(world: World, grant: Grant, fields: Fields) -> dict[str, Any]:
    grant.require("users:read")
    people = [{"id": user, "team_id": grant.team.id, "name": name} for user, name in grant.team.members.items()]
    page, cursor = page_of(people, fields, most=1000)
    return {"members": page, "response_metadata": {"next_cursor": cursor}}


@_method("reactions.add")
def _react(world: World, grant: Grant, fields: Fields) -> dict[str, Any]:
    grant.require("reactions:write")
    message = _find(world, grant, _needed(fields, "channel")).find(_needed(fields, "timestamp"))
    reactions = message.setdefault("reactions", {})
    if grant.user_id in reactions.get(_needed(fields, "name"), ()):
        raise Refused("already_reacted")
    reactions.setdefault(fields["name"], []).append(grant.user_id)
    return {}


@_method("reactions.remove")
def _unreact(world: World, grant: Grant, fields: Fields) -> dict[str, Any]:
    grant.require("reactions:write")
    message = _find(world, grant, _needed(fields, "channel")).find(_needed(fields, "timestamp"))
    if grant.user_id not in message.get("reactions", {}).get(_needed(fields, "name"), ()):
        raise Refused("no_reaction")
    message["reactions"][fields["name"]].remove(grant.user_id)
    return {}


@_method("reactions.get")
def _reactions(world: World, grant: Grant, fields: Fields) -> dict[str, Any]:
    grant.require("reactions:read")
    channel = _find(world, grant, _needed(fields, "channel"))
    message = copy.deepcopy(channel.find(_needed(fields, "timestamp")))
    message["reactions"] = [
        {"name": name, "users": users, "count": len(users)} for name, users in message.get("reactions", {}).items()
    ]
    return {"type": "message", "channel": channel.id, "message": message}


@_method("views.publish")
def _publish(world: World, grant: Grant, fields: Fields) -> dict[str, Any]:
    view = _decoded(_needed(fields, "view"), "view")
    if _needed(fields, "user_id") not in grant.team.members:
        raise Refused("user_not_found")
    if view.get("type") != "home" or faults(view.get("blocks")):
        raise Refused("invalid_arguments")
    return {"view": {"id": f"V{world.number()}", "team_id": grant.team.id, **view}}


def _needed(fields: Fields, name: str) -> Any:
    value = fields.get(name)
    if value in (None, ""):
        raise Refused("invalid_arguments", response_metadata={"messages": [f"[ERROR] missing required field: {name}"]})
    return value


def _find(world: World, grant: Grant, named: Any, *, opens: bool = False) -> Channel:
    """A conversation by id; where Slack takes names and people too (`opens`), by those. Raises Refused."""
    channel = grant.team.channels.get(named)
    if channel is None and opens:
        if named in grant.team.members:
            return _direct(world, grant, [named])
        channel = next((one for one in grant.team.channels.values() if one.name == str(named).removeprefix("#")), None)
    if channel is None or (channel.kind != "channel" and grant.user_id not in channel.members):
        raise Refused("channel_not_found")
    return channel


def _readable(world: World, grant: Grant, fields: Fields) -> Channel:
    channel = _find(world, grant, _needed(fields, "channel"))
    grant.require(f"{channel.scope}:history")
    if grant.user_id not in channel.members:
        raise Refused("not_in_channel")
    return channel


def _messages(world: World, messages: list[dict[str, Any]], fields: Fields) -> dict[str, Any]:
    """Newest first, as `conversations.history` has them; the payloads of metadata only for who asks."""
    oldest, latest = float(fields.get("oldest") or 0), float(fields.get("latest") or "inf")
    found = [message for message in reversed(messages) if oldest <= float(message["ts"]) <= latest]
    page, cursor = page_of(found, fields, most=999 if world.app.marketplace else 15)
    shown = copy.deepcopy(page)
    for message in shown:
        if "metadata" in message and not as_bool(fields.get("include_all_metadata")):
            message["metadata"].pop("event_payload", None)
    return {"messages": shown, "has_more": bool(cursor), "response_metadata": {"next_cursor": cursor}}


def _direct(world: World, grant: Grant, users: list[str]) -> Channel:
    """The one conversation with exactly these people."""
    members = {*users, grant.user_id}
    for channel in grant.team.channels.values():
        if channel.kind in ("im", "mpim") and channel.members == members:
            return channel
    kind = "im" if len(users) == 1 else "mpim"
    return grant.team.add_channel(f"{'D' if kind == 'im' else 'G'}0{world.number()}", kind=kind, members=members)


def _content(fields: Fields, *, longest: int) -> dict[str, Any]:
    """What a message says: text, blocks, attachments, metadata. Raises Refused."""
    content: dict[str, Any] = {"text": str(fields.get("text") or "")}
    if len(content["text"]) > longest:
        raise Refused("msg_too_long")
    for name in ("blocks", "attachments"):
        if fields.get(name) not in (None, ""):
            content[name] = _decoded(fields[name], name)
    if found := faults(content.get("blocks", [])):
        raise Refused("invalid_blocks", errors=found, response_metadata={"messages": found})
    if is_too_long(content.get("blocks", [])):
        raise Refused("msg_blocks_too_long")
    if not content["text"] and not content.get("blocks") and not content.get("attachments"):
        raise Refused("no_text")
    if fields.get("metadata") not in (None, ""):
        metadata = _decoded(fields["metadata"], "metadata")
        if metadata and not (isinstance(metadata.get("event_type"), str) and "event_payload" in metadata):
            raise Refused("invalid_metadata_format")
        content["metadata"] = metadata
    return content


def _decoded(value: Any, name: str) -> Any:
    """A structured argument: JSON in a form, itself in JSON. Raises Refused."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise Refused("invalid_blocks" if name == "blocks" else "invalid_arguments") from None
