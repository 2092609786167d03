"""Plays the inputs of a deployment until it is ended: `python -m testbed.deployment_source`.

A runner starts it beside the prototype's program.  `broker.deployments.source` says what it reads
from standard input and from its environment.  It plays at wall time and ends within two seconds of
SIGTERM, with exit code 0.  At the end of a recording that is not repeated it stays, so that nothing
is started again.  Exit code 2: the order, the recording or the credential is refused; 3: a fault of
the testbed that does not pass.
"""

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import structlog

from broker import api_client
from broker.bus import client
from broker.clock import Backoff, Clock, WallClock
from broker.credential import Credential
from broker.deployments import source
from broker.deployments.source import RecordedOrder, SimulatedOrder
from broker.errors import Invalid, Unavailable
from broker.settings import BusSettings
from testbed.deployment_source import inputs, simulated, streams
from testbed.deployment_source.inputs import PlayedInputs
from testbed.deployment_source.playing import Player
from testbed.deployment_source.streams import StreamConnection
from testbed.terminal import run as terminal_run
from testbed_sdk.settings import PrototypeSettings

MOST_BYTES = 4 * 1024 * 1024
"""Size of an order."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0
"""Pauses before the testbed is tried again, while a source has not begun."""

log = structlog.get_logger()


def read_order(content: bytes) -> SimulatedOrder | RecordedOrder:
    """Read an order from JSON; raises Invalid."""
    try:
        return source.from_document(orjson.loads(content))
    except orjson.JSONDecodeError as exc:
        raise Invalid(f"standard input is no JSON: {exc}", hint="give an order") from exc


async def play(
    order: SimulatedOrder | RecordedOrder,
    settings: PrototypeSettings,
    bus_settings: BusSettings,
    clock: Clock,
) -> None:
    """Play an order until cancelled; a testbed that is away at its beginning is tried again.

    Raises Invalid for an order that cannot be played, Forbidden for a credential that has ended.
    """
    named = order.inputs if isinstance(order, SimulatedOrder) else order.streams
    inputs.checked_names(named, settings.outputs)
    backoff = Backoff(clock, first_s=FIRST_PAUSE_S, longest_s=LONGEST_PAUSE_S)
    while True:
        try:
            await _play_once(order, settings, bus_settings, clock)
        except Unavailable as exc:
            log.warning("source did not begin", reason=str(exc))
            await backoff.pause()


async def _play_once(
    order: SimulatedOrder | RecordedOrder,
    settings: PrototypeSettings,
    bus_settings: BusSettings,
    clock: Clock,
) -> None:
    text = bus_settings.credential.get_secret_value()
    client_id = f"{Credential.parse(text).principal}--{secrets.token_hex(4)}"
    async with (
        api_client.connect(settings.api, text, ca=bus_settings.ca) as api,
        _inputs_of(order, api) as played,
        client.open(bus_settings, clock, client_id=client_id) as bus,
    ):
        await bus.ready()
        connection = StreamConnection(api=api, bus=bus, space=settings.space, clock=clock)
        async with streams.opened(played, settings.outputs, connection) as outputs:
            log.info("source began", inputs=sorted(outputs))
            rows = await Player(played, outputs, clock, speed=order.speed).play()
            log.info("source was played to its end", rows=rows)
            await asyncio.get_running_loop().create_future()


@asynccontextmanager
async def _inputs_of(
    order: SimulatedOrder | RecordedOrder, api: api_client.Api
) -> AsyncIterator[PlayedInputs]:
    """The inputs of an order, until left."""
    if isinstance(order, SimulatedOrder):
        yield simulated.inputs_of(order)
        return
    from testbed.deployment_source import recorded  # noqa: PLC0415 - DuckDB takes its time

    async with recorded.opened(order, api) as played:
        yield played


async def main() -> None:
    """Play what standard input orders."""
    content = await asyncio.to_thread(sys.stdin.buffer.read, MOST_BYTES)
    await play(read_order(content), PrototypeSettings(), BusSettings(), WallClock())


if __name__ == "__main__":
    terminal_run.run(main(), serves=True)
