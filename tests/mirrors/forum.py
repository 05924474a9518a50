"""A forum on the fake Discourse with a history, what happens to it, and what a mirror of it should hold."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

import asyncpg

from app.mirrors.columns import tables_of
from plugins.discourse import manifest
from tests.fakes.discourse import FakeDiscourse
from tests.fakes.discourse_world import SMALL_ACTION, WHISPER, Post, Topic, World
from tests.mirrors.town import Rows


@dataclass(slots=True)
class Forum:
    """A forum and a hand that changes it at random, the same way each time."""

    fake: FakeDiscourse
    chance: random.Random

    @property
    def world(self) -> World:
        return self.fake.world

    def any_topic(self) -> Topic:
        return self.chance.choice(self.world.shown_topics())

    def any_post(self) -> Post:
        return self.chance.choice(self.world.shown_posts())

    def say(self, topic: Topic) -> Post:
        author = self.chance.choice(list(self.world.users.values()))
        return self.world.add_post(topic, author, f"post {len(self.world.posts)}")

    def like(self, post: Post) -> None:
        """One more likes it, or one less."""
        user = self.chance.choice(list(self.world.users))
        if user in post.likes:
            post.likes.remove(user)
        else:
            post.likes.append(user)

    def leave(self) -> None:
        """Somebody who has written nothing deletes their account, and with it their likes."""
        writers = {post.author.id for post in self.world.posts.values()}
        readers = [user for user in self.world.users if user not in writers]
        if readers:
            gone = self.chance.choice(readers)
            self.world.users.pop(gone)
            for post in self.world.posts.values():
                post.likes = [each for each in post.likes if each != gone]

    def happen(self, count: int) -> None:
        """So many things happen."""
        for _ in range(count):
            self._happen(self.chance.random())

    def _happen(self, what: float) -> None:
        world = self.world
        if what < 0.3:
            self.say(self.any_topic())
        elif what < 0.45:
            post = self.any_post()
            world.edit(post, post.raw + " (edited)")
        elif what < 0.55:
            self.any_post().deleted = True
        elif what < 0.6:
            # Withdrawn by its author: the text is another, and it is deleted later.
            post = self.any_post()
            post.user_deleted = True
            world.edit(post, "(post deleted by author)")
        elif what < 0.75:
            self.like(self.any_post())
        elif what < 0.8:
            self.any_post().hidden = True
        elif what < 0.85:
            author = self.chance.choice(list(world.users.values()))
            category = self.chance.choice(list(world.categories.values()))
            world.add_topic(author, category, f"topic {len(world.topics)}", private=what < 0.81)
        elif what < 0.9:
            topic = self.any_topic()
            topic.title, topic.closed, topic.tags = topic.title + "!", not topic.closed, ["renamed", *topic.tags[:1]]
            world.tags["renamed"] = None
        elif what < 0.92 and len(world.shown_topics()) > 3:
            self.any_topic().deleted = True
        elif what < 0.95:
            self.chance.choice(list(world.users.values())).username += "x"
        elif what < 0.97:
            world.add_user(f"newcomer{len(world.users)}")
        elif what < 0.98:
            self.leave()
        else:
            world.add_post(self.any_topic(), next(iter(world.users.values())), "closed", type=SMALL_ACTION)


def build_forum(fake: FakeDiscourse, *, topics: int, posts: int, likes: float = 0.1, people: int = 12) -> Forum:
    """A forum with a history. Some ids are those of private messages, whispers and things long gone."""
    world = fake.world
    forum = Forum(fake, random.Random(11))
    writers = [world.add_user(f"person{number}") for number in range(people)]
    for number in range(4):
        world.add_user(f"reader{number}")
    top = world.add_category("Garden")
    places = [top, world.add_category("Beds", top), world.add_category("Town")]
    world.tags.update(dict.fromkeys(("apple", "pear", "plum", "quince")))
    for number in range(topics):
        topic = world.add_topic(writers[number % people], places[number % 3], f"topic {number}")
        topic.pinned = number == 0
        topic.tags = ["apple", "plum"][: number % 3]
        if number % 5 == 0:
            world.add_topic(writers[0], top, "secret", private=True)
    for number in range(posts - topics):
        post = forum.say(forum.any_topic())
        if forum.chance.random() < likes:
            post.likes = forum.chance.sample([user.id for user in writers], forum.chance.randint(1, 5))
        if number % 40 == 0:
            world.add_post(forum.any_topic(), writers[1], "psst", type=WHISPER, skip=number % 3)
    return forum


def truth(world: World) -> Rows:
    """What the key's user may see now."""
    posts = world.shown_posts()
    return {
        "category": {
            (each.id,): {"name": each.name, "parent_category_id": each.parent} for each in world.categories.values()
        },
        "tag": {(name,): {} for name in world.tags},
        "user": {(each.id,): {"username": each.username} for each in world.users.values()},
        "topic": {
            (each.id,): {
                "title": each.title,
                "closed": each.closed,
                "tags": each.tags,
                "user_id": each.author.id,
                "category_id": each.category_id,
                "created_at": each.created_at,
            }
            for each in world.shown_topics()
        },
        "post": {
            (each.id,): {
                "raw": each.raw,
                "topic_id": each.topic_id,
                "user_id": each.author.id,
                "version": each.version,
                "user_deleted": each.user_deleted,
                "updated_at": each.updated_at,
            }
            for each in posts
        },
        "like": {(each.id, user): {"topic_id": each.topic_id} for each in posts for user in each.likes},
    }


async def mirrored(connection: asyncpg.Connection[asyncpg.Record], instance: str, like: Rows) -> Rows:
    """What the tables hold of an instance that is not deleted, in the fields that `like` has."""
    assert manifest.provider is not None
    rows: Rows = {}
    for name, table in tables_of(manifest.provider).items():
        fields = sorted({field for row in like[name].values() for field in row})
        found = await connection.fetch(
            f"SELECT * FROM {table.sql} WHERE instance_id = $1 AND deleted_at IS NULL", instance
        )
        kinds = {column.name: column.kind for column in table.columns}
        rows[name] = {
            tuple(row[each] for each in table.record.key): {
                field: json.loads(row[field]) if kinds[field] == "json" and row[field] else row[field]
                for field in fields
            }
            for row in found
        }
    return rows
