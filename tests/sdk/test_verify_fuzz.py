"""Thousands of requests for each verifier: it answers, never raises, and agrees with the vendor's own library.

    METAGOV_FUZZ_SEED=… METAGOV_FUZZ_EXAMPLES=1000000 python -m pytest tests/sdk/test_verify_fuzz.py

20,000 each in `make test`, a hundred thousand in `make test-slow`.

The seed of a run is printed with its failure; without METAGOV_FUZZ_SEED each run draws a new one.
"""

from __future__ import annotations

import os
import secrets
from collections import Counter
from random import Random

import pytest

from metagov_sdk.headers import Headers
from tests.sdk.mutations import EDGES, Signed, mutate, odd_timestamp
from tests.sdk.vendors import VENDORS, StandingClock, Vendor, last_values

EXAMPLES = int(os.environ.get("METAGOV_FUZZ_EXAMPLES", "20000"))
ENOUGH = 20_000
"""From so many examples on, each listed difference must have been met."""
SIGNED = 5_000
"""Signed requests that the examples are made of: signing each anew would take longer than checking it."""
NOW = 1_700_000_000


@pytest.fixture
def seed() -> int:
    return int(os.environ.get("METAGOV_FUZZ_SEED") or secrets.randbits(32))


@pytest.fixture(autouse=True)
def _clock_of_standardwebhooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library reads the clock itself."""
    monkeypatch.setattr("standardwebhooks.webhooks.datetime", StandingClock)


@pytest.mark.parametrize("name", VENDORS)
def test_agrees_with_the_vendors_own_library(name: str, seed: int) -> None:
    print(f"METAGOV_FUZZ_SEED={seed} METAGOV_FUZZ_EXAMPLES={EXAMPLES}")
    vendor, rng = VENDORS[name](), Random(f"{seed} {name}")
    tally: Counter[str] = Counter()
    signed = [_signed(vendor, rng) for _ in range(SIGNED)]
    for _ in range(EXAMPLES):
        tally[_compare(vendor, mutate(rng, rng.choice(signed), rng.choice(signed)))] += 1
    print(dict(tally))
    assert tally["both accept"] > EXAMPLES / 10
    assert tally["both refuse"] > EXAMPLES / 10
    assert tally["both accept"] + tally["both refuse"] > EXAMPLES / 2
    if EXAMPLES >= ENOUGH:
        assert [reason for reason in vendor.stricter if not tally[reason]] == [], "differences that do not occur"


def _signed(vendor: Vendor, rng: Random) -> Signed:
    """A request as the platform would sign it, save that some tell the time in odd ways or at odd times."""
    seconds = NOW + rng.randrange(1000)
    stamp = odd_timestamp(rng, seconds) if rng.random() < 0.1 else str(seconds)
    text = f'{{"type":"vote","text":"é{rng.random()}"}}'
    body = rng.randbytes(rng.randrange(40)) if rng.random() < 0.1 else text.encode()
    made = vendor.sign(rng, stamp, body)
    now = float(seconds) + (rng.choice(EDGES) if rng.random() < 0.1 else rng.randrange(-50, 50))
    return Signed(made.secret, made.headers, made.body, now)


def _compare(vendor: Vendor, request: Signed) -> str:
    """What to count it as. Fails where ours raises, or says otherwise than the vendor without a stated reason."""
    headers = last_values(request.headers)
    ours = vendor.verifier(request.secret, Headers(request.headers), request.body, request.now)
    assert ours is True or ours is False
    try:
        theirs = vendor.verdict(request, headers)
    except Exception:
        # Malformed input makes the vendors' libraries raise all kinds of things: they have no opinion on it.
        if ours:
            assert vendor.rightly_accepted(request, headers), f"accepted what the vendor cannot read: {request}"
        return "no opinion"
    if ours is theirs:
        return "both accept" if ours else "both refuse"
    assert theirs, f"accepted what the vendor refuses: {request}"
    reasons = [reason for reason, holds in vendor.stricter.items() if holds(request)]
    assert reasons, f"refused what the vendor accepts: {request}"
    return reasons[0]
