"""A fake forum, whose every request is held to Discourse's published document when a test ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from metagov_sdk.testing import Binding, bind
from plugins.discourse import manifest
from plugins.discourse.plugin import Discourse
from plugins.discourse.provider import DiscourseMirror
from tests.fakes.discourse import FakeDiscourse
from tests.support.discourse_spec import is_here, load_spec


@pytest.fixture(scope="session")
async def discourse_server() -> AsyncIterator[FakeDiscourse]:
    async with FakeDiscourse() as fake:
        yield fake


@pytest.fixture
def forum(discourse_server: FakeDiscourse) -> Iterator[FakeDiscourse]:
    """A forum of which nothing has been asked yet."""
    discourse_server.reset()
    yield discourse_server
    # Where the document is absent, test_spec.py says so.
    if is_here():
        assert load_spec().faults(discourse_server.requests) == []


@pytest.fixture
async def binding(forum: FakeDiscourse) -> AsyncIterator[Binding]:
    """What runs the plugin's code against the fake, without a gateway, whose work it is to keep to limits."""
    async with httpx.AsyncHTTPTransport() as transport:
        yield Binding(config=forum.config(), transport=transport)


@pytest.fixture
def plugin(binding: Binding) -> Discourse:
    bound = bind(manifest, **binding)
    assert isinstance(bound, Discourse)
    return bound


@pytest.fixture
def provider(plugin: Discourse) -> DiscourseMirror:
    return DiscourseMirror(plugin)
