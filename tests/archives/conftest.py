"""A community with an archive behind the app."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from app.archives.service import Archives
from app.gateway import Gateway


@pytest.fixture
def archives(gateway: Gateway) -> Archives:
    """The app's archives, with nothing in them."""
    shutil.rmtree(folder_of(gateway), ignore_errors=True)
    return gateway.archives


def folder_of(gateway: Gateway) -> Path:
    """Where the app's archives lie."""
    return Path(urlsplit(gateway.settings.archive_url).path)
