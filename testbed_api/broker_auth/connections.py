"""The calls by which the API ends connections to the broker, lists them, and announces tokens."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from broker.backends.nats.auth_service import OpenConnection


async def _announce_nothing(_principal: str) -> None:
    """Do nothing: a broker that asks at each connection needs no announcement."""


async def _list_none(_principal: str) -> Sequence[OpenConnection]:
    """List no connection: the broker does not say who is connected."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerConnections:
    """Ends connections of principals to the broker, lists them, and announces new tokens to it.

    disconnect: ends all connections of a principal.  announce: makes a principal with a new token
    known to a broker that does not ask.  of: lists the connections of a principal.  All raise
    Unavailable if the broker does not answer.
    """

    disconnect: Callable[[str], Awaitable[None]]
    announce: Callable[[str], Awaitable[None]] = _announce_nothing
    of: Callable[[str], Awaitable[Sequence[OpenConnection]]] = _list_none
