"""Delivery: hands the samples, gaps and alarms of notifications to the sink, in this order."""

from collections.abc import Sequence

from broker.clock import Backoff, Clock
from gateway.links.counts import UNFIT_ALARM_NS, LinkCounts
from gateway.links.opcua.data_changes import DataChanges
from gateway.links.opcua.demultiplexed import OVERFLOW, Demultiplexed
from gateway.links.opcua.full_queues import Hole
from gateway.links.opcua.server_alarm import ServerAlarm
from gateway.links.opcua.subscription import Subscription
from gateway.links.opcua.unread_signals import UnreadSignals
from gateway.links.port import UNREADABLE, PossibleGap, Sink
from gateway.mapping.model import StreamMapping

PIECE_S, LONGEST_PIECE_S = 10.0, 600.0
"""The gap of a signal that is not read is stated in pieces: their length doubles up to the longest,
so that a wrong node in a mapping costs the ledger a few rows an hour."""


class NotificationDelivery:
    """The delivery of one connection's notifications.

    has_data: whether any data change came.
    """

    def __init__(
        self,
        streams: Sequence[StreamMapping],
        sink: Sink,
        clock: Clock,
        *,
        counts: LinkCounts,
        unread: UnreadSignals,
        server_alarm: ServerAlarm,
    ) -> None:
        """counts: `connects` already counts this connection.  unread, server_alarm: of all
        connections.
        """
        self.has_data = False
        self._streams = streams
        self._sink = sink
        self._clock = clock
        self._counts = counts
        self._unread = unread
        self._server_alarm = server_alarm
        self._break = "gateway-down" if counts.connects == 1 else "source-unreachable"
        self._unfit_ns: dict[str, int] = {}
        self._is_stated = False
        """Whether the time before the connect is stated for signals that are not read."""

    async def deliver(self, subscription: Subscription, changes: DataChanges) -> None:
        """Deliver one notification of a subscription; waits while the sink is full."""
        now_ns, monotonic_ns = self._clock.now_ns(), self._clock.monotonic_ns()
        subscription.demultiplexer.items.note_answers(changes.handle, monotonic_ns)
        if subscription.census is not None:
            subscription.census.add(changes.handle)
        result = subscription.demultiplexer.demultiplex(changes, now_ns)
        self.has_data = True
        if self._server_alarm.stands:
            self._server_alarm.note_data()
        if result.lot is not None:
            await self._sink.take_lot(result.lot)
        for gap in result.gaps:
            await self._end_gap(gap)
        for parts in (result.first, result.parts):
            if parts:
                await self._sink.take(parts)
        if result.unfit or result.gone or result.back or self._unfit_ns:
            self._raise_alarms(subscription, result, monotonic_ns)
        if result.gone:
            subscription.demultiplexer.items.fresh[result.gone] = (
                True  # their next sample ends a gap
            )

    async def _end_gap(self, gap: PossibleGap) -> None:
        """State the gap before a sample; the first sample of an unread signal ends its alarm."""
        signal = (gap.stream, gap.signal)
        cause = gap.cause
        if cause is None and signal in self._unread.current:
            self._unread.current.discard(signal)
            self._sink.alarm(self._named(*signal)[0], None)
            cause = UNREADABLE if self._is_stated else None
        ended = self._unread.ended(gap)
        await self._state(ended, cause)

    async def state_unread(self) -> None:
        """State gaps of signals that are not read until cancelled: now, in intervals, at the end.

        No sample ends such a gap.
        """
        await self._state_unread(None)
        self._is_stated = True
        pauses = Backoff(self._clock, first_s=PIECE_S, longest_s=LONGEST_PIECE_S, jitter=False)
        try:
            while True:
                await pauses.pause()
                await self._state_unread(UNREADABLE)
        finally:
            await self._state_unread(UNREADABLE)

    async def _state_unread(self, cause: str | None) -> None:
        """State a gap until now of each signal.  cause: None for the break before the connect."""
        for gap in self._unread.next_gaps(sorted(self._unread.current), cause):
            await self._state(gap)
        await self._unread.store()

    async def state_holes(self, subscription: Subscription, holes: Sequence[Hole]) -> None:
        """State the gaps of full queues that the server did not report."""
        for handle, after_ns, until_ns in holes:
            for stream, signal in subscription.items[handle].feeds:
                gap = PossibleGap(
                    stream=stream,
                    signal=signal,
                    after_ns=after_ns,
                    until_ns=until_ns,
                    cause=OVERFLOW,
                )
                await self._state(gap)

    async def _state(self, possible: PossibleGap, cause: str | None = None) -> None:
        self._counts.overflows += possible.cause == OVERFLOW
        await self._sink.possible_gap(possible, possible.cause or cause or self._break)

    def _raise_alarms(
        self, subscription: Subscription, result: Demultiplexed, monotonic_ns: int
    ) -> None:
        self._counts.unfit += result.unfit
        for stream, signal, reason in result.reasons:
            subject, name = self._named(stream, signal)
            self._unfit_ns[subject] = monotonic_ns
            self._sink.alarm(subject, f"a value of {name} is stored as bad: {reason}")
        for subject, since_ns in list(self._unfit_ns.items()):
            if monotonic_ns - since_ns > UNFIT_ALARM_NS:
                del self._unfit_ns[subject]
                self._sink.alarm(subject, None)
        for handle in result.gone:
            for stream, signal in subscription.items[handle].feeds:
                subject, name = self._named(stream, signal)
                self._unread.current.add((stream, signal))
                self._sink.alarm(subject, f"{name} is gone: the server no longer has its node")
        for handle in result.back:
            for stream, signal in subscription.items[handle].feeds:
                self._sink.alarm(self._named(stream, signal)[0], None)

    def _named(self, stream: int, signal: int) -> tuple[str, str]:
        """The subject of a signal's alarms, and the signal's name in their sentences."""
        spec = self._streams[stream].spec
        name = spec.names[signal]
        return f"{stream}/{name}", f"{name!r} of {spec.address.stream}"
