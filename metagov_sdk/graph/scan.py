"""JSON, a value at a time: lists of millions are read without ever being held."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from metagov_sdk.graph.errors import GraphTooLarge, UnreadableGraph

_PIECE = 2**18
_SPACE = re.compile(r"[ \t\n\r]*")


def below(pointer: str, name: str | int) -> str:
    """The JSON pointer of a member or an item of what `pointer` points to."""
    return f"{pointer}/{str(name).replace('~', '~0').replace('/', '~1')}"


class JsonScanner:
    """Goes through a document from its bytes. All raise UnreadableGraph with the place.

    longest: of one value, in characters, that `value` takes.
    """

    def __init__(self, pieces: Iterator[bytes], longest: int) -> None:
        self._pieces = pieces
        self._longest = longest
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._ended = False
        self._text = ""
        self._at = 0
        self._parse = json.JSONDecoder(parse_constant=_no_constant).raw_decode

    def take(self, wanted: str, pointer: str) -> None:
        """Go past a character that has to come."""
        if not self.skip(wanted):
            self._wrong(pointer, f"{wanted} should come here")

    def skip(self, wanted: str) -> bool:
        """Go past a character, if it comes."""
        if self._next() != wanted:
            return False
        self._at += 1
        return True

    def items(self, pointer: str) -> Iterator[int]:
        """The positions in an array; read each item before the next."""
        self.take("[", pointer)
        if self.skip("]"):
            return
        index = 0
        while True:
            yield index
            index += 1
            if not self.skip(","):
                break
        self.take("]", below(pointer, index))

    def members(self, pointer: str) -> Iterator[str]:
        """The names in an object, each once; read each member's value before the next."""
        self.take("{", pointer)
        if self.skip("}"):
            return
        while True:
            name = self.value(pointer)
            if not isinstance(name, str):
                raise UnreadableGraph(pointer, "a member's name should be a string")
            self.take(":", below(pointer, name))
            yield name
            if not self.skip(","):
                break
        self.take("}", pointer)

    def value(self, pointer: str) -> Any:
        """A whole value."""
        self._next()
        while True:
            try:
                value, end = self._parse(self._text, self._at)
            except RecursionError:
                raise UnreadableGraph(pointer, "it is nested too deep") from None
            except json.JSONDecodeError as error:
                if not self._longer(pointer):
                    raise UnreadableGraph(pointer, f"it is no JSON ({error.msg})") from None
            except ValueError:
                raise UnreadableGraph(pointer, "a number in it is NaN, infinite, or of thousands of digits") from None
            else:
                # A number that ends where the text does may go on.
                if end < len(self._text) or not self._longer(pointer):
                    self._at = end
                    return value

    def end(self) -> None:
        """Nothing more may come."""
        if self._next():
            self._wrong("", "something follows the end of the document")

    def _next(self) -> str:
        """The next character that is no space, or nothing at the end."""
        while True:
            at = self._at = _end_of_space(self._text, self._at)
            if at < len(self._text):
                return self._text[at]
            if not self._more():
                return ""

    def _longer(self, pointer: str) -> bool:
        if len(self._text) - self._at > self._longest:
            raise GraphTooLarge(pointer, f"it is longer than {self._longest:,} characters")
        return self._more()

    def _more(self) -> bool:
        """Append what comes next; False at the end."""
        parts, size = [self._text[self._at :]], 0
        while size < _PIECE and not self._ended:
            piece = next(self._pieces, None)
            self._ended = piece is None
            try:
                parts.append(self._decode(piece or b"", self._ended))
            except UnicodeDecodeError as error:
                raise UnreadableGraph("", f"it is not UTF-8 ({error.reason})") from None
            size += len(parts[-1])
        self._text, self._at = "".join(parts), 0
        return size > 0

    def _wrong(self, pointer: str, reason: str) -> NoReturn:
        found = self._next()
        raise UnreadableGraph(pointer, f"{reason}, not {found!a}" if found else f"{reason}; the document ends")


def _end_of_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")
