"""`testbed simulate`: a machine for anybody to try, until it is stopped."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from broker.clock import NS_PER_S, Clock
from broker.errors import Invalid
from simulators import ledger, world
from simulators.faces import opcua
from simulators.model import RowSource, SourceRow
from simulators.world import Playback, TimestampMode

NAME = "PumpRig"
SETTLE_S = 0.5
"""From the first subscriber to the first row: its monitored items get to stand."""


@dataclass(frozen=True, slots=True)
class Showing:
    """How a source is shown.  wait: play only once every variable is monitored.  ledger: where to
    keep what was offered.  keys: folder of its certificate, if sessions are signed and encrypted.
    """

    port: int
    pace: Playback
    wait: bool = False
    ledger: Path | None = None
    keys: Path | None = None


def checked_times(text: str) -> str:
    """`original` or `shifted`; raises Invalid."""
    if text not in set(TimestampMode):
        raise Invalid(f"times {text!r} are not known", hint=f"one of {', '.join(TimestampMode)}")
    return text


class Repeated:
    """A source that begins again when it ends, its time going on."""

    def __init__(self, source: RowSource) -> None:
        """source: with two rows at least, so that it has a period."""
        self.signals = source.signals
        self._source = source

    def rows(self) -> Iterator[SourceRow]:
        """Rows without end."""
        shift_ns = 0
        while True:
            last_ns = period_ns = 0
            first_ns: int | None = None
            for row in self._source.rows():
                first_ns = row.time_ns if first_ns is None else first_ns
                period_ns, last_ns = row.time_ns - last_ns, row.time_ns
                yield SourceRow(row.time_ns + shift_ns, row.values, row.anomaly, row.cause)
            shift_ns += last_ns - (first_ns or 0) + (period_ns or NS_PER_S)


async def simulate(
    source: RowSource, showing: Showing, clock: Clock, tell: Callable[[dict[str, Any]], None]
) -> None:
    """Serve until cancelled; `tell` is given what happens: ready, progress, played."""
    names = [one.name for one in source.signals]
    book = ledger.create(showing.ledger, names) if showing.ledger else nullcontext(None)
    with book as entries:
        serving = opcua.serve(NAME, source.signals, port=showing.port, keys=showing.keys)
        async with serving as face:
            tell({"event": "ready", "url": face.url, "sha256": face.sha256})
            if showing.wait:
                await face.wait_watched(clock)
                await clock.sleep(SETTLE_S)
            played = await world.play(
                source,
                face,
                clock,
                pace=showing.pace,
                ledger=entries,
                on_rows=lambda rows: tell({"event": "progress", "rows": rows}),
            )
            tell({"event": "played", "rows": played.rows, "last_ns": played.last_ns})
            await asyncio.get_running_loop().create_future()


def teller(
    say_json: Callable[[dict[str, Any]], None] | None, out: Console
) -> Callable[[dict[str, Any]], None]:
    """How what happens is told: as JSON lines, or in words."""

    def in_words(said: dict[str, Any]) -> None:
        if said["event"] == "ready":
            look = f"testbed gateway browse {said['url']} --security none"
            if said["sha256"]:
                out.print(f"its certificate has SHA-256 {said['sha256']}")
                look = f"testbed gateway trust {said['url']}"
            out.print(f"serving {said['url']} until Ctrl-C; see it: {look}")
        elif said["event"] == "played":
            out.print(f"played {said['rows']} rows; the last values stay until Ctrl-C")

    return say_json or in_words
