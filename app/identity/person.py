"""How an account is recognised in what platforms, drivers and plugins have sent, and taken out of it. Pure.

An account is found as a value: `"user_id": "4242"`. How freely depends on how telling it is. Eight characters and more
with a digit among them are found wherever they stand, in texts and addresses too; a word (`ada`) as a whole value; a
short number only where the name beside it speaks of people, because 3 is also a count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from urllib.parse import quote_plus, unquote_plus

NOBODY = "(forgotten)"
"""What stands where an account was named."""
_LONG = 8
_SHORTEST_NAME = 2
_OF_PEOPLE = re.compile(
    r"(?i)(^|_)(user|users|author|authors|voter|voters|member|members|owner|actor|who|account|recipients?|"
    r"participants?|people|person|sender|poster|reactor|by|platform_identifier)(_?ids?|_identifier)?$"
)
_BY_PEOPLE = frozenset({"votes", "voters", "choices", "weights", "eligible_voters", "ineligible_voters"})
"""Objects with these names have people for keys."""
_OF_NAMES = re.compile(
    r"(?i)(^|_)(user_?name|login|nick|nick_?name|display_?name|global_?name|real_?name|handle|acct|author|"
    r"author_?name|user|poster|full_?name)$"
)


@dataclass(frozen=True)
class Person:
    """An account of one platform, and what else names whoever has it.

    names   as the platform shows them: whole values beside a name that speaks of names, and never words of a text.
    marks   how texts name the account: `<@4242>`, `@ada`.
    ids     MetagovIDs that nobody else has.
    """

    account: str
    names: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    known: bool = True
    """False where another platform speaks, and the account could be anybody's there."""

    def elsewhere(self) -> Person:
        """The same, as found in what does not come from its platform."""
        return self if not self.account.isdigit() or self._is_long else replace(self, known=False, names=(), marks=())

    @cached_property
    def _is_long(self) -> bool:
        return len(self.account) >= _LONG and any(each.isdigit() for each in self.account)

    @cached_property
    def _values(self) -> frozenset[str]:
        telling = {self.account} if self.known and not self.account.isdigit() else set()
        return frozenset({*self.ids, *telling, *([self.account] if self._is_long and self.known else [])})

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(name for name in self.names if len(name) >= _SHORTEST_NAME)

    @cached_property
    def _in_texts(self) -> re.Pattern[str] | None:
        """What is taken out of texts."""
        found = [*self.marks, *self.ids, *([self.account] if self._is_long and self.known else [])]
        return _any_of(found)

    @cached_property
    def _trace(self) -> re.Pattern[str]:
        """What is in every text that names the person; far from each that it is in does."""
        found = [*self.marks, *self.ids, *self._names, *([self.account] if self.known else [])]
        spelt = [*found, *(json.dumps(each)[1:-1] for each in found)]
        return _any_of(spelt) or re.compile(r"(?!)")

    @property
    def posix(self) -> str:
        """A regular expression of Postgres that fits each JSON text or plain text in which the person may be named."""
        found = [*self.marks, *self.ids, *self._names, *([self.account] if self.known else [])]
        spelt = dict.fromkeys(
            form
            for each in found
            for form in (each, json.dumps(each, ensure_ascii=False)[1:-1], json.dumps(each)[1:-1])
        )
        return "|".join(_bounded(each, r"\m", r"\M") for each in spelt) or r"a\A"

    @property
    def posix_in_bytes(self) -> str:
        """The same for bytes in Postgres' "escape" spelling, forms (`%3C%404242`) among them."""
        found = [*self.marks, *self.ids, *self._names, *([self.account] if self.known else [])]
        spelt = [form for each in found for form in (each, json.dumps(each)[1:-1], quote_plus(each))]
        bare = [re.escape(_escaped(each)) for each in spelt if not each.isdigit() or len(each) >= _LONG]
        short = [_bounded(each, r"\m", r"\M") for each in spelt if each.isdigit() and len(each) < _LONG]
        return "|".join(dict.fromkeys([*bare, *short])) or r"a\A"

    def may_be_in(self, text: str) -> bool:
        """Whether it is worth looking closely at a text."""
        return self._trace.search(text) is not None

    def is_in_text(self, text: str) -> bool:
        """Whether a text names the person."""
        return self._in_texts is not None and self._in_texts.search(text) is not None

    def out_of_text(self, text: str, nobody: str = NOBODY) -> str:
        """The text with `nobody` where it names the person."""
        return text if self._in_texts is None else self._in_texts.sub(lambda _: nobody, text)

    def is_account(self, value: object, name: str = "", beside: Mapping[str, Any] | None = None) -> bool:
        """Whether a JSON value is the account; `name` is the name it has in the object `beside`."""
        if not isinstance(value, str | int) or isinstance(value, bool):
            return False
        if str(value) in self._values:
            return True
        if not self.known or str(value) != self.account:
            return False
        return bool(_OF_PEOPLE.search(name)) or (name == "id" and any(map(_OF_NAMES.search, beside or ())))

    def acts_in(self, data: Mapping[str, Any]) -> bool:
        """Whether an object is something that the person did: a value of its own that speaks of people is them."""
        return any(_OF_PEOPLE.search(name) and self.is_account(value, name) for name, value in data.items())

    def is_in(self, value: Any) -> bool:
        """Whether a JSON value names the person."""
        return bool(self.out_of(value) != value)

    def out_of(self, value: Any, nobody: str = NOBODY, *, keep_places: bool = False, name: str = "") -> Any:
        """A JSON value without the person: `nobody` in place of values and in texts, and nothing in lists.

        keep_places: also in lists `nobody` stands where the person was. A list that was sorted is sorted then.
        """
        if isinstance(value, str):
            if self.is_account(value, name) or (value in self._names and _OF_NAMES.search(name)):
                return nobody
            return self.out_of_text(value, nobody)
        if isinstance(value, list):
            return self._out_of_list(value, nobody, keep_places, name)
        if isinstance(value, dict):
            return self._out_of_object(value, nobody, keep_places, name)
        return nobody if self.is_account(value, name) else value

    def _out_of_list(self, value: list[Any], nobody: str, keep_places: bool, name: str) -> list[Any]:
        found = [
            self.out_of(each, nobody, keep_places=keep_places, name=name)
            for each in value
            if keep_places or isinstance(each, dict | list) or not self.is_account(each, name)
        ]
        if keep_places and found != value and all(isinstance(each, str) for each in value) and value == sorted(value):
            return sorted(found)
        return found

    def _out_of_object(self, value: dict[str, Any], nobody: str, keep_places: bool, name: str) -> Any:
        if not keep_places and self.is_account(value.get("id"), "id", value):
            return nobody
        found: dict[str, Any] = {}
        for key, each in value.items():
            named = key in self._values or (name in _BY_PEOPLE and self.known and key == self.account)
            kept = nobody if named else self.out_of_text(key, nobody)
            if self.is_account(each, key, value):
                found[kept] = nobody
            else:
                found[kept] = self.out_of(each, nobody, keep_places=keep_places, name=key)
        return found

    def is_in_key(self, text: str) -> bool:
        """Whether a text that is no JSON and nobody's prose (a key, an address) names the person."""
        trace = self._in_keys
        return trace is not None and trace.search(text) is not None

    @cached_property
    def _in_keys(self) -> re.Pattern[str] | None:
        return _any_of([*self._values, *self.marks])

    def is_in_body(self, body: bytes) -> bool:
        """Whether a request's or an answer's body names the person: JSON, a form, or any text."""
        text = body.decode(errors="replace")
        if not self.may_be_in(text) and not self.may_be_in(unquote_plus(text)):
            return False
        try:
            return self.is_in(json.loads(text))
        except ValueError:
            return self.is_in_key(text) or self.is_in_key(unquote_plus(text))


def _escaped(text: str) -> str:
    """As `encode(…, 'escape')` spells its UTF-8."""
    spelt = (chr(byte) if byte < 128 else f"\\{byte:03o}" for byte in text.encode(errors="replace"))
    return "".join("\\\\" if each == "\\" else each for each in spelt)


def _any_of(texts: Sequence[str]) -> re.Pattern[str] | None:
    # The longest first: `@ada.b` is not to leave `.b` behind when `@ada` is one of them, too.
    spelt = sorted({each for each in texts if each}, key=lambda each: (-len(each), each))
    return re.compile("|".join(_bounded(each, r"(?<!\w)", r"(?!\w)") for each in spelt)) if spelt else None


def _bounded(text: str, before: str, after: str) -> str:
    """`@ada` is not in `@adam`, nor in `x@ada.example`."""
    # Postgres' words begin with no sign; what it finds is looked at closely anyway.
    start = before if re.match(r"\w", text[0]) or (text[0] == "@" and before != r"\m") else ""
    end = after if re.match(r"\w", text[-1]) else ""
    return start + re.escape(text) + end
