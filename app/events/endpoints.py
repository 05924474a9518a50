"""A driver's endpoints: register, read, change, remove."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import delete, select
from sqlalchemy.engine import CursorResult
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.crypto import Vault, new_signing_secret
from app.core.egress import EgressPolicy, EgressRefused
from app.core.errors import Conflict, Invalid, NotFound
from app.core.ids import new_id
from app.core.paging import cut, decode_cursor, encode_cursor
from app.events.deliveries import probe_now
from app.events.models import Endpoint
from app.events.schemas import EndpointIn, EndpointPatch
from app.events.service import core_event, endpoint_event, record


def check_outside_url(policy: EgressPolicy, url: str, pointer: str) -> None:
    """Raise Invalid, naming the field, when the gateway would never post to `url`."""
    try:
        policy.check_url(url)
    except EgressRefused as error:
        raise Invalid.field(pointer, str(error)) from error


async def create(
    session: AsyncSession, vault: Vault, policy: EgressPolicy, driver_id: str, wanted: EndpointIn
) -> tuple[Endpoint, str]:
    """Register an endpoint; returns it with its signing secret in clear, for the only time."""
    check_outside_url(policy, wanted.url, "/url")
    secret = new_signing_secret()
    endpoint = Endpoint(
        id=new_id("end"), driver_id=driver_id, kind="endpoint", secret=vault.seal(secret), **wanted.model_dump()
    )
    session.add(endpoint)
    await session.flush()
    await session.refresh(endpoint)
    return endpoint, secret


async def find(session: AsyncSession, driver_id: str, endpoint_id: str, *, lock: bool = False) -> Endpoint:
    """One of the driver's endpoints, its row locked if asked for. Raises NotFound."""
    endpoint = await session.get(Endpoint, endpoint_id, with_for_update={"key_share": True} if lock else None)
    if endpoint is None or endpoint.driver_id != driver_id or endpoint.kind != "endpoint":
        raise NotFound("you have no endpoint with this id")
    return endpoint


async def page(
    session: AsyncSession, driver_id: str, after: str | None, limit: int
) -> tuple[Sequence[Endpoint], str | None]:
    """A page of the driver's endpoints, oldest first."""
    position = decode_cursor(after, (str,), of="endpoints")
    query = select(Endpoint).where(Endpoint.driver_id == driver_id, Endpoint.kind == "endpoint")
    if position:
        query = query.where(Endpoint.id > position[0])
    rows, more = cut((await session.scalars(query.order_by(Endpoint.id).limit(limit + 1))).all(), limit)
    return rows, encode_cursor([rows[-1].id], of="endpoints") if more else None


async def change(
    session: AsyncSession, policy: EgressPolicy, driver_id: str, endpoint_id: str, patch: EndpointPatch
) -> Endpoint:
    """Change what the patch names. Enabling clears the reason it was disabled for; either way there is an event."""
    endpoint = await find(session, driver_id, endpoint_id, lock=True)
    wanted = patch.model_dump(exclude_unset=True)
    for name in ("url", "format", "ordered", "status"):
        if name in wanted and wanted[name] is None:
            raise Invalid.field(f"/{name}", "cannot be null; leave it out to keep it as it is")
    if "url" in wanted:
        check_outside_url(policy, wanted["url"], "/url")
    status = wanted.get("status", endpoint.status)
    switched = status != endpoint.status
    if switched:
        endpoint.disabled_reason = None if status == "enabled" else "disabled by its driver"
    if switched or "url" in wanted:
        # What was learnt of the address, or before its driver put it right, holds no more.
        endpoint.failures, endpoint.not_before = 0, None
    for name, value in wanted.items():
        setattr(endpoint, name, value)
    if switched:
        await session.flush()
        await record(session, [endpoint_event(endpoint, status, endpoint.disabled_reason)])
    return endpoint


async def send_test(session: AsyncSession, driver_id: str, endpoint_id: str) -> None:
    """Have a `metagov`/`test` event posted to this endpoint alone, whatever its filters. Raises NotFound, Conflict."""
    endpoint = await find(session, driver_id, endpoint_id)
    if endpoint.status != "enabled":
        raise Conflict("this endpoint is disabled; enable it with PATCH before testing it")
    event = core_event(driver_id, None, None, None, "test", {"endpoint": endpoint.id})
    await record(session, [replace(event, only_to=endpoint.id)])
    await probe_now(session, endpoint.id)


async def remove(session: AsyncSession, driver_id: str, endpoint_id: str) -> None:
    """Remove an endpoint with its deliveries. Raises NotFound."""
    result = await session.execute(
        delete(Endpoint).where(Endpoint.id == endpoint_id, Endpoint.driver_id == driver_id, Endpoint.kind == "endpoint")
    )
    if not (isinstance(result, CursorResult) and result.rowcount):
        raise NotFound("you have no endpoint with this id")
