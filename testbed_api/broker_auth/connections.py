"""The connections of principals to the broker, as far as the API acts on them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass


async def _announce_nothing(_principal: str) -> None:
    """Where the broker asks at each connection, no principal need be announced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerConnections:
    """Ends connections of principals, and makes new ones known.

    disconnect: ends all connections of a principal.  announce: makes a principal with a new token
    known to a broker that does not ask.  Both raise Unavailable if the broker does not confirm.
    """

    disconnect: Callable[[str], Awaitable[None]]
    announce: Callable[[str], Awaitable[None]] = _announce_nothing
