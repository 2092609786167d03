"""Run a simulated machine behind an OPC UA server, or on a broker of sensors, until stopped."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from broker.clock import Clock
from broker.streams import Signal
from gateway.settings import SourceSettings
from simulators import ledger, world
from simulators.faces import mqtt, opcua
from simulators.faces.mqtt import MqttFace
from simulators.faces.opcua import OpcUaFace
from simulators.model import RowSource
from testbed.simulator import first_mapping
from testbed.simulator.machine import SimulatorOptions
from testbed.terminal import invocation

SETTLE_S = 0.5
"""Wait between the first subscription and the first row, until its monitored items are created."""


async def simulate(
    source: RowSource,
    options: SimulatorOptions,
    clock: Clock,
    on_event: Callable[[dict[str, Any]], None],
) -> None:
    """Serve a source over OPC UA or MQTT until cancelled.

    on_event: called with the events `ready`, `progress` and `played`, as dictionaries.
    """
    names = [signal.name for signal in source.signals]
    ledger_file = ledger.create(options.ledger, names) if options.ledger else nullcontext(None)
    with ledger_file as entries:
        async with _serving(source.signals, options, clock) as serving:
            first_mapping.write(options, source, serving.url)
            on_event({"event": "ready", **serving.as_json()})
            if options.wait:
                await serving.wait_watched(clock)
            played = await world.play(
                source,
                serving.face,
                clock,
                pace=options.playback,
                ledger=entries,
                on_rows=lambda rows: on_event({"event": "progress", "rows": rows}),
            )
            ended = {"event": "played", "rows": played.rows, "last_ns": played.last_ns}
            on_event(ended | ({"topic": serving.topic} if serving.topic else {}))
            await asyncio.get_running_loop().create_future()


@dataclass(frozen=True, slots=True)
class _Serving:
    """A machine's face, with its URL; topic: over MQTT.  mapping: file that was written."""

    face: OpcUaFace | MqttFace
    url: str
    topic: str = ""
    mapping: str = ""

    def as_json(self) -> dict[str, str]:
        """The fields of the event `ready`."""
        said = {"url": self.url}
        if isinstance(self.face, OpcUaFace):
            said["sha256"] = self.face.sha256
        else:
            said["topic"] = self.topic
        return said | ({"mapping": self.mapping} if self.mapping else {})

    async def wait_watched(self, clock: Clock) -> None:
        """Wait until every variable of an OPC UA server is monitored."""
        if isinstance(self.face, OpcUaFace):
            await self.face.wait_watched(clock)
            await clock.sleep(SETTLE_S)


@asynccontextmanager
async def _serving(
    signals: Sequence[Signal], options: SimulatorOptions, clock: Clock
) -> AsyncIterator[_Serving]:
    """The machine's face: an OPC UA server, or a connection to a broker."""
    mapping = "" if options.mapping is None else str(options.mapping)
    if options.broker is not None:
        password = SourceSettings().source_password.get_secret_value()
        broker = options.broker
        login = mqtt.Login(broker.user, password if broker.user else "")
        names = [signal.name for signal in signals]
        async with mqtt.publish(broker.url, login, broker.topic, names, clock) as face:
            yield _Serving(face, broker.url, broker.topic, mapping)
        return
    serving = opcua.serve(
        options.object_name,
        signals,
        browse_name=options.stream,
        port=options.port,
        keys=options.keys,
    )
    async with serving as server:
        yield _Serving(server, server.url, mapping=mapping)


def print_event(event: dict[str, Any], out: Console) -> None:
    """Print `ready` and `played` as sentences, the first with the command that comes next."""
    if event["event"] == "ready":
        _print_ready(event, out)
    elif event["event"] == "played":
        stay = "" if "topic" in event else "; the last values stay until Ctrl-C"
        out.print(f"played {event['rows']} rows{stay}")


def _print_ready(event: dict[str, Any], out: Console) -> None:
    command = f"{invocation.testbed()} gateway browse {event['url']}"
    if "topic" in event:
        out.print(
            f"publishing to {event['url']} on {event['topic']} until Ctrl-C; see it: {command}"
        )
    else:
        command += " --security none"
        if event["sha256"]:
            out.print(f"its certificate has SHA-256 {event['sha256']}")
            command = f"{invocation.testbed()} gateway trust {event['url']}"
        out.print(f"serving {event['url']} until Ctrl-C; see it: {command}")
    if "mapping" in event:
        check = f"{invocation.testbed()} gateway check {event['mapping']}"
        out.print(f"wrote {event['mapping']}; check it: {check}")
