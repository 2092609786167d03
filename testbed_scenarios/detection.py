"""Scores of a detector's alarms against the faults that were there, by point and by event.  Pure.

By point, each row of the machine is one case: faulty or not, flagged or not.  Source: the counts
and rates of the Skoltech Anomaly Benchmark (SKAB), in which F1, false-alarm rate and missed-alarm
rate are those of single points.

By event, a fault is one case however long it lasts.  It is detected if any alarm overlaps it, and
an alarm that overlaps no fault is one false alarm, however long it is.  Source: Hundman et al.,
Detecting Spacecraft Anomalies Using LSTMs and Nonparametric Dynamic Thresholding, KDD 2018.
Alarms that overlap or touch are one; so are faults.
"""

import bisect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from broker.clock import NS_PER_S
from testbed_scenarios.held_signal import HeldSignal, TimeSpan

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """Counts of labelled rows: with a fault or without, flagged by the detector or not.

    hits: faulty and flagged.  missed: faulty, not flagged.  false: flagged without a fault.  quiet:
    neither.
    """

    hits: int = 0
    missed: int = 0
    false: int = 0
    quiet: int = 0

    def __add__(self, other: "Detection") -> "Detection":
        """The counts of the rows of both."""
        return Detection(
            hits=self.hits + other.hits,
            missed=self.missed + other.missed,
            false=self.false + other.false,
            quiet=self.quiet + other.quiet,
        )

    @property
    def faulty(self) -> int:
        """Number of rows with a fault."""
        return self.hits + self.missed

    @property
    def precision(self) -> float | None:
        """Share of the flagged rows that have a fault; None if no row was flagged."""
        flagged = self.hits + self.false
        return self.hits / flagged if flagged else None

    @property
    def recall(self) -> float | None:
        """Share of the rows with a fault that were flagged; None if no row has a fault."""
        return self.hits / self.faulty if self.faulty else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall, 0 to 1; None if no row has a fault."""
        if not self.faulty:
            return None
        return 2 * self.hits / (2 * self.hits + self.missed + self.false)

    @property
    def far(self) -> float | None:
        """Share of the rows without a fault that were flagged; None if there is no such row."""
        normal = self.false + self.quiet
        return self.false / normal if normal else None

    @property
    def mar(self) -> float | None:
        """Share of the rows with a fault that were not flagged; None if no row has a fault."""
        return self.missed / self.faulty if self.faulty else None

    @property
    def always_f1(self) -> float | None:
        """The F1 of an alarm that is always on; None if no row has a fault."""
        rows = self.faulty + self.false + self.quiet
        return 2 * self.faulty / (self.faulty + rows) if self.faulty else None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDetection:
    """Faults and alarms, each as a whole, in the order of time.

    found_after_ns: of each fault that was detected, the time from its beginning until an alarm is
    on.  missed: the other faults.  false: alarms that overlap no fault.  healthy_ns: time without a
    fault.
    """

    found_after_ns: Mapping[TimeSpan, int]
    missed: tuple[TimeSpan, ...]
    false: tuple[TimeSpan, ...]
    healthy_ns: int

    @property
    def detected(self) -> int:
        """Number of faults that were detected."""
        return len(self.found_after_ns)

    @property
    def faults(self) -> int:
        """Number of faults."""
        return self.detected + len(self.missed)

    @property
    def false_alarms(self) -> int:
        """Number of alarms that overlap no fault."""
        return len(self.false)

    @property
    def precision(self) -> float | None:
        """Detected faults among detected faults and false alarms; None without either."""
        alarms = self.detected + self.false_alarms
        return self.detected / alarms if alarms else None

    @property
    def recall(self) -> float | None:
        """Share of the faults that were detected; None without a fault."""
        return self.detected / self.faults if self.faults else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall, 0 to 1; None without a fault."""
        if not self.faults:
            return None
        return 2 * self.detected / (self.detected + self.false_alarms + self.faults)

    @property
    def mar(self) -> float | None:
        """Share of the faults that were not detected; None without a fault."""
        return 1 - self.detected / self.faults if self.faults else None

    @property
    def false_alarms_per_s(self) -> float | None:
        """False alarms in each second without a fault; None if there is no such time."""
        return self.false_alarms * NS_PER_S / self.healthy_ns if self.healthy_ns else None


def by_point(faulty: Flags, flagged: Flags) -> Detection:
    """Count n rows by whether they have a fault and whether they were flagged: two bool[n]."""
    hits = int(np.count_nonzero(faulty & flagged))
    missed, false = int(faulty.sum()) - hits, int(flagged.sum()) - hits
    return Detection(
        hits=hits, missed=missed, false=false, quiet=len(faulty) - hits - missed - false
    )


