"""Heartbeats: which processes run, and which plugins they found."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import Base


class Heartbeat(Base):
    """One running process of the gateway."""

    __tablename__ = "heartbeats"

    id: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str]
    digest: Mapped[str]
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
