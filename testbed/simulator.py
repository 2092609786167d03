"""Run a simulated machine behind an OPC UA server until it is stopped."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from broker.clock import NS_PER_S, Clock
from simulators import ledger, world
from simulators.faces import opcua
from simulators.model import ObjectNode, RowSource, SourceRow
from simulators.world import Playback
from testbed.terminal import invocation

NAME = "PumpRig"
BROWSE_NAME = "rig"
"""The name that `gateway browse` gives the stream, and that the documents use."""
SETTLE_S = 0.5
"""Wait between the first subscription and the first row, until its monitored items are created."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorOptions:
    """Options of a simulated machine.

    port: of its OPC UA server, 0 for a free one.  wait: play only once every variable is monitored.
    ledger: file for the rows that were offered.  keys: folder of its certificate, None for no
    security.  objects: of the server, each with its own signals in the order of the source's; one
    with all signals if there are none.
    """

    port: int
    playback: Playback
    wait: bool = False
    ledger: Path | None = None
    keys: Path | None = None
    objects: tuple[ObjectNode, ...] = ()


class RepeatedSource:
    """A source that starts again when it ends, with time stamps that go on."""

    def __init__(self, source: RowSource) -> None:
        """source: of two rows or more, so that it has a period."""
        self.signals = source.signals
        self._source = source

    def rows(self) -> Iterator[SourceRow]:
        """The source's rows again and again, each round later by the source's duration."""
        shift_ns = 0
        while True:
            last_ns = period_ns = 0
            first_ns: int | None = None
            for row in self._source.rows():
                first_ns = row.time_ns if first_ns is None else first_ns
                period_ns, last_ns = row.time_ns - last_ns, row.time_ns
                yield replace(row, time_ns=row.time_ns + shift_ns)
            shift_ns += last_ns - (first_ns or 0) + (period_ns or NS_PER_S)


async def simulate(
    source: RowSource,
    options: SimulatorOptions,
    clock: Clock,
    on_event: Callable[[dict[str, Any]], None],
) -> None:
    """Serve a source over OPC UA until cancelled.

    on_event: called with the events `ready`, `progress` and `played`, as dictionaries.
    """
    objects = options.objects or (ObjectNode(BROWSE_NAME, source.signals),)
    names = [name for each in objects for name in each.signal_names(len(objects))]
    ledger_file = ledger.create(options.ledger, names) if options.ledger else nullcontext(None)
    with ledger_file as entries:
        serving = opcua.serve_objects(NAME, objects, port=options.port, keys=options.keys)
        async with serving as face:
            on_event({"event": "ready", "url": face.url, "sha256": face.sha256})
            if options.wait:
                await face.wait_watched(clock)
                await clock.sleep(SETTLE_S)
            played = await world.play(
                source,
                face,
                clock,
                pace=options.playback,
                ledger=entries,
                on_rows=lambda rows: on_event({"event": "progress", "rows": rows}),
            )
            on_event({"event": "played", "rows": played.rows, "last_ns": played.last_ns})
            await asyncio.get_running_loop().create_future()


def print_event(event: dict[str, Any], out: Console) -> None:
    """Print `ready` and `played` as sentences, the first with the command that comes next."""
    if event["event"] == "ready":
        command = f"{invocation.testbed()} gateway browse {event['url']} --security none"
        if event["sha256"]:
            out.print(f"its certificate has SHA-256 {event['sha256']}")
            command = f"{invocation.testbed()} gateway trust {event['url']}"
        out.print(f"serving {event['url']} until Ctrl-C; see it: {command}")
    elif event["event"] == "played":
        out.print(f"played {event['rows']} rows; the last values stay until Ctrl-C")
