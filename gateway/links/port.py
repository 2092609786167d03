"""The two sides of a link: `Link` reads a machine, `Sink` takes its samples."""

from collections.abc import Sequence
from typing import Protocol

from broker.batch import Gap
from gateway.links.counts import LinkCounts
from gateway.samples import Lot, StreamSamples


class SourceLink(Protocol):
    """A connection to one source, an OPC UA server or an MQTT broker."""

    counts: LinkCounts

    async def run(self) -> None:
        """Read the source until cancelled; reconnects after every break."""


class Sink(Protocol):
    """The consumer of a link's samples.  Its methods are called from one task at a time."""

    async def take(self, parts: Sequence[StreamSamples]) -> None:
        """Take samples in the order of the source; waits while the sink is full."""

    async def take_lot(self, lot: Lot) -> None:
        """Take a publish of plain samples, one or more; waits as `take` does."""

    async def gap(self, stream: int, gap: Gap) -> None:
        """Take a gap of a stream."""

    def alive(self, streams: Sequence[int]) -> None:
        """Note that the source answers for these streams, by samples or a keep-alive."""

    def alarm(self, subject: str, sentence: str | None) -> None:
        """Raise the alarm of a subject, or clear it with None."""

    def last_ns(self, stream: int, signal: int) -> int | None:
        """The newest time stamp of a signal, before a restart too; None if there is none."""
