"""The values of the Discourse plugin."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from metagov_sdk import Config, OpenEvent, normalise_url

_one_spelling = partial(normalise_url, example="https://forum.example.org", instead="give the key as api_key")
_Header = Field(min_length=1, max_length=500, pattern=r"^[!-~]+$")


class DiscourseConfig(Config):
    """Which forum belongs to the community, and the key to it."""

    server_url: Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_one_spelling)]
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
