"""What people brought back from platforms."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, LargeBinary, func
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import Base


class OAuthGrant(Base):
    """One return from a platform. The row makes its state one of a single use; with a code, it can be exchanged."""

    __tablename__ = "oauth_grants"

    state_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    code_hash: Mapped[bytes | None] = mapped_column(LargeBinary, unique=True)
    driver_id: Mapped[str] = mapped_column(ForeignKey("drivers.id", ondelete="CASCADE"))
    community_id: Mapped[str | None] = mapped_column(ForeignKey("communities.id", ondelete="CASCADE"))
    """None: the exchange creates one."""
    plugin: Mapped[str]
    type: Mapped[str]
    community_platform_id: Mapped[str | None]
    sealed: Mapped[str | None]
    """What the platform gave, tokens and all; None before that and after the exchange."""
    lease_until: Mapped[datetime | None]
    """While an exchange is at work."""
    expires_at: Mapped[datetime] = mapped_column(index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
