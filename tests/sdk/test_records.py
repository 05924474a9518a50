"""Records: whatever a platform sends becomes a row that Postgres takes, and nothing of it is lost."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metagov_sdk import ManifestError, Record, at
from metagov_sdk.provider.values import HUGE


class Post(Record):
    """A post."""

    table = "post"
    key = ("id",)
    partition = "topic"
    time = "written"
    ignored = ("noise", "user")

    id: str
    topic: str | None
    author: str | None = at("user", "name")
    likes: int | None
    hidden: bool | None
    written: datetime | None
    tags: list[str] | None
    place: str | None = at("where", "town")


def test_fields_are_read_from_where_they_are() -> None:
    raw = {
        "id": "p1",
        "topic": "t",
        "user": {"name": "ada", "avatar": "x"},
        "likes": 3,
        "hidden": False,
        "written": "2026-01-02T03:04:05+02:00",
        "tags": ["a"],
        "where": {"town": "Ulm", "street": "Weg"},
        "noise": 9,
        "new": {"deep": [1]},
    }
    row = Post.read(raw)
    assert (row.id, row.author, row.likes, row.hidden, row.tags, row.place) == ("p1", "ada", 3, False, ["a"], "Ulm")
    assert row.written == datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC)
    assert row.extra == {"new": {"deep": [1]}, "where": {"street": "Weg"}}
    assert row.flags == ()


def test_what_does_not_fit_stays_in_extra_and_is_flagged() -> None:
    row = Post.read({"id": "p1", "likes": "many", "hidden": 1, "written": "yesterday", "tags": "a", "topic": ["t"]})
    assert [row.likes, row.hidden, row.written, row.tags, row.topic] == [None] * 5
    assert set(row.flags) == {f"type:{name}" for name in ("likes", "hidden", "written", "tags", "topic")}
    assert row.extra == {"likes": "many", "hidden": 1, "written": "yesterday", "tags": "a", "topic": ["t"]}


def test_an_id_that_is_a_number_is_still_the_id() -> None:
    assert Post.read({"id": 42}).key_values == ("42",)


@pytest.mark.parametrize("raw", [None, [], "text", 7, {}, {"id": None}, {"id": ""}, {"id": {}}, {"id": "x" * 600}])
def test_a_row_without_a_usable_key_has_none(raw: Any) -> None:
    assert Post.read(raw).key_values is None


def test_texts_that_no_database_takes_are_kept_in_words() -> None:
    row = Post.read({"id": "p", "topic": "a\0b\ud800c", "new": "x\0y"})
    assert row.topic == "a\ufffdb\ufffdc"
    assert row.flags == ("text:topic", "text:extra")
    assert json.loads(row.extra["unstorable"]) == {"new": "x\0y", "topic": "a\0b\ud800c"}


def test_a_huge_text_is_kept_whole() -> None:
    row = Post.read({"id": "p", "topic": "x" * (HUGE + 1)})
    assert row.topic == "x" * (HUGE + 1)
    assert row.flags == ("huge:topic",)
    assert row.extra == {}


def test_integers_beyond_a_column_stay_in_extra() -> None:
    row = Post.read({"id": "p", "likes": 2**70})
    assert (row.likes, row.extra, row.flags) == (None, {"likes": 2**70}, ("type:likes",))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
NAMES = st.sampled_from(["id", "topic", "user", "likes", "hidden", "written", "tags", "where", "noise", "new"])


@given(st.dictionaries(NAMES, JSON) | JSON)
def test_any_json_becomes_a_row_that_can_be_stored(raw: Any) -> None:
    row = Post.read(raw)
    # What Postgres refuses: NUL and half surrogate pairs in texts, NaN in JSON, integers beyond eight bytes.
    stored = json.dumps(row.extra, allow_nan=False, ensure_ascii=False)
    assert "\\u0000" not in stored.replace("\\\\", "")
    stored.encode()
    for column in Post.columns:
        value = getattr(row, column.name)
        if isinstance(value, str):
            value.encode()
            assert "\0" not in value
        if column.kind == "integer":
            assert value is None or -(2**63) <= value < 2**63
    if isinstance(raw, dict):
        # Everything is in a field, in extra, or known not to be worth keeping.
        for name, value in raw.items():
            kept = name in Post.ignored or name in row.extra or "unstorable" in row.extra or value in (None, {}, [])
            assert kept or getattr(row, name, None) is not None or name == "where", name


def make(fields: dict[str, Any], **more: Any) -> type[Record]:
    namespace = {"__annotations__": fields, "__doc__": "A row.", "__module__": __name__, "table": "row", "key": ("id",)}
    return type("Row", (Record,), {**namespace, **more})


@pytest.mark.parametrize(
    ("fields", "more", "reason"),
    [
        ({"id": str, "score": float | None}, {}, "float"),
        ({"id": str, "title": str}, {}, "should allow None"),
        ({"id": str | None}, {}, "should not allow None"),
        ({"id": datetime}, {}, "part of the key"),
        ({"id": str}, {"key": ("other",)}, "no field 'other'"),
        ({"id": str}, {"key": ()}, "no key"),
        ({"id": str}, {"table": 'x"; DROP'}, "lower-case"),
        ({"id": str, "community_id": str | None}, {}, "cannot be named"),
        ({"id": str, "when": str | None}, {"time": "when"}, "should be a datetime"),
    ],
)
def test_records_that_cannot_be_tables_are_refused(fields: Any, more: dict[str, Any], reason: str) -> None:
    with pytest.raises(ManifestError, match=reason):
        make(fields, **more)


def test_the_json_schema_names_what_an_archive_has() -> None:
    schema = Post.json_schema()
    assert schema["required"] == ["id"]
    assert schema["properties"]["likes"] == {"type": ["integer", "null"]}
    assert schema["properties"]["written"] == {"type": ["string", "null"], "format": "date-time"}
    assert {"extra", "deleted_at"} <= schema["properties"].keys()


class Described(Record):
    """With words."""

    table: ClassVar[str] = "described"
    key: ClassVar[tuple[str, ...]] = ("id",)

    id: str
    name: str | None
    """What people call it."""


def test_descriptions_are_in_the_schema() -> None:
    assert Described.json_schema()["properties"]["name"]["description"] == "What people call it."


@pytest.mark.parametrize("levels", [70, 200, 500, 5000])
def test_what_is_nested_too_deep_for_archives_is_kept_as_text(levels: int) -> None:
    deep: Any = "ground"
    for _ in range(levels):
        deep = [deep]
    row = Post.read({"id": "1", "new": deep})
    assert row.flags == ("text:extra",)
    assert set(row.extra) == {"unstorable"}
    assert json.loads(row.extra_json) == row.extra
