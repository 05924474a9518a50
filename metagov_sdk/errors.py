"""What can go wrong inside a plugin, said in three words.

PluginError
├── Retry         the platform is away or asks to wait: the gateway tries again
├── Unauthorized  the platform no longer accepts our credentials: the instance becomes `needs_auth`
└── Rejected      the platform (or the plugin) says no, and will say no again

ManifestError stands apart: it is about the plugin's code, raised while it is loaded.
"""

from __future__ import annotations


class PluginError(Exception):
    """Base of the errors a plugin raises on purpose. The message is shown to drivers: no secrets in it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Retry(PluginError):
    """Try again, not before `after` seconds from now (None: the gateway's own schedule)."""

    def __init__(self, reason: str = "the platform asked to try again", *, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class Unauthorized(PluginError):
    """The platform refused the credentials; a person has to renew them."""


class Rejected(PluginError):
    """The request can never succeed as it is; `reason` is the platform's own message where it has one."""


class ManifestError(Exception):
    """The plugin's code does not describe a valid plugin; the message names the member and the mend."""
