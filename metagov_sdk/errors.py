"""What can go wrong inside a plugin, said in few words.

PluginError
├── Retry         the platform is away or asks to wait: the gateway tries again
├── Unauthorized  the platform no longer accepts our credentials: the instance becomes `needs_auth`
└── Rejected      the platform says no, and will say no again
    ├── NotFound   what the driver's request names is not there (404)
    ├── Forbidden  it is there, and not for the one it was asked for (403)
    ├── NoAccess   the platform's answer to our own credentials: this one thing is not theirs to see (502)
    ├── Conflict   not as things stand now (409)
    └── Invalid    a parameter cannot be accepted (422)

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


class NotFound(Rejected):
    """What the request names is not there, or is another community's."""


class Forbidden(Rejected):
    """The request is well-formed, and whoever it is made for may not have it done."""


class NoAccess(Rejected):
    """The platform shows this one thing not to our credentials, which are good for others: a private channel.

    A mirror goes on with the rest and asks again later. Credentials that are good for nothing are `Unauthorized`.
    """


class Conflict(Rejected):
    """The request contradicts how things stand: a vote that has closed, a name that is taken."""


class Invalid(Rejected):
    """A parameter cannot be accepted. `pointer` is a JSON pointer from the parameters' root, as in `/options/3`."""

    def __init__(self, pointer: str, reason: str) -> None:
        super().__init__(reason)
        self.pointer = pointer


class ManifestError(Exception):
    """The plugin's code does not describe a valid plugin; the message names the member and the mend."""
