"""The program of a relay on Docker Swarm, which runs in a container with Python alone.

It is the only other member of a deployment's network.  It listens there, passes connections on to
the API and the broker, and prints what it has counted as lines of JSON.  Its order is the JSON in
the environment variable RELAY_ORDER; `relay_archive` packs it, and `services` writes the order.
"""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from broker import tls
from broker.clock import NS_PER_S, Clock, WallClock
from broker.tls import TlsEndpoint
from testbed_runner.relay import HALF_OPEN_S, Relay
from testbed_runner.relay_target import API, BROKER, UpstreamListener
from testbed_runner.traffic import HttpWatch, MqttWatch, TrafficCounter, Watch

ORDER = "RELAY_ORDER"
REPORT_S = 1.0
_BACKLOG = 64
_LEAST_PYTHON = (3, 11)


async def run(order: Mapping[str, Any], say: Callable[[Mapping[str, Any]], None]) -> None:
    """Relay until SIGTERM.

    order: `listen`, name of the listener -> its port; `subnet`, of the deployment's network;
    `api` and `broker`, each with `host`, `port` and `name`, that of its certificate, null without
    TLS; `ca`, file of the authority, null for those that the image trusts.
    """
    clock = WallClock()
    counter = TrafficCounter(clock)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)

    def report(sentence: str) -> None:
        say({"report": sentence})

    async with asyncio.TaskGroup() as tasks:
        relay = Relay(counter, clock=clock, tasks=tasks, report=report)
        own = own_address(order["subnet"])
        for name, endpoint, watched in (("api", API, HttpWatch), ("broker", BROKER, MqttWatch)):
            target = _target(order, name, endpoint, watched, report)
            relay.listen(_listener(own, order["listen"][name]), target, name)
        reporting = tasks.create_task(_report_counts(counter, clock, say), name="counts")
        await ended.wait()
        reporting.cancel()
        await relay.close()


def own_address(subnet: str) -> str:
    """The address of this machine in a network: only its members may reach the listeners."""
    inside = str(next(ip_network(subnet).hosts()))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((inside, 9))  # sends nothing: it only chooses the way
        return str(probe.getsockname()[0])


def counts(counter: TrafficCounter, clock: Clock) -> dict[str, Any]:
    """All counts; `silent_s` is the time since the last batch of the program."""
    silent_s = None
    if counter.last_out_ns is not None:
        silent_s = (clock.monotonic_ns() - counter.last_out_ns) / NS_PER_S
    return {
        "is_let_in": counter.is_let_in,
        "messages_in": counter.messages_in,
        "messages_out": counter.messages_out,
        "bytes_in": counter.bytes_in,
        "bytes_out": counter.bytes_out,
        "silent_s": silent_s,
        "lag_s": counter.lag_s,
    }


async def _report_counts(
    counter: TrafficCounter, clock: Clock, say: Callable[[Mapping[str, Any]], None]
) -> None:
    """Print the counts at once, and each second in which they have changed."""
    printed: tuple[int, int, bool] | None = None
    while True:
        now = counter.bytes_in, counter.bytes_out, counter.is_let_in
        if now != printed:
            printed = now
            say(counts(counter, clock))
        await clock.sleep(REPORT_S)


def _target(
    order: Mapping[str, Any],
    name: str,
    endpoint: TlsEndpoint,
    watched: Callable[[TrafficCounter], Watch],
    report: Callable[[str], None],
) -> UpstreamListener:
    way = order[name]
    trust = None
    if way["name"] is not None:
        authority = Path(order["ca"]) if order["ca"] else None
        trust = tls.Trust(tls.client_context(authority), way["name"])
    return UpstreamListener(
        endpoint=endpoint,
        host=way["host"],
        port=way["port"],
        watched=watched,
        report=report,
        trust=trust,
        half_open_s=HALF_OPEN_S if watched is HttpWatch else 0.0,
    )


def _listener(host: str, port: int) -> socket.socket:
    listener = socket.create_server((host, port), backlog=_BACKLOG)
    listener.settimeout(0)
    return listener


def main() -> None:
    """Read the order, and relay."""
    if sys.version_info < _LEAST_PYTHON:
        sys.exit("the relay needs Python 3.11 or newer: set another image for relays")

    def say(line: Mapping[str, Any]) -> None:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    asyncio.run(run(json.loads(os.environ[ORDER]), say))


if __name__ == "__main__":
    main()
