"""Decides whether samples are missing at a break, and from which time stamp to which.  Pure.

Source time is held against the time of arrival, because a source's clock may jump or stand: a gap
reaches from the newest time stamp before a break to the first one after it, if that is not further
than the break was long.  Where the first sample after a break tells nothing, since it is late or
its clock has jumped, the samples behind it decide, for some seconds.  What then has no length in
source time is a gap of the one nanosecond after the newest time stamp.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from broker.batch import Gap, Times
from broker.clock import NS_PER_S
from broker.streams import StreamSpec, Trigger
from gateway.links.port import UNREADABLE, PossibleGap
from gateway.pipeline.latest_samples import LatestSample
from gateway.samples import Arrival, StreamSamples

SLACK_NS = 60 * NS_PER_S
"""Source time may pass by so much more than the time of arrival, and is still of one clock."""
UNDECIDED_NS = 10 * NS_PER_S
"""The samples of so long after a break decide, then its first sample alone."""

Reserve = Callable[[int, int], int]
"""Uses up the time stamp after the newest one of (stream, signal), and returns it."""
Key = tuple[int, int]
"""Stream and signal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _OpenGap:
    """A break whose first sample tells nothing.

    first_ns: time stamp of that sample.  came_ns: monotonic time at which it came.  is_repeat: it
    may be the last one before the break again, unless the clock stands.
    """

    cause: str
    last: LatestSample
    first_ns: int
    came_ns: int
    is_repeat: bool


