"""paho-mqtt and aiomqtt beside our own MQTT connection: what a published message costs.

Each publishes the same messages at QoS 1 to an embedded NATS of its own, from this process, with so
many unacknowledged at most, and is done when the last is acknowledged.
"""

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiomqtt
import numpy as np
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from pydantic import SecretStr

from broker.backends.nats import server as nats_server
from broker.backends.nats.auth_callout import ConnectRequest, Permissions
from broker.bus import client
from broker.clock import Clock
from broker.credential import Credential
from broker.settings import Address, BusSettings

MESSAGES = 10_000
PAYLOAD = bytes(2_500)
UNACKNOWLEDGED = 1_000
TOPIC = "t/load"
PUBLISHER = Credential.make("publisher")
RUN_S = 300.0


async def run(folder: Path, rounds: int, clock: Clock) -> dict[str, Any]:
    """{client: {"cpu_us": medians of all rounds a message, "wall_us"}}."""
    taken: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for number in range(rounds):
        for name, publish in CLIENTS.items():
            server = nats_server.embedded(folder / f"{name}-{number}", clock=clock).serve(
                _authorize
            )
            async with asyncio.timeout(RUN_S), server as broker:
                taken[name].append(await publish(broker.mqtt, clock))
    figures = {}
    for name, costs in taken.items():
        cpu_s, wall_s = (np.median(np.array(costs), axis=0) / MESSAGES).tolist()
        figures[name] = {"cpu_us": round(cpu_s * 1e6, 1), "wall_us": round(wall_s * 1e6, 1)}
    return figures


async def _authorize(request: ConnectRequest) -> Permissions | None:
    """Let the publisher publish."""
    is_publisher = request.secret == PUBLISHER.secret
    return Permissions(frozenset({TOPIC}), frozenset()) if is_publisher else None


class _Stopwatch:
    """CPU-seconds of this process and seconds, from now on."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._cpu_s = time.process_time()
        self._start_ns = clock.now_ns()

    def read(self) -> tuple[float, float]:
        """Both so far."""
        return time.process_time() - self._cpu_s, (self._clock.now_ns() - self._start_ns) / 1e9


async def _ours(broker: Address, clock: Clock) -> tuple[float, float]:
    settings = BusSettings(
        broker=f"mqtt://{broker}",
        credential=SecretStr(PUBLISHER.text),
        window=UNACKNOWLEDGED,
        timeout_s=60.0,
    )
    async with client.open(settings, clock, client_id=PUBLISHER.principal) as bus:
        await bus.ready()
        watch = _Stopwatch(clock)
        acknowledged = [await bus.submit(TOPIC, PAYLOAD) for _ in range(MESSAGES)]
        for each in acknowledged:
            await each
        return watch.read()


async def _paho(broker: Address, clock: Clock) -> tuple[float, float]:
    return await asyncio.to_thread(_paho_in_thread, broker, clock)


def _paho_in_thread(broker: Address, clock: Clock) -> tuple[float, float]:
    publisher = paho.Client(CallbackAPIVersion.VERSION2, client_id=PUBLISHER.principal)
    publisher.username_pw_set(PUBLISHER.principal, PUBLISHER.secret)
    publisher.max_inflight_messages_set(UNACKNOWLEDGED)
    connected = threading.Event()
    publisher.on_connect = lambda *_: connected.set()
    publisher.connect(broker.host, broker.port)
    publisher.loop_start()
    try:
        connected.wait(10)
        watch = _Stopwatch(clock)
        for each in [publisher.publish(TOPIC, PAYLOAD, qos=1) for _ in range(MESSAGES)]:
            each.wait_for_publish()
        return watch.read()
    finally:
        publisher.disconnect()
        publisher.loop_stop()


async def _aiomqtt(broker: Address, clock: Clock) -> tuple[float, float]:
    async with aiomqtt.Client(
        broker.host,
        broker.port,
        username=PUBLISHER.principal,
        password=PUBLISHER.secret,
        identifier=PUBLISHER.principal,
        max_inflight_messages=UNACKNOWLEDGED,
        max_concurrent_outgoing_calls=UNACKNOWLEDGED,
    ) as publisher:
        publisher.pending_calls_threshold = UNACKNOWLEDGED  # it warns beyond
        room = asyncio.Semaphore(UNACKNOWLEDGED)

        async def publish() -> None:
            async with room:
                await publisher.publish(TOPIC, PAYLOAD, qos=1, timeout=60)

        watch = _Stopwatch(clock)
        async with asyncio.TaskGroup() as tasks:
            for number in range(MESSAGES):
                tasks.create_task(publish(), name=f"publish {number}")
        return watch.read()


CLIENTS: Mapping[str, Callable[[Address, Clock], Awaitable[tuple[float, float]]]] = {
    "ours": _ours,
    "paho": _paho,
    "aiomqtt": _aiomqtt,
}
