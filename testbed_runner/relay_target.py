"""The listeners of API and broker as relays of the runner reach them, with TLS if they have it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from broker.settings import Address
from broker.tls import TlsEndpoint, Trust, handshake_error
from testbed_runner.traffic import TrafficCounter, Watch

CONNECT_S = 10.0

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class UpstreamListener:
    """A listener of the testbed as a `RelayTarget`: says once that it is away, and that it is back.

    trust: how its certificate is checked; None without TLS.
    """

    endpoint: TlsEndpoint
    address: Address
    watched: Callable[[TrafficCounter], Watch]
    trust: Trust | None = None
    half_open_s: float = 0.0
    is_away: bool = field(default=False, init=False)

    def watch(self, counter: TrafficCounter) -> Watch:
        """Make the watch of a connection to it."""
        return self.watched(counter)

    async def connect(self, protocol: asyncio.BaseProtocol) -> None:
        """Connect a protocol to it; raises OSError or TimeoutError, and logs the first of them."""
        trust = self.trust
        try:
            async with asyncio.timeout(CONNECT_S):
                await asyncio.get_running_loop().create_connection(
                    lambda: protocol,
                    self.address.host,
                    self.address.port,
                    ssl=trust.context if trust else None,
                    server_hostname=(trust.name or self.address.host) if trust else None,
                )
        except (OSError, TimeoutError) as exc:
            if not self.is_away:
                log.warning("relay target went away", **self._facts(), reason=self._why(exc))
            self.is_away = True
            raise
        if self.is_away:
            log.info("relay target came back", **self._facts())
        self.is_away = False

    def _facts(self) -> dict[str, str]:
        return {"target": self.endpoint.party, "address": str(self.address)}

    def _why(self, exc: Exception) -> str:
        wrong = handshake_error(exc, self.endpoint)
        if wrong is not None:
            return str(wrong)
        if isinstance(exc, TimeoutError):
            return f"no connection within {CONNECT_S:g} s"
        return str(exc)
