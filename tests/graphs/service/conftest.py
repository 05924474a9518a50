"""A town with an archive, and nothing in the folders of archives and graphs."""

from __future__ import annotations

import shutil

import pytest

from app.gateway import Gateway
from tests.archives.conftest import folder_of
from tests.conftest import Driver
from tests.graphs.service.towns import Place


@pytest.fixture
async def place(gateway: Gateway, driver: Driver) -> Place:
    """A community without plugins, with an archive of a small town."""
    shutil.rmtree(folder_of(gateway), ignore_errors=True)
    shutil.rmtree(gateway.graphs.require_files().folder, ignore_errors=True)
    place = Place(gateway, driver)
    await place.enable()
    await place.archive()
    return place
