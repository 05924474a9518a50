"""Signed requests taken apart and put together wrongly, for fuzzing verifiers.

Everything is drawn from the `random.Random` that is given, so a run is repeated by its seed.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

Pairs = tuple[tuple[str, str], ...]

# Seconds between the timestamp and now: at the edge of the window of 300 s, just inside, just outside, far off.
EDGES = (-301.0, -300.25, -300.0, -299.75, -299.0, -1.0, 0.0, 1.0, 299.0, 299.75, 300.0, 300.25, 301.0, 1e6, -1e12)

_ZEROS = ("\u0660", "\u09e6", "\uff10", "\U0001d7ce")
"""Where the digits of other scripts begin."""
_SPACE = (" ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\0", "\ufeff")
_TOKENS = (
    "=",
    "==",
    ",",
    ".",
    " ",
    "v0=",
    "v1,",
    "v1",
    "v1a,",
    "sha256=",
    "SHA256=",
    "whsec_",
    "é",
    "\ud800",
    "-",
    "_",
)
_NOISE = "0123456789abcdefABCDEF=,. v+/-_\té\u0663\ud800\x00"


@dataclass(frozen=True, slots=True)
class Signed:
    """A request as a verifier gets it: the secret it is checked with, headers, body, and the time in unix seconds."""

    secret: str
    headers: Pairs
    body: bytes
    now: float


def mutate(rng: Random, request: Signed, other: Signed) -> Signed:
    """Do one to three things to `request`, or nothing; `other` is a valid request to take parts from."""
    if rng.random() < 0.15:
        return request
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        request = rng.choice(_MUTATIONS)(rng, request, other)
    return request


def odd_timestamp(rng: Random, seconds: int) -> str:
    """The time, spelled as no platform does, though many a parser of numbers takes it."""
    text = str(seconds)
    return rng.choice(
        (
            f" {text}",
            f"{text}\n",
            f"+{text}",
            f"0{text}",
            f"{text[0]}_{text[1:]}",
            f"{text}.0",
            f"{text}.5",
            f"{text[0]}.{text[1:]}e9",
            unicode_digits(rng, text),
            f"-{text}",
            text[:-1],
            "9" * 40,
            *("nan", "inf", "1e400", "", "0"),
        )
    )


def unicode_digits(rng: Random, text: str) -> str:
    """Digits of another script in place of ASCII's; `int()` and `str.isdigit()` take most of them."""
    zero = ord(rng.choice(_ZEROS))
    return "".join(chr(zero + int(c)) if "0" <= c <= "9" else c for c in text)


def bend_bytes(rng: Random, data: bytes) -> bytes:
    """Flip, insert, delete or double some bytes."""
    at = rng.randrange(len(data) + 1)
    what = rng.randrange(5)
    if what == 0 and at < len(data):
        return data[:at] + bytes((data[at] ^ (1 << rng.randrange(8)),)) + data[at + 1 :]
    if what == 1:
        return data[:at] + rng.randbytes(rng.randrange(1, 5)) + data[at:]
    if what == 2:
        return data[:at] + data[at + rng.randrange(1, 4) :]
    if what == 3:
        return data[:at] + data[at:] * 2
    return rng.choice((b"", data + b"\n", b"\xef\xbb\xbf" + data, data + b"\0", data[::-1]))


def bend_text(rng: Random, text: str) -> str:
    """Change a header's value or a secret: characters, case, white space, digits, base64, length."""
    return rng.choice(_BENDS)(rng, text)


def _flip(rng: Random, text: str) -> str:
    if not text:
        return "A"
    at = rng.randrange(len(text))
    return text[:at] + chr(ord(text[at]) ^ (1 << rng.randrange(8))) + text[at + 1 :]


def _insert(rng: Random, text: str) -> str:
    at = rng.randrange(len(text) + 1)
    return text[:at] + rng.choice((*_TOKENS, *_SPACE, rng.choice(_NOISE))) + text[at:]


def _delete(rng: Random, text: str) -> str:
    at = rng.randrange(len(text) + 1)
    return text[:at] + text[at + rng.randrange(1, 4) :]


def _change_case(rng: Random, text: str) -> str:
    return rng.choice((str.upper, str.lower, str.swapcase, str.title))(text)


def _surround(rng: Random, text: str) -> str:
    space = rng.choice(_SPACE)
    return rng.choice((space + text, text + space, space + text + space))


