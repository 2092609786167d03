"""What a link hands over, and to whom."""

from collections.abc import Sequence
from typing import Protocol

from broker.batch import Gap
from gateway.samples import Lot, Part


class Sink(Protocol):
    """Who takes what a link reads."""

    async def take(self, parts: Sequence[Part]) -> None:
        """What came at once, in the order of the source; waits while the sink is full."""

    async def take_lot(self, lot: Lot) -> None:
        """The same of plain samples, all at once; an empty lot never comes."""

    async def gap(self, stream: int, gap: Gap) -> None:
        """A hole in a stream."""

    def heard(self, streams: Sequence[int]) -> None:
        """The server is alive for these streams: samples or a keep-alive came on time."""

    def alarm(self, subject: str, sentence: str | None) -> None:
        """Something a human should know, in a sentence; None when it is over."""

    def last_ns(self, stream: int, signal: int) -> int | None:
        """The newest time stamp that was taken of a signal, in this life or before."""
