"""The calls by which the API ends connections to the broker, and announces new tokens."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass


async def _announce_nothing(_principal: str) -> None:
    """Do nothing: a broker that asks at each connection needs no announcement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerConnections:
    """Ends connections of principals to the broker, and announces new tokens to it.

    disconnect: ends all connections of a principal.  announce: makes a principal with a new token
    known to a broker that does not ask.  Both raise Unavailable if the broker does not confirm.
    """

    disconnect: Callable[[str], Awaitable[None]]
    announce: Callable[[str], Awaitable[None]] = _announce_nothing