def _lengthen(rng: Random, text: str) -> str:
    """Up to far past what any platform sends; most often moderately, for speed."""
    size = rng.choice((100, 100, 100, 4096, 5000, 100_000 if rng.random() < 0.02 else 4097))
    return rng.choice(((text or "A") * (size // max(len(text), 1) + 1), text + "A" * size, text + "," * size))


def _respell_base64(rng: Random, text: str) -> str:
    """The same bytes in other letters, if `text` is base64 (after what stands before a comma)."""
    head, comma, tail = text.rpartition(",")
    at = rng.randrange(len(tail) + 1)
    bare = tail.rstrip("=")
    return (
        head
        + comma
        + rng.choice(
            (
                bare,
                tail + "=",
                tail.replace("+", "-").replace("/", "_"),
                tail[:at] + "\n" + tail[at:],
                tail[:at] + "!" + tail[at:],
                bare[:-1] + _next_letter(bare[-1:]) + tail[len(bare) :],
                base64.b64encode(tail.encode("utf-8", "surrogatepass")).decode(),
            )
        )
    )


def _next_letter(letter: str) -> str:
    """The letter after it in base64's alphabet: where bits are left over at the end of a text, it can mean the same."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return alphabet[(alphabet.find(letter) + 1) % 64] if letter else ""


def _replace_text(rng: Random, text: str) -> str:
    noise = "".join(rng.choices(_NOISE, k=rng.randrange(1, 80)))
    return rng.choice(("", "=", ",", "v1,", "v0=", "sha256=", "0" * 128, "A" * 88, "MAYCAQACAQA=", noise))


def _repeat_in_list(rng: Random, text: str) -> str:
    """Several signatures in one value, as Standard Webhooks allows."""
    more = rng.choice(("v1,AAAA", "v1a,AAAA", "v2,x", "v1", "v1,a,b", "", text))
    return rng.choice((f"{text} {more}", f"{more} {text}", f"{text},{more}", f"{more} {more} {text}"))


_BENDS: Sequence[Callable[[Random, str], str]] = (
    _flip,
    _flip,
    _insert,
    _delete,
    _change_case,
    _surround,
    _lengthen,
    _respell_base64,
    _replace_text,
    _repeat_in_list,
    unicode_digits,
)


def _bend_body(rng: Random, request: Signed, other: Signed) -> Signed:
    return replace(request, body=bend_bytes(rng, request.body))


def _bend_header(rng: Random, request: Signed, other: Signed) -> Signed:
    if not request.headers:
        return request
    at = rng.randrange(len(request.headers))
    name, value = request.headers[at]
    return _with(request, at, (name, bend_text(rng, value)))


def _take_part(rng: Random, request: Signed, other: Signed) -> Signed:
    """One part of another request that is valid by itself."""
    if not request.headers or not other.headers:
        return replace(request, headers=other.headers)
    match rng.randrange(4):
        case 0:
            return replace(request, body=other.body)
        case 1:
            return replace(request, secret=other.secret)
        case 2:
            return replace(request, headers=other.headers)
        case _:
            return _with(request, rng.randrange(len(request.headers)), rng.choice(other.headers))


def _repeat_header(rng: Random, request: Signed, other: Signed) -> Signed:
    if not request.headers:
        return request
    name, value = rng.choice(request.headers)
    again = rng.choice((value, value, bend_text(rng, value), dict(other.headers).get(name, "")))
    pair = (rng.choice((name, name.lower(), name.upper())), again)
    return replace(request, headers=rng.choice(((pair, *request.headers), (*request.headers, pair))))


def _drop_header(rng: Random, request: Signed, other: Signed) -> Signed:
    at = rng.randrange(len(request.headers) + 1)
    return replace(request, headers=request.headers[:at] + request.headers[at + 1 :])


def _rearrange(rng: Random, request: Signed, other: Signed) -> Signed:
    """What changes nothing: order, case of names, headers that no verifier reads."""
    pairs = [(rng.choice((str.lower, str.upper, str.title))(name), value) for name, value in request.headers]
    pairs.append(("X-Other", "".join(rng.choices(_NOISE, k=5))))
    rng.shuffle(pairs)
    return replace(request, headers=tuple(pairs))


def _move_clock(rng: Random, request: Signed, other: Signed) -> Signed:
    return replace(request, now=request.now + rng.choice(EDGES))


def _bend_secret(rng: Random, request: Signed, other: Signed) -> Signed:
    empty = ("", " ", "whsec_", "\t")
    return replace(request, secret=rng.choice(empty) if rng.random() < 0.3 else bend_text(rng, request.secret))


def _with(request: Signed, at: int, pair: tuple[str, str]) -> Signed:
    return replace(request, headers=(*request.headers[:at], pair, *request.headers[at + 1 :]))


_MUTATIONS: Sequence[Callable[[Random, Signed, Signed], Signed]] = (
    _bend_body,
    _bend_header,
    _bend_header,
    _bend_header,
    _take_part,
    _repeat_header,
    _drop_header,
    _rearrange,
    _rearrange,
    _move_clock,
    _move_clock,
    _bend_secret,
)
