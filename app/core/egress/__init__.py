"""One guard for every URL that comes from outside: endpoints, callbacks, URLs in plugin configuration.

The rule is that the address that was checked is the address that is dialled. A URL is looked at when
it is registered (``EgressPolicy.check_url``), but a name can change its address between then and the
request, so both HTTP clients made here resolve the name themselves, check every address, and connect
to one of those.

- ``policy``: what may be reached, without any I/O
- ``lookup``: from a host to checked addresses
- ``deliveries``: the aiohttp session that posts events
- ``plugin_http``: the httpx client that plugins are given
"""

from app.core.egress.deliveries import GuardedResolver, delivery_session, read_capped
from app.core.egress.lookup import Resolve, resolve_checked, system_resolve
from app.core.egress.plugin_http import BodyTooLarge, GuardedTransport, plugin_client
from app.core.egress.policy import EgressPolicy, EgressRefused

__all__ = [
    "BodyTooLarge",
    "EgressPolicy",
    "EgressRefused",
    "GuardedResolver",
    "GuardedTransport",
    "Resolve",
    "delivery_session",
    "plugin_client",
    "read_capped",
    "resolve_checked",
    "system_resolve",
]
