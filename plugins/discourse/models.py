"""The values of the Discourse plugin."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from metagov_sdk import Config, OpenEvent


def normalise_url(text: str) -> str:
    """One spelling per forum: scheme and host in lower case, no default port, no slash at the end.

    Raises ValueError, in plain words, for what is not the address of a web server.
    """
    if not text.isprintable() or " " in text or "\\" in text:
        raise ValueError("should be a web address without spaces, such as https://forum.example.org")
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("should start with https:// (or http://) and a host name")
    if "@" in parts.netloc:
        raise ValueError("should not hold a user name or password: give the key as api_key")
    if parts.query or parts.fragment:
        raise ValueError("should end before any ? or #")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = "" if parts.port in (None, {"http": 80, "https": 443}[parts.scheme]) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"


_Header = Field(min_length=1, max_length=500, pattern=r"^[!-~]+$")


class DiscourseConfig(Config):
    """Which forum belongs to the community, and the key to it."""

    server_url: Annotated[str, Field(min_length=1, max_length=500), AfterValidator(normalise_url)]
    """The forum's address, such as https://forum.example.org; with its path where it lies in a subfolder."""
    api_key: Annotated[SecretStr, Field(min_length=1, max_length=500)]
    """A key from the forum's admin pages (API, New API Key), for all users or for an admin."""
    api_username: Annotated[str, _Header] = "system"
    """In whose name the forum is asked: what this user may see is mirrored. Listing people takes an admin."""
    webhook_secret: Annotated[SecretStr, Field(min_length=12, max_length=500)] | None = None
    """The secret of the forum's webhook, twelve characters or more; without it no webhook is believed."""
    requests_per_minute: Annotated[int, Field(ge=6, le=6000)] = 60
    """What the forum allows all admin keys together: its DISCOURSE_MAX_ADMIN_API_REQS_PER_MINUTE, 60 by default."""


class DiscourseEvent(OpenEvent):
    """A webhook of Discourse's, by Discourse's own name (`post_created`, `topic_edited`); data is the object itself.

    Source: https://meta.discourse.org/t/configure-webhooks-that-trigger-on-discourse-events-to-integrate-with-external-services/49045
    """
