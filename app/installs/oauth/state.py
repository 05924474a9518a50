"""The `state` that goes to a platform and back with a person, and what is derived from it.

It is encrypted with keys derived from the operator's: nobody can make one, change one or read in it where the person
comes from. Which of them have been used is a matter of the grants' table.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from metagov_sdk import OAuthType

LIFETIME = 600
"""Seconds that a person has at the platform, and a driver for the exchange."""
LONGEST_DRIVER_STATE = 500
"""Characters. All of it travels in a URL, encrypted, and platforms cut URLs at a few thousand."""
_PURPOSE = b"metagov-gateway/oauth-state/1"


class BadState(Exception):
    """The state is none of ours, or is void; the message says which, in words for a person."""


@dataclass(frozen=True, slots=True)
class Visit:
    """Who asked for what: everything a return is bound to."""

    plugin: str
    type: OAuthType
    driver_id: str
    community_id: str | None
    redirect: str
    """A digest of the redirect URI; which one that is, the driver's list says."""
    driver_state: str | None
    nonce: str
    until: int
    """Unix seconds."""


class States:
    """Makes and reads states with the operator's keys: the first makes, all read."""

    def __init__(self, keys: Sequence[str], clock: Callable[[], float] = time.time) -> None:
        self._keys = [_derive(key) for key in keys]
        self._clock = clock

    def make(
        self,
        plugin: str,
        kind: OAuthType,
        driver_id: str,
        community_id: str | None,
        redirect_uri: str,
        driver_state: str | None,
    ) -> tuple[str, str]:
        """A state, and the PKCE code verifier that goes with it."""
        visit = Visit(
            plugin,
            kind,
            driver_id,
            community_id,
            digest(redirect_uri),
            driver_state,
            secrets.token_urlsafe(16),
            int(self._clock()) + LIFETIME,
        )
        sealing, proving = self._keys[0]
        sealed = sealing.encrypt(json.dumps(asdict(visit), separators=(",", ":")).encode())
        return sealed.decode().rstrip("="), _verifier(proving, visit)

    def read(self, state: str, plugin: str) -> tuple[Visit, str]:
        """What a state says, and its code verifier. Raises BadState."""
        for sealing, proving in self._keys:
            try:
                said = sealing.decrypt(state + "=" * (-len(state) % 4))
            except (InvalidToken, ValueError):
                continue
            visit = Visit(**json.loads(said))
            if visit.plugin != plugin:
                raise BadState(f"This answer is for another platform than {plugin}.")
            if visit.until < self._clock():
                raise BadState("This took too long: the link was good for ten minutes.")
            return visit, _verifier(proving, visit)
        raise BadState("The platform's answer does not belong to anything that was started here.")


def digest(text: str) -> str:
    """Stands for a text that is looked up again by it."""
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode()


def challenge(verifier: str) -> str:
    """PKCE's code challenge, method S256 (RFC 7636, section 4.2)."""
    return digest(verifier).rstrip("=")


def _verifier(key: bytes, visit: Visit) -> str:
    made = hmac.digest(key, visit.nonce.encode(), "sha256")
    return base64.urlsafe_b64encode(made).decode().rstrip("=")


def _derive(key: str) -> tuple[Fernet, bytes]:
    """Keys of their own for sealing states and for code verifiers, from one of the operator's."""
    derived = HKDF(algorithm=SHA256(), length=64, salt=None, info=_PURPOSE).derive(base64.urlsafe_b64decode(key))
    return Fernet(base64.urlsafe_b64encode(derived[:32])), derived[32:]
