"""Somebody whose account is a short number: they go, and whatever else has that number stays."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.fakes.discourse import FakeDiscourse
from tests.mirrors.forgetting import Deletion, deletion
from tests.mirrors.forum import build_forum
from tests.mirrors.test_discourse import ForumMirror, _no_pace, discourse_server, fake, mirror
from tests.support.traces import traces

__all__ = ["_no_pace", "deletion", "discourse_server", "fake", "mirror"]


async def test_a_short_number_is_looked_for_beside_people_only(
    mirror: ForumMirror, fake: FakeDiscourse, deletion: Deletion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror.use, "keep_answers", True)
    forum = build_forum(fake, topics=12, posts=120, likes=0.4)
    pool = mirror.gateway.db.pool
    posts = Counter(post.author.id for post in forum.world.shown_posts())
    account, count = posts.most_common(1)[0]
    user = forum.world.users[account]
    user.username = "zorblax_quill"
    other = next(post for post in forum.world.shown_posts() if post.author.id != account)
    other.raw = f"I agree with @zorblax_quill on {account} of {account}"
    await mirror.sync(sweep=True)
    await deletion.archive(mirror)
    bodies = {
        "1": {"post": {"id": 9, "user_id": account}},
        "2": {"post": {"id": account, "user_id": 999, "score": account}},
        "3": {"post": {"id": 10, "user_id": 998, "raw": "hello @zorblax_quill"}},
    }
    for number, body in bodies.items():
        await pool.execute(
            "INSERT INTO receipts (id, community_id, instance_id, plugin, hook, status, headers, body, next_at) "
            "SELECT $2, community_id, id, plugin, '', 'done', '[]', $3, NULL FROM instances WHERE id = $1",
            mirror.instance,
            f"rct_01kf000000000000000000000{number}",
            json.dumps(body).encode(),
        )
    tables = ("category", "like", "post", "tag", "topic", "user")
    before = {name: await pool.fetchval(f'SELECT count(*) FROM mirror_discourse."{name}"') for name in tables}

    done = await deletion.carry_out(mirror, str(account))

    assert (done.finished, done.waits) == (True, None)
    assert done.report.rows["discourse.post"] == count
    assert done.report.rows["discourse.user"] == 1
    after = {name: await pool.fetchval(f'SELECT count(*) FROM mirror_discourse."{name}"') for name in tables}
    assert {name: before[name] - after[name] for name in tables} == {
        name: done.report.rows.get(f"discourse.{name}", 0) for name in tables
    }
    assert [held.newest for held in done.report.held] == [False]
    assert [row["id"][-1] for row in await pool.fetch("SELECT id FROM receipts")] == ["2"]
    assert await traces(pool, ["zorblax"]) == {}
    assert await deletion.head_has(mirror, ["zorblax"]) == set()
    kept = await pool.fetchval("SELECT raw FROM mirror_discourse.post WHERE id = $1", other.id)
    assert kept == f"I agree with (forgotten) on {account} of {account}"
    assert await pool.fetchval("SELECT count(*) FROM mirror_bodies") > 0, "answers about others are kept"
