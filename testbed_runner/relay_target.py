"""The listeners of API and broker as relays reach them, with TLS if they have it.

On Docker Swarm this runs in a container with Python alone, so it imports no library.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from broker.tls import TlsEndpoint, Trust, handshake_error
from testbed_runner.traffic import TrafficCounter, Watch

CONNECT_S = 10.0
API = TlsEndpoint("the API", "TESTBED_API", "TESTBED_CA")
BROKER = TlsEndpoint("the broker", "TESTBED_BROKER", "TESTBED_CA")


@dataclass(slots=True, kw_only=True)
class UpstreamListener:
    """A listener of the testbed as a `RelayTarget`.

    watched: makes the watch of a connection to it.  report: gets a sentence once it is away, and
    once it is back.  trust: how its certificate is checked; None without TLS.
    """

    endpoint: TlsEndpoint
    host: str
    port: int
    watched: Callable[[TrafficCounter], Watch]
    report: Callable[[str], None]
    trust: Trust | None = None
    half_open_s: float = 0.0
    is_away: bool = field(default=False, init=False)

    def watch(self, counter: TrafficCounter) -> Watch:
        """Make the watch of a connection to it."""
        return self.watched(counter)

    async def connect(self, protocol: asyncio.BaseProtocol) -> None:
        """Connect a protocol to it; raises OSError or TimeoutError, and reports the first."""
        trust = self.trust
        try:
            async with asyncio.timeout(CONNECT_S):
                await asyncio.get_running_loop().create_connection(
                    lambda: protocol,
                    self.host,
                    self.port,
                    ssl=trust.context if trust else None,
                    server_hostname=(trust.name or self.host) if trust else None,
                )
        except (OSError, TimeoutError) as exc:
            if not self.is_away:
                self.report(f"{self._named} is away: {self._why(exc)}")
            self.is_away = True
            raise
        if self.is_away:
            self.report(f"{self._named} is back")
        self.is_away = False

    @property
    def _named(self) -> str:
        return f"{self.endpoint.party} at {self.host}:{self.port}"

    def _why(self, exc: Exception) -> str:
        wrong = handshake_error(exc, self.endpoint)
        if wrong is not None:
            return str(wrong)
        if isinstance(exc, TimeoutError):
            return f"no connection within {CONNECT_S:g} s"
        return str(exc)
