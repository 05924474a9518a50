"""What one driver tries of another's, and how that is to be answered: a case for each operation of the document."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

ASKED = {"title": "Which tree?", "options": ["apple", "pear"]}
FILLED = {
    "slug": "{slug}",
    "community": "{slug}",
    "plugin": "probe",
    "hook": "hint",
    "name": "ballot.vote",
    "instance_id": "{instance}",
    "process_id": "{process}",
    "receipt_id": "{receipt}",
    "endpoint_id": "{endpoint}",
    "delivery_id": "{delivery}",
    "snapshot": "{snapshot}",
    "sha256": "{blob}",
    "table": "probe.message",
    "share_id": "{share}",
}
"""What stands in an operation's path, unless a case has a path of its own."""


@dataclass(frozen=True, slots=True)
class Try:
    """One request of ours, with the other's `{slug}`, `{instance}` and so on where those stand; what it is answered.

    as_unknown: the answer is the same, word for word, when all of these are made up.
    """

    status: int
    body: Any = None
    query: dict[str, str] = field(default_factory=dict)
    path: str = ""
    header: str = "town"
    slug: str = ""
    as_unknown: bool = True


PERSON = {"community_slug": "{slug}", "platform_type": "probe", "platform_identifier": "u1"}
OWN_PERSON = {**PERSON, "community_slug": "town"}
SINCE = {"since": "2020-01-01T00:00:00Z"}

