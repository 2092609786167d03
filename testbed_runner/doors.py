"""The listeners of deployments: the only way from a container to the testbed.

A container has two, on its own loopback: of the API and of the broker.  Here they are bound, inside
its network namespace or on the loopback of the runner, and relayed.  They live in this process: a
runner that starts again binds them again, and programs connect again.
"""

import asyncio
import socket
from typing import NamedTuple

import structlog

from broker.clock import Clock
from broker.errors import Taken
from broker.settings import Address
from broker.tls import Trust
from testbed_runner import netns
from testbed_runner.netns import Namespace
from testbed_runner.port import Traffic, Upstream
from testbed_runner.relay import HALF_OPEN_S, Relay
from testbed_runner.relay_target import API, BROKER, UpstreamListener
from testbed_runner.traffic import HttpWatch, MqttWatch, TrafficCounter

LOOPBACK = "127.0.0.1"
API_PORT = 8600
BROKER_PORT = 1883
log = structlog.get_logger()


class DoorAddresses(NamedTuple):
    """The two listeners of a container, as its program reaches them."""

    api: Address
    broker: Address

    def environment(self) -> dict[str, str]:
        """The variables that tell a program."""
        return {
            "TESTBED_API": f"http://{self.api}",
            "TESTBED_BROKER": f"mqtt://{self.broker}",
        }


INSIDE = DoorAddresses(Address(LOOPBACK, API_PORT), Address(LOOPBACK, BROKER_PORT))
"""Of a container with a network namespace of its own."""


class Doors:
    """The listeners of all deployments of a runner, each with its relay and its counts.

    tasks: of the process; carries the relays.  close_all ends them all.
    """

    def __init__(
        self,
        upstream: Upstream,
        *,
        trust: Trust | None,
        clock: Clock,
        tasks: asyncio.TaskGroup,
    ) -> None:
        """trust: how certificates of the testbed are checked, where it has TLS."""
        self._api = UpstreamListener(
            endpoint=API,
            host=upstream.api.host,
            port=upstream.api.port,
            watched=HttpWatch,
            report=_report,
            trust=trust if upstream.api_tls else None,
            half_open_s=HALF_OPEN_S,
        )
        self._broker = UpstreamListener(
            endpoint=BROKER,
            host=upstream.broker.host,
            port=upstream.broker.port,
            watched=MqttWatch,
            report=_report,
            trust=trust if upstream.broker_tls else None,
        )
        self._clock = clock
        self._tasks = tasks
        self._relays: dict[int, Relay] = {}

    async def open(self, deployment: int, at: DoorAddresses | None = None) -> DoorAddresses:
        """Listen on the loopback of this machine, for a plain process; returns where.

        at: addresses that its program was given by a runner before this one; None for free ports.
        Raises Taken if somebody else listens there.
        """
        await self.close(deployment)
        addresses = at or DoorAddresses(Address(LOOPBACK, 0), Address(LOOPBACK, 0))
        try:
            api, broker = netns.listeners_at(addresses)
        except OSError as exc:
            raise Taken(
                f"{addresses.api} and {addresses.broker} cannot be listened on: {exc.strerror}",
                hint="end the program that listens there, and start the deployment again",
            ) from exc
        self._serve(deployment, api, broker)
        return DoorAddresses(
            Address(LOOPBACK, api.getsockname()[1]), Address(LOOPBACK, broker.getsockname()[1])
        )

    async def open_inside(self, deployment: int, pid: int, *, container: str = "") -> DoorAddresses:
        """Listen at INSIDE in the network namespace of a container; also to adopt one.

        pid: of a process in it.  container: its id, by which the process is known to be of it.
        Raises as `Namespace` and its `listen`.
        """
        await self.close(deployment)
        with Namespace(pid, container=container) as namespace:
            api, broker = await asyncio.to_thread(namespace.listen, INSIDE)
        self._serve(deployment, api, broker)
        return INSIDE

    def _serve(self, deployment: int, api: socket.socket, broker: socket.socket) -> None:
        relay = Relay(
            TrafficCounter(self._clock), clock=self._clock, tasks=self._tasks, report=_report
        )
        self._relays[deployment] = relay
        relay.listen(api, self._api, f"API for deployment {deployment}")
        relay.listen(broker, self._broker, f"broker for deployment {deployment}")

    def is_open(self, deployment: int) -> bool:
        """Whether a deployment has its listeners."""
        return deployment in self._relays

    def traffic(self, deployment: int) -> Traffic:
        """The traffic of a deployment's listeners since they were opened; nothing if closed."""
        relay = self._relays.get(deployment)
        return Traffic() if relay is None else traffic_of(relay.counter)

    async def close(self, deployment: int) -> None:
        """Close a deployment's listeners and connections; nothing if it has none."""
        relay = self._relays.pop(deployment, None)
        if relay is not None:
            await relay.close()

    async def close_all(self) -> None:
        """Close the listeners of all deployments."""
        for deployment in list(self._relays):
            await self.close(deployment)


def traffic_of(counter: TrafficCounter) -> Traffic:
    """The counts of a relay as they are now."""
    return Traffic(
        is_let_in=counter.is_let_in,
        messages_in=counter.messages_in,
        messages_out=counter.messages_out,
        bytes_in=counter.bytes_in,
        bytes_out=counter.bytes_out,
        last_out_ns=counter.last_out_ns,
        lag_s=counter.lag_s,
    )


def _report(sentence: str) -> None:
    log.warning("relay reported a change", reason=sentence)
