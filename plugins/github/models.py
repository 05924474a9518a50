"""The values of the GitHub plugin."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr

from metagov_sdk import Config, OpenEvent, Settings


class GithubConfig(Config):
    """Which installation of the GitHub App (or which repository webhook) belongs to the community."""

    installation_id: Annotated[int, Field(gt=0, le=2**63 - 1)] | None = None
    """The installation's id, as in the address github.com/settings/installations/<id>."""
    owner: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,99}$")] | None = None
    """The login of the user or organization where the app is installed."""
    webhook_secret: Annotated[SecretStr, Field(min_length=1)] | None = None
    """The secret that signs the webhooks; the deployment's own when absent."""


class GithubSettings(Settings):
    """The deployment's GitHub App."""

    webhook_secret: SecretStr | None = None
    """The app's webhook secret."""
    app_slug: str | None = None
    """The app's name in addresses, github.com/apps/<slug>; its bot's login is <slug>[bot]."""


class GithubEvent(OpenEvent):
    """A webhook of GitHub's, named `<event>.<action>` (`issues.opened`) or `<event>` (`push`); data is the whole body.

    Source: https://docs.github.com/webhooks/webhook-events-and-payloads
    """