def by_label(truth: Mapping[int, bool], detected: Mapping[int, bool]) -> Detection:
    """Compare labels (fault or not) by time stamp; a row that the detector did not label is one
    that it did not flag.
    """
    return by_point(
        np.fromiter(truth.values(), np.bool_, len(truth)),
        np.fromiter((detected.get(time_ns, False) for time_ns in truth), np.bool_, len(truth)),
    )


def by_event(
    faults: Iterable[TimeSpan], alarms: Sequence[TimeSpan], span: TimeSpan
) -> EventDetection:
    """Count the faults and alarms of a span; what reaches beyond its ends is cut off there.

    Faults that overlap or touch are one.
    """
    events = merged(_cut(faults, span))
    raised = merged(_cut(alarms, span))
    delays = {event: _delay_ns(event, raised) for event in events}
    return EventDetection(
        found_after_ns={event: each for event, each in delays.items() if each is not None},
        missed=tuple(event for event, each in delays.items() if each is None),
        false=tuple(alarm for alarm in raised if _first_overlapping(alarm, events) is None),
        healthy_ns=span.length_ns - sum(event.length_ns for event in events),
    )


def alarms_of(signal: HeldSignal) -> list[TimeSpan]:
    """The alarms of a signal: each time over which its known values are true, or not 0."""
    raised = signal.known & signal.values.astype(np.bool_) & (signal.end_ns > signal.begin_ns)
    spans = zip(signal.begin_ns[raised].tolist(), signal.end_ns[raised].tolist(), strict=True)
    return merged(TimeSpan(*ends) for ends in spans)


def flags_at(signal: HeldSignal, time_ns: npt.NDArray[np.int64]) -> Flags:
    """Whether a signal alarms at each of n instants; without a known value it does not."""
    if not len(signal):
        return np.zeros(len(time_ns), np.bool_)
    at = np.searchsorted(signal.begin_ns, time_ns, side="right") - 1
    alarming = signal.known & signal.values.astype(np.bool_)
    return (at >= 0) & (time_ns < signal.end_ns[at]) & alarming[at]


def inside(spans: Iterable[TimeSpan], time_ns: npt.NDArray[np.int64]) -> Flags:
    """Whether each of n instants lies in any of some spans."""
    flags = np.zeros(len(time_ns), np.bool_)
    for span in spans:
        flags |= (time_ns >= span.from_ns) & (time_ns < span.to_ns)
    return flags


def merged(spans: Iterable[TimeSpan]) -> list[TimeSpan]:
    """Spans in the order of time, with those that overlap or touch as one; none is empty."""
    result: list[TimeSpan] = []
    for span in sorted(span for span in spans if span.length_ns):
        if result and span.from_ns <= result[-1].to_ns:
            result[-1] = TimeSpan(result[-1].from_ns, max(result[-1].to_ns, span.to_ns))
        else:
            result.append(span)
    return result


def flagged_by_kind(
    kinds: Mapping[int, Sequence[str]], detected: Mapping[int, bool]
) -> dict[str, tuple[int, int]]:
    """Count, for each kind of fault, the rows that were flagged, and all rows with it.

    kinds: those of the rows with a fault, by time stamp.
    """
    rows = Counter(kind for each in kinds.values() for kind in each)
    flagged = Counter(
        kind for time_ns, each in kinds.items() if detected.get(time_ns, False) for kind in each
    )
    return {kind: (flagged[kind], count) for kind, count in sorted(rows.items())}


def _cut(spans: Iterable[TimeSpan], span: TimeSpan) -> list[TimeSpan]:
    return [
        TimeSpan(max(each.from_ns, span.from_ns), min(each.to_ns, span.to_ns)) for each in spans
    ]


def _first_overlapping(span: TimeSpan, others: Sequence[TimeSpan]) -> TimeSpan | None:
    """The first of some spans, which are in order and disjoint, that overlaps a span."""
    at = bisect.bisect_right(others, span.from_ns, key=lambda other: other.to_ns)
    return others[at] if at < len(others) and others[at].from_ns < span.to_ns else None


def _delay_ns(event: TimeSpan, alarms: Sequence[TimeSpan]) -> int | None:
    """Time from an event's beginning until an alarm is on; None if none overlaps it."""
    alarm = _first_overlapping(event, alarms)
    return None if alarm is None else max(0, alarm.from_ns - event.from_ns)
