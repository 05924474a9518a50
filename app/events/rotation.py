"""Changing signing secrets without a gap: for a day the old one signs beside the new one."""

from __future__ import annotations

from sqlalchemy import func, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.models import Driver
from app.core.crypto import Vault, new_signing_secret
from app.core.errors import NotFound
from app.events.models import Endpoint

_UNTIL = func.clock_timestamp() + text("interval '24 hours'")


async def rotate_endpoint_secret(session: AsyncSession, vault: Vault, driver_id: str, endpoint_id: str) -> str:
    """Give an endpoint a new secret; returns it, for the only time. Raises NotFound."""
    secret = new_signing_secret()
    rotated = await session.scalar(
        update(Endpoint)
        .where(Endpoint.id == endpoint_id, Endpoint.driver_id == driver_id, Endpoint.kind == "endpoint")
        .values(secret=vault.seal(secret), previous_secret=Endpoint.secret, previous_until=_UNTIL)
        .returning(Endpoint.id)
        .execution_options(synchronize_session=False)
    )
    if rotated is None:
        raise NotFound("you have no endpoint with this id")
    return secret


async def rotate_driver_secret(session: AsyncSession, vault: Vault, driver_id: str) -> str:
    """Give a driver a new secret for what is posted to its callback URLs; returns it, for the only time."""
    secret = new_signing_secret()
    await session.execute(
        update(Driver)
        .where(Driver.id == driver_id)
        .values(signing_secret=vault.seal(secret), previous_secret=Driver.signing_secret, previous_until=_UNTIL)
        .execution_options(synchronize_session=False)
    )
    return secret
