"""Wire types that several rooms share."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

PlatformId = Annotated[str, StringConstraints(min_length=1, max_length=500)]
