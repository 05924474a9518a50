"""self.accounts: what a plugin may link, and what the test kit shows of it."""

from __future__ import annotations

from typing import Any

import pytest

from metagov_sdk import AccountLink, Accounts, Config, Manifest, Model, Plugin, action
from metagov_sdk.testing import bind, perform


class Nothing(Model):
    """No parameters."""


class Forum(Plugin[Config]):
    """A forum."""

    name = "forum"

    @action("greet")
    async def greet(self, params: Nothing) -> Nothing:
        """Greet two people."""
        self.accounts.link("u1")
        self.accounts.link(
            "u2", external_id="mid_1", link_type="oauth", link_quality="confirmed (strong)", custom_data={"a": 1}
        )
        return params


async def test_the_test_kit_shows_links() -> None:
    ran = await perform(Manifest(Forum), "greet", {})
    assert ran.links == [
        AccountLink("u1"),
        AccountLink("u2", "mid_1", "oauth", "confirmed (strong)", {"a": 1}),
    ]


def test_links_are_part_of_what_a_call_emitted() -> None:
    plugin = bind(Forum)
    assert not plugin.emitted
    plugin.accounts.link("u1")
    plugin.accounts.link("u2")
    assert plugin.emitted
    assert [link.platform_identifier for link in plugin.emitted.links] == ["u1", "u2"]
    plugin.emitted.clear()
    assert not plugin.emitted


@pytest.mark.parametrize("identifier", ["", "x" * 501, "a\0b", "\ud800", "a\udfff"])
def test_an_identifier_that_cannot_be_kept_is_refused(identifier: str) -> None:
    links: list[AccountLink] = []
    with pytest.raises(ValueError, match="platform_identifier"):
        Accounts(links).link(identifier)
    assert links == []


@pytest.mark.parametrize(
    "data",
    [{"a": float("nan")}, {"a": object()}, {"a": "\ud800"}, {"a": "x" * 16_400}, {"a": "\U0001f3b2" * 4_100}],
    ids=["nan", "object", "surrogate", "long", "long in bytes"],
)
def test_custom_data_that_cannot_be_kept_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="custom_data"):
        Accounts([]).link("u1", custom_data=data)


def test_an_unsigned_hook_can_link_nothing() -> None:
    with pytest.raises(RuntimeError, match="unsigned"):
        Accounts([], may_link=False).link("u1")


def test_custom_data_is_not_shown_by_repr() -> None:
    assert "private" not in repr(AccountLink("u1", custom_data={"a": "private"}))
