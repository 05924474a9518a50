"""What can go wrong with the embedded servers, each said in words a newcomer can act on.

EmbeddedServerError
├── NotInstalled      the server's binaries are not there
├── InUse             another process holds the data directory
└── StartFailed       the server did not come up, or its files cannot be used
"""

from __future__ import annotations


class EmbeddedServerError(Exception):
    """An embedded server cannot be run; the message says why and what mends it."""


class NotInstalled(EmbeddedServerError):
    """The package that brings the server's binaries is missing."""


class InUse(EmbeddedServerError):
    """Another living process runs a server on the same data directory."""


class StartFailed(EmbeddedServerError):
    """The server ended before it was ready, or its files cannot be used."""
