"""Measures how often an OPC UA server's variables change, with the link that will read them."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from broker.clock import NS_PER_S, Clock
from broker.streams import Trigger
from gateway.commissioning import progress
from gateway.commissioning.progress import OnProgress
from gateway.links.opcua.link import OpcUaLink
from gateway.links.opcua.security import ClientCredentials
from gateway.links.port import PossibleGap
from gateway.mapping.model import Mapping
from gateway.samples import Lot, StreamSamples

MOST_INTERVALS = 1_000
MOST_TEXTS = 9
_UNREADABLE = (" is not read: ", " cannot be monitored: ")
"""Parts of the link's alarms of signals that it does not read."""


@dataclass(slots=True)
class SignalActivity:
    """The values that were seen of one signal.

    intervals_s: between the time stamps of its samples, after the first.  repeats: a value came
    again with a new time stamp.  texts: distinct values of a signal that is text.
    """

    intervals_s: list[float] = field(default_factory=list)
    samples: int = 0
    repeats: bool = False
    texts: set[str] = field(default_factory=set)
    last: tuple[int, Any] | None = None

    def add(self, time_ns: int, value: Any, *, fresh: bool) -> None:
        """Note a sample; fresh: it was the server's last value before the subscription."""
        self.samples += 1
        if isinstance(value, str) and len(self.texts) < MOST_TEXTS:
            self.texts.add(value)
        if not fresh and self.last is not None and time_ns > self.last[0]:
            self.repeats |= bool(value == self.last[1])
            if len(self.intervals_s) < MOST_INTERVALS:
                self.intervals_s.append((time_ns - self.last[0]) / NS_PER_S)
        # the first stamp may be old: the interval after it says nothing
        self.last = None if fresh else (time_ns, value)


class MeasuringSink:
    """The sink of a link that only measures; see `gateway.links.port`."""

    def __init__(self) -> None:
        self.signals: dict[tuple[int, int], SignalActivity] = defaultdict(SignalActivity)
        self.alarms: dict[str, str] = {}

    async def take(self, parts: Sequence[StreamSamples]) -> None:
        """Note samples."""
        for part in parts:
            samples = part.samples
            rows = zip(samples.signal, samples.time_ns, samples.values.tolist(), strict=True)
            for signal, time_ns, value in rows:
                activity = self.signals[part.stream, int(signal)]
                activity.add(int(time_ns), value, fresh=part.fresh)

    async def take_lot(self, lot: Lot) -> None:
        """Note plain samples."""
        await self.take(lot.parts())

    async def possible_gap(self, possible: PossibleGap, cause: str) -> None:
        """Ignore a gap: nothing is stored."""

    def alive(self, streams: Sequence[int]) -> None:
        """Ignore a keep-alive."""

    def alarm(self, subject: str, sentence: str | None) -> None:
        """Note an alarm, or that it is over."""
        self.alarms.pop(subject, None)
        if sentence is not None:
            self.alarms[subject] = sentence

    def was_read(self) -> bool:
        """Nothing was read before."""
        return False

    @property
    def unreadable(self) -> dict[str, str]:
        """The reason of each signal that the server does not let us read, by `stream/name`."""
        return {
            subject: sentence
            for subject, sentence in self.alarms.items()
            if "/" in subject and any(part in sentence for part in _UNREADABLE)
        }


async def measure(
    mapping: Mapping,
    credentials: ClientCredentials | None,
    clock: Clock,
    seconds: float,
    on_progress: OnProgress,
) -> MeasuringSink:
    """Read a mapping's signals for some seconds, with every time stamp that the server gives.

    on_progress: counts the signals that were seen.  Raises Refused if the server refuses us.
    """
    every_stamp = tuple(
        replace(stream, spec=replace(stream.spec, trigger=Trigger.TIMESTAMP))
        for stream in mapping.streams
    )
    sink = MeasuringSink()
    link = OpcUaLink(replace(mapping, streams=every_stamp), sink, clock, credentials)
    async with progress.reported(on_progress, lambda: len(sink.signals)):
        with suppress(TimeoutError):  # the time to measure is over
            async with asyncio.timeout(seconds):
                await link.run()
    return sink
