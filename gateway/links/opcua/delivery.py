"""From what a publish brought to the sink: holes, samples and alarms, in that order."""

from collections.abc import Sequence
from dataclasses import dataclass

from broker.batch import Gap
from broker.clock import NS_PER_S, Clock
from gateway.links.opcua.data_changes import Changes
from gateway.links.opcua.demultiplex import OVERFLOW, Hole, Sorted
from gateway.links.opcua.subscription import Subscription
from gateway.links.port import Sink
from gateway.mapping.model import StreamMapping

UNFIT_SAID_NS = 60 * NS_PER_S
"""A signal that had a value of the wrong kind is called so until there was none for so long."""


@dataclass(slots=True)
class Counts:
    """What a link has met with.

    overflows: samples before which the server's queue had dropped some.  lost: publishes that the
    server could not send again.  unfit: values that were none of their signal.
    """

    connects: int = 0
    republished: int = 0
    lost: int = 0
    overflows: int = 0
    unfit: int = 0


class Outlet:
    """One connection's way to the sink."""

    def __init__(
        self, streams: Sequence[StreamMapping], sink: Sink, clock: Clock, counts: Counts
    ) -> None:
        """counts: `connects` already counts this connection."""
        self._streams = streams
        self._sink = sink
        self._clock = clock
        self._counts = counts
        self._break = "gateway-down" if counts.connects == 1 else "source-unreachable"
        self._unfit_ns: dict[str, int] = {}

    async def hand_on(self, subscription: Subscription, changes: Changes) -> None:
        """One notification of a subscription; waits while the sink is full."""
        now_ns = self._clock.now_ns()
        found = subscription.sorter.sort(changes, now_ns)
        if found.lot is not None:
            await self._sink.take_lot(found.lot)
        for hole in found.holes:
            await self._state(hole)
        for parts in (found.first, found.parts):
            if parts:
                await self._sink.take(parts)
        if found.unfit or found.gone or found.back or self._unfit_ns:
            self._raise_alarms(subscription, found, now_ns)

    async def absent(self, stream: int, signal: int) -> None:
        """A signal that nothing is read of: no sample will end its hole, so it ends now."""
        await self._state(Hole(stream, signal, None, self._clock.now_ns(), None))

    async def _state(self, hole: Hole) -> None:
        """A hole becomes a gap where anything can be missing.

        After a break that takes more than a period; what the server says it dropped takes nothing.
        """
        self._counts.overflows += hole.cause == OVERFLOW
        last_ns = hole.after_ns
        if last_ns is None:
            last_ns = self._sink.last_ns(hole.stream, hole.signal)
        spec = self._streams[hole.stream].spec
        least_ns = 1 if hole.cause else max(round(spec.period_s * NS_PER_S), 1)
        if last_ns is None or hole.until_ns - last_ns <= least_ns:
            return
        names, cause = (spec.names[hole.signal],), hole.cause or self._break
        await self._sink.gap(hole.stream, Gap(names, last_ns + 1, hole.until_ns - 1, cause))

    def _raise_alarms(self, subscription: Subscription, found: Sorted, now_ns: int) -> None:
        self._counts.unfit += found.unfit
        for stream, signal, reason in found.reasons:
            subject, name = self._named(stream, signal)
            self._unfit_ns[subject] = now_ns
            self._sink.alarm(subject, f"a value of {name} is stored as bad: {reason}")
        for subject, since_ns in list(self._unfit_ns.items()):
            if now_ns - since_ns > UNFIT_SAID_NS:
                del self._unfit_ns[subject]
                self._sink.alarm(subject, None)
        for handle in found.gone:
            for stream, signal in subscription.items[handle].feeds:
                subject, name = self._named(stream, signal)
                self._sink.alarm(subject, f"{name} is gone: the server no longer has its node")
        for handle in found.back:
            for stream, signal in subscription.items[handle].feeds:
                self._sink.alarm(self._named(stream, signal)[0], None)

    def _named(self, stream: int, signal: int) -> tuple[str, str]:
        """A signal as the subject of an alarm, and as its sentence has it."""
        spec = self._streams[stream].spec
        name = spec.names[signal]
        return f"{stream}/{name}", f"{name!r} of {spec.address.stream}"