class PossibleGaps:
    """The decisions on the possible gaps of some streams."""

    def __init__(self, specs: Sequence[StreamSpec], reserve: Reserve) -> None:
        """specs: of the streams."""
        self._specs = specs
        self._reserve = reserve
        self._open: dict[Key, _OpenGap] = {}

    @property
    def are_open(self) -> bool:
        """Whether samples that come are to be passed to `decide`."""
        return bool(self._open)

    def gap(
        self, possible: PossibleGap, cause: str, last: LatestSample, arrival: Arrival
    ) -> Gap | None:
        """The gap before a sample that comes now; None for none, or if later samples decide."""
        key, until_ns = (possible.stream, possible.signal), possible.until_ns
        elapsed_ns = arrival.monotonic_ns - last.arrived_ns
        since_ns, is_known = last.newest_ns, False
        if last.time_ns > since_ns and _passes(last.time_ns, until_ns, elapsed_ns):
            since_ns = last.time_ns  # far ahead, and it goes on there: the clock behind is ours
        if possible.after_ns is not None:  # both ends came together, after a pause of ours
            since_ns = possible.after_ns
            is_known = since_ns < until_ns <= arrival.now_ns + SLACK_NS
        if is_known or _passes(since_ns, until_ns, elapsed_ns):
            least_ns = self._least_ns(possible.stream) if possible.cause is None else 1
            return self._between(key, (since_ns, until_ns), least_ns, cause)
        if possible.cause is not None:
            return self._without_length(key, cause)
        if possible.is_unread:
            since_ns = min(last.time_ns, last.newest_ns)
            return self._between(key, (since_ns, since_ns + elapsed_ns + 1), 1, cause)
        is_in_run = last.run_first_ns <= until_ns <= last.newest_ns
        if is_in_run and last.stands:
            return self._without_length(key, cause)
        if self._has_regular_samples(possible.stream):
            self._open[key] = _OpenGap(
                cause=cause,
                last=last,
                first_ns=until_ns,
                came_ns=arrival.monotonic_ns,
                is_repeat=is_in_run or until_ns == last.time_ns,
            )
        return None

    def before_any_sample(self, possible: PossibleGap, cause: str) -> Gap | None:
        """The gap of a signal that has had no sample: some of the time in which it is not read."""
        after_ns = possible.after_ns
        if after_ns is None:
            after_ns, cause = possible.since_ns, UNREADABLE
        if after_ns is None:
            return None
        key = (possible.stream, possible.signal)
        return self._between(key, (after_ns, possible.until_ns), 1, cause)

    def decide(
        self, parts: Sequence[StreamSamples], monotonic_ns: int
    ) -> Iterator[tuple[int, Gap]]:
        """The gaps (stream, gap) that samples which come now decide, or the lapse of time."""
        for key, open_gap in list(self._open.items()):
            times = [
                part.samples.time_ns[part.samples.signal == key[1]]
                for part in parts
                if part.stream == key[0] and not (open_gap.is_repeat and part.fresh)
            ]
            gap, is_decided = self._decided(key, open_gap, times, monotonic_ns)
            if is_decided:
                del self._open[key]
                if gap is not None:
                    yield key[0], gap

    def close(self) -> Iterator[tuple[int, Gap]]:
        """The gaps that are still open at the end of the process."""
        for key, open_gap in self._open.items():
            gap = self._undecided(key, open_gap)
            if gap is not None:
                yield key[0], gap
        self._open.clear()

    def _decided(
        self, key: Key, open_gap: _OpenGap, columns: Sequence[Times], monotonic_ns: int
    ) -> tuple[Gap | None, bool]:
        """The gap of an open one, if any, and whether that is decided.

        columns: time stamps of the signal's samples that come now.
        """
        last, least_ns = open_gap.last, self._least_ns(key[0])
        most_ns = last.newest_ns + monotonic_ns - last.arrived_ns + SLACK_NS
        for times in columns:
            ends = times[(times > last.newest_ns) & (times <= most_ns)]
            if len(ends) and open_gap.is_repeat:
                return None, True
            if len(ends):
                span = (last.newest_ns, int(ends[0]))
                return self._between(key, span, least_ns, open_gap.cause), True
            if len(times) and open_gap.is_repeat:
                return self._without_length(key, open_gap.cause), True
        if monotonic_ns - open_gap.came_ns < UNDECIDED_NS:
            return None, False
        return self._undecided(key, open_gap), True

    def _undecided(self, key: Key, open_gap: _OpenGap) -> Gap | None:
        """The gap that follows from the first sample after a break alone."""
        last, until_ns, least_ns = open_gap.last, open_gap.first_ns, self._least_ns(key[0])
        elapsed_ns = open_gap.came_ns - last.arrived_ns
        if open_gap.is_repeat or elapsed_ns <= least_ns:
            return None
        if _passes(last.time_ns, until_ns, elapsed_ns):
            return self._between(key, (last.time_ns, until_ns), least_ns, open_gap.cause)
        if until_ns > last.newest_ns:  # the clock has jumped ahead
            until_ns = last.newest_ns + elapsed_ns + 1
            return self._between(key, (last.newest_ns, until_ns), least_ns, open_gap.cause)
        return self._without_length(key, open_gap.cause)

    def _between(self, key: Key, span: tuple[int, int], least_ns: int, cause: str) -> Gap | None:
        """The gap between two time stamps, if they lie further apart than `least_ns`."""
        since_ns, until_ns = span
        if until_ns - since_ns <= least_ns:
            return None
        return Gap((self._name(key),), since_ns + 1, until_ns - 1, cause)

    def _without_length(self, key: Key, cause: str) -> Gap:
        """A gap of one nanosecond that no sample will have."""
        time_ns = self._reserve(*key)
        return Gap((self._name(key),), time_ns, time_ns, cause)

    def _name(self, key: Key) -> str:
        stream, signal = key
        return self._specs[stream].names[signal]

    def _least_ns(self, stream: int) -> int:
        """The longest distance of two samples between which none is missing."""
        return max(round(self._specs[stream].period_s * NS_PER_S), 1)

    def _has_regular_samples(self, stream: int) -> bool:
        """Whether a sample comes every period, even if its value is the same."""
        spec = self._specs[stream]
        return spec.trigger is Trigger.TIMESTAMP and spec.period_s > 0


def _passes(since_ns: int, until_ns: int, elapsed_ns: int) -> bool:
    """Whether source time moved on, and by no more than the time of arrival did."""
    return since_ns < until_ns <= since_ns + elapsed_ns + SLACK_NS