# fmt: off
CASES: dict[str, list[Try]] = {
    "PUT /api/internal/community/{slug}": [
        Try(409, {"readable_name": "ours"}, slug="slug-taken", as_unknown=False),
        Try(422, {"readable_name": "ours", "slug": "{slug}"}, path="/api/internal/community/town"),
        Try(422, {"readable_name": "ours", "plugins": [{"name": "probe", "config": {"label": "a", "team": "{team}"}}]},
            path="/api/internal/community/town"),
    ],
    "GET /api/internal/community/{slug}": [Try(404)],
    "DELETE /api/internal/community/{slug}": [Try(404)],
    "POST /api/internal/community": [
        Try(409, {"readable_name": "ours", "slug": "{slug}"}, slug="slug-taken", as_unknown=False),
    ],
    "GET /api/internal/community": [Try(200)],
    "GET /api/internal/community/{slug}/hooks": [Try(404)],
    "GET /api/internal/plugin": [Try(200)],
    "POST /api/internal/plugin/{plugin}": [Try(422, {"label": "b", "team": "{team}"})],
    "GET /api/internal/plugin/{plugin}/{instance_id}": [Try(404)],
    "PATCH /api/internal/plugin/{plugin}/{instance_id}": [
        Try(404, {"enabled": False}), Try(404, {"config": {"label": "b"}}), Try(404, {}),
    ],
    "DELETE /api/internal/plugin/{plugin}/{instance_id}": [Try(404)],
    "GET /api/internal/process": [Try(200), Try(200, query={"status": "pending", "plugin": "ballot"})],
    "GET /api/internal/process/{name}/{process_id}": [
        Try(404), Try(404, path="/api/internal/process/probe.vote/{process}"),
    ],
    "DELETE /api/internal/process/{name}/{process_id}": [Try(404)],
    "GET /api/internal/process/{name}/{process_id}/history": [Try(404)],
    "GET /api/internal/mirror/{plugin}": [
        Try(404), Try(404, query={"community_platform_id": "{team}"}),
        Try(404, path="/api/internal/mirror/discord", query={"community_platform_id": "{team}"}),
    ],
    "POST /api/internal/mirror/{plugin}/sync": [
        Try(404, {}), Try(404, {"sweep": True}, path="/api/internal/mirror/discord/sync"),
        Try(404, {}, path="/api/internal/mirror/discord/sync", query={"community_platform_id": "{team}"}),
    ],
    "GET /api/internal/receipts": [Try(200), Try(200, query={"plugin": "probe", "status": "stored"})],
    "GET /api/internal/receipts/{receipt_id}": [Try(404)],
    "POST /api/internal/receipts/replay": [Try(202, {"status": "done"}), Try(202, {"status": "done", **SINCE})],
    "POST /api/internal/receipts/{receipt_id}/replay": [Try(404)],
    "GET /api/internal/events": [
        Try(200), Try(200, query={"community": "{slug}"}),
        Try(200, query={"source": "ballot", "after": "{cursor}"}, as_unknown=False),
    ],
    "GET /api/internal/driver/endpoints": [Try(200)],
    "POST /api/internal/driver/endpoints": [
        Try(201, {"url": "{sink}/spy", "communities": ["{slug}"]}, as_unknown=False),
        Try(201, {"url": "{their_url}"}, as_unknown=False),
    ],
    "GET /api/internal/driver/endpoints/{endpoint_id}": [Try(404)],
    "PATCH /api/internal/driver/endpoints/{endpoint_id}": [
        Try(404, {"status": "disabled"}), Try(404, {"url": "{sink}/spy"}), Try(404, {"events": []}),
    ],
    "DELETE /api/internal/driver/endpoints/{endpoint_id}": [Try(404)],
    "POST /api/internal/driver/endpoints/{endpoint_id}/rotate-secret": [Try(404)],
    "POST /api/internal/driver/endpoints/{endpoint_id}/test": [Try(404)],
    "POST /api/internal/driver/endpoints/{endpoint_id}/recover": [Try(404, SINCE)],
    "POST /api/internal/driver/rotate-secret": [Try(200, as_unknown=False)],
    "GET /api/internal/deliveries": [Try(200), Try(200, query={"endpoint": "{endpoint}"})],
    "POST /api/internal/deliveries/{delivery_id}/retry": [Try(404)],
    "GET /api/internal/deliveries/{delivery_id}/attempts": [Try(404)],
    "POST /api/internal/identity/create_id": [Try(404, {"community_slug": "{slug}"})],
    "POST /api/internal/identity/merge_ids": [
        Try(404, {"primary_instance_id": "{person}", "secondary_instance_id": "{own_person}"}),
        Try(404, {"primary_instance_id": "{own_person}", "secondary_instance_id": "{person}"}),
        Try(404, {"primary_instance_id": "{person}", "secondary_instance_id": "{person}"}),
    ],
    "POST /api/internal/identity/link_account": [
        Try(404, {"external_id": external_id, **account})
        for external_id, account in (("{person}", PERSON), ("{person}", OWN_PERSON), ("{own_person}", PERSON))
    ],
    "POST /api/internal/identity/unlink_account": [
        Try(404, {"external_id": "{person}", **PERSON}), Try(404, {"external_id": "{person}", **OWN_PERSON}),
    ],
    "GET /api/internal/identity/get_user": [Try(404, query={"external_id": "{person}"})],
    "GET /api/internal/identity/get_users": [
        Try(404, query={"community": "{slug}"}), Try(404, query={"community_slug": "{slug}"}),
        Try(200, query={"community": "town", "community_platform_id": "{team}"}),
    ],
    "GET /api/internal/identity/filter_users_by_account": [
        Try(404, query={"external_id_list": "{own_person},{person}"}),
        Try(404, query={"external_id_list": "{own_person}", "community": "{slug}"}),
    ],
    "GET /api/internal/identity/get_linked_account": [
        Try(404, query={"external_id": "{person}", "platform_type": "probe"}),
        Try(404, query={"external_id": "{own_person}", "platform_type": "probe", "community": "{slug}"}),
    ],
    "POST /api/internal/oauth/exchange": [Try(404, {"code": "{oauth_code}"})],
    "GET /api/internal/graph": [Try(200)],
    "POST /api/internal/graph/{plugin}/build": [Try(404, path="/api/internal/graph/meetings/build")],
    "POST /api/internal/graph/{plugin}/shares": [Try(404, path="/api/internal/graph/meetings/shares")],
    "DELETE /api/internal/graph/{plugin}/shares/{share_id}": [
        Try(404, path="/api/internal/graph/props/shares/{share}"),
        Try(404, path="/api/internal/graph/meetings/shares/{share}"),
    ],
    "GET /api/internal/archive/{plugin}": [Try(200)],
    "GET /api/internal/archive/{plugin}/manifest/{snapshot}": [Try(404)],
    "GET /api/internal/archive/{plugin}/blob/{sha256}": [Try(404)],
    "GET /api/internal/archive/{plugin}/table/{table}": [Try(404), Try(404, query={"snapshot": "{snapshot}"})],
    "POST /api/hooks/{community}/{plugin}": [Try(401, {"text": "forged"}, as_unknown=False)],
    "POST /api/action/ballot.cast": [
        Try(404, {"parameters": {"process_id": "{process}", "voter": "ada", "choice": "apple"}}),
        # Nor is it told by what would be wrong there: who may vote, and on what.
        Try(404, {"parameters": {"process_id": "{process}", "voter": "eve", "choice": "apple"}}),
        Try(404, {"parameters": {"process_id": "{process}", "voter": "ada", "choice": "lemon"}}),
        Try(404, {"parameters": {"process_id": "{process}", "voter": "eve", "choice": "apple"},
                  "community_platform_id": "{team}"}),
    ],
    # A command's token is its instance's; without one, whatever is named is not there.
    "POST /api/action/discord.reply-to-command": [
        Try(404, {"parameters": {"interaction_id": "1146734829", "text": "ours now"}}),
    ],
    "POST /api/internal/process/ballot.vote": [
        Try(404, {**ASKED, "community_platform_id": "{team}"}),
        Try(404, {**ASKED, "community_platform_id": "{team}", "callback_url": "{their_url}"}),
    ],
}
# fmt: on
OPEN = {
    "GET /api/internal/plugin-schemas": "what is installed, nobody's",
    "GET /api/internal/plugin/{plugin}/metadata": "what is installed, nobody's",
    "GET /api/internal/events/stream": "test_the_stream_is_ones_own",
    "POST /api/hooks/{community}/{plugin}/{hook}": "platforms call it; the hook's own verification decides",
    "POST /api/hooks/{plugin}": "test_tenancy.test_the_shared_hook_url_reaches_no_unbound_claim",
    "GET /auth/{plugin}/authorize": "people visit it; test_oauth_visits: unknown and foreign read alike",
    "GET /auth/{plugin}/callback": "people visit it; the state decides",
    "GET /api/graphs/{token}/graph.json": "whoever has the token may; test_shares",
    "GET /api/graphs/{token}/declaration.json": "whoever has the token may; test_shares",
    "GET /api/graphs/{token}/identityProposals.json": "whoever has the token may; test_shares",
    "GET /healthz": "says nothing of anybody",
    "GET /readyz": "says nothing of anybody",
}
"""Operations without a case, and why."""
