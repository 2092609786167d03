"""The signals that are not read: their node is missing, or the server refuses it.

No sample ends the gap of such a signal.  So it is stated in pieces: at the connect, then in
intervals, and at the end of the connection; the first sample ends its last piece.  The end of the
last piece is kept over restarts of the gateway, whose next mapping may name another node.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from broker.clock import Clock
from gateway.links.port import PossibleGap
from gateway.mapping.model import Mapping
from gateway.state import unread_signals

Signal = tuple[int, int]
"""Stream and signal, by number."""


class UnreadSignals:
    """The end of the last gap of each unread signal, over all connections of a link.

    current: the signals that are not read in this connection, until their first sample.
    """

    def __init__(self, mapping: Mapping, clock: Clock, file: Path | None = None) -> None:
        """file: keeps them over restarts; None keeps nothing."""
        self.current: set[Signal] = set()
        self._clock = clock
        self._file = file
        self._began_ns = clock.now_ns()
        self._names = {
            (index, signal): (str(stream.spec.address), name)
            for index, stream in enumerate(mapping.streams)
            for signal, name in enumerate(stream.spec.names)
        }
        before = {} if file is None else unread_signals.stored(file)
        self._stated_ns: dict[Signal, int] = {
            signal: before[name] for signal, name in self._names.items() if name in before
        }
        self._stored_ns = dict(self._stated_ns)

    def next_gaps(self, signals: Iterable[Signal], cause: str | None) -> list[PossibleGap]:
        """The gaps until now of unread signals; they count as stated from here on.

        cause: None for the time before a connect, whose cause the link knows.
        """
        now_ns, gaps = self._clock.now_ns(), []
        for stream, signal in signals:
            after_ns = self._stated_ns.get((stream, signal))
            if after_ns is not None and after_ns >= now_ns:
                continue  # the clock went back
            self._stated_ns[stream, signal] = now_ns - 1
            gap = PossibleGap(
                stream=stream,
                signal=signal,
                after_ns=after_ns,
                since_ns=self._began_ns,
                until_ns=now_ns,
                cause=cause,
                is_unread=True,
            )
            gaps.append(gap)
        return gaps

    def ended(self, gap: PossibleGap) -> PossibleGap:
        """The gap before a sample: before the first one of an unread signal its last piece."""
        if gap.cause is not None or not self._stated_ns:
            return gap
        after_ns = self._stated_ns.pop((gap.stream, gap.signal), None)
        return gap if after_ns is None else replace(gap, after_ns=after_ns)

    async def store(self) -> None:
        """Write the file if it does not say what is known."""
        if self._file is None or self._stated_ns == self._stored_ns:
            return
        self._stored_ns = dict(self._stated_ns)
        by_name = {self._names[signal]: ns for signal, ns in self._stored_ns.items()}
        await asyncio.to_thread(unread_signals.store, self._file, by_name)
