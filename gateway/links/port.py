"""The two sides of a link: `Link` reads a machine, `Sink` takes its samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.links.counts import LinkCounts
from gateway.samples import Lot, StreamSamples


class SourceLink(Protocol):
    """A connection to one source, an OPC UA server or an MQTT broker."""

    counts: LinkCounts

    async def run(self) -> None:
        """Read the source until cancelled; reconnects after every break."""


UNREADABLE = "node-unreadable"
"""The cause of a gap while the server has no node for a signal, or refuses to monitor it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PossibleGap:
    """A place before a sample of a signal where samples may be missing.

    after_ns: time stamp of the sample before it in the same publish, or of the end of the gap that
    was stated last; None if that came earlier.  since_ns: start of the gap of a signal that never
    had a sample; None if that is no gap.
    until_ns: time stamp of the sample; now if `is_unread`: there is none, and none will come.
    cause: why samples are missing for certain; None before the first sample of a connection, where
    none may be missing, and whose cause the link knows.
    """

    stream: int
    signal: int
    after_ns: int | None = None
    since_ns: int | None = None
    until_ns: int
    cause: str | None = None
    is_unread: bool = False


class Sink(Protocol):
    """The consumer of a link's samples.  Its methods are called from one task at a time."""

    async def take(self, parts: Sequence[StreamSamples]) -> None:
        """Take samples in the order of the source; waits while the sink is full."""

    async def take_lot(self, lot: Lot) -> None:
        """Take a publish of plain samples, one or more; waits as `take` does."""

    async def possible_gap(self, possible: PossibleGap, cause: str) -> None:
        """State a gap if samples are missing.  cause: of the gap; called before the sample."""

    def alive(self, streams: Sequence[int]) -> None:
        """Note that the source answers for these streams, by samples or a keep-alive."""

    def alarm(self, subject: str, sentence: str | None) -> None:
        """Raise the alarm of a subject, or clear it with None."""

    def was_read(self) -> bool:
        """Whether the source has ever given a sample, before a restart too."""
