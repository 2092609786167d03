"""Evaluation of expectations on how many samples there are: count and rate.  Pure.

Only samples with a value count.  No sample is a number too: 0; but a stream or signal of which the
run knows nothing fails every expectation.
"""

from dataclasses import dataclass

import numpy as np

from broker.batch import Times
from broker.clock import NS_PER_S
from testbed_scenarios.expectations.conditions import Judgement
from testbed_scenarios.expectations.model import (
    CountExpectation,
    RateExpectation,
    SampleExpectation,
)
from testbed_scenarios.expectations.result import SpanResult, length_text, number_or_none, time_text
from testbed_scenarios.expectations.spans import ExpectedSpan, spans_of
from testbed_scenarios.held_signal import TimeSpan, has_value
from testbed_scenarios.observations import Observations


@dataclass(frozen=True, slots=True)
class _Windows:
    """Windows of one length: their beginnings, ascending, and the number of samples in each."""

    begin_ns: Times
    counts: Times
    length_ns: int


def evaluate(expectation: SampleExpectation, observed: Observations) -> list[SpanResult]:
    """Evaluate an expectation over each of its spans; no span, no result."""
    spans = spans_of(expectation, observed)
    times = times_of(expectation, observed)
    if times is None:
        known = observed.known_signals(expectation.subject) if expectation.signal else ""
        sentence = f"nothing is known of {expectation.subject} in this run{known}"
        return [SpanResult(passed=False, sentence=sentence) for _ in spans]
    return [_over(expectation, times, each, observed.start_ns) for each in spans]


def times_of(expectation: SampleExpectation, observed: Observations) -> Times | None:
    """The time stamps that an expectation counts, ascending; None if nothing is known of them."""
    if expectation.stream is not None:
        series = observed.streams.get(expectation.stream)
        if series is None:
            return None
        stamps = [each.time_ns[has_value(each)] for each in series.values()]
        return np.unique(np.concatenate(stamps)) if stamps else np.empty(0, np.int64)
    stream, _, signal = expectation.subject.rpartition("/")
    if signal not in observed.streams.get(stream, {}):
        return None
    samples = observed.series(expectation.subject)
    return np.sort(samples.time_ns[has_value(samples)])


def _over(
    expectation: SampleExpectation, times: Times, expected: ExpectedSpan, start_ns: int
) -> SpanResult:
    span = expected.span
    if not span.length_ns:
        begin = time_text(span.from_ns, start_ns)
        sentence = f"the time for it, from {begin} on, was not in the run any more"
        return SpanResult(passed=None, sentence=sentence)
    if isinstance(expectation, RateExpectation):
        return _rate(expectation, times, span, start_ns)
    if isinstance(expectation, CountExpectation):
        return _count(expectation, times, span, start_ns)
    raise NotImplementedError(type(expectation).__name__)


def _count(
    expectation: CountExpectation, times: Times, span: TimeSpan, start_ns: int
) -> SpanResult:
    count = int(np.diff(np.searchsorted(times, list(span)))[0])
    holds, margin = expectation.count.judge([count])
    passed = bool(holds[0])
    where = f"between {time_text(span.from_ns, start_ns)} and {time_text(span.to_ns, start_ns)}"
    samples = f"{count:,} {'sample' if count == 1 else 'samples'} {where}"
    return SpanResult(
        passed=passed,
        sentence=samples if passed else f"expected {expectation.count.text()}: {samples}",
        robustness=number_or_none(margin[0]),
        observed={"count": count},
        violation=None if passed else span,
    )


def _rate(expectation: RateExpectation, times: Times, span: TimeSpan, start_ns: int) -> SpanResult:
    length_ns = min(expectation.over_ns or span.length_ns, span.length_ns)
    windows = _windows(times, span, length_ns)
    rates = windows.counts * (NS_PER_S / length_ns)
    judgement = expectation.rate.judge(rates)
    passed, at = bool(judgement.holds.all()), _decisive(judgement)
    rate_text = f"{rates[at]:.6g} /s"
    if expectation.over_ns is not None:
        begin = time_text(int(windows.begin_ns[at]), start_ns)
        rate_text = f"{rate_text} in the {length_text(length_ns)} from {begin} on"
    first = int(windows.begin_ns[int(np.argmin(judgement.holds))])
    return SpanResult(
        passed=passed,
        sentence=rate_text if passed else f"expected {expectation.rate.text('/s')}: {rate_text}",
        robustness=number_or_none(judgement.margin[at]),
        observed={"rate_per_s": float(rates[at])},
        violation=None if passed else TimeSpan(first, first + length_ns),
    )


def _decisive(judgement: Judgement) -> int:
    """Index of the window that is furthest from fulfilling the condition."""
    return int(np.argmin(judgement.margin))


def _windows(times: Times, span: TimeSpan, length_ns: int) -> _Windows:
    """Windows inside a span, among which are those with the fewest and the most samples.

    The count of a window that is moved on changes only where a sample leaves it, just after the
    sample, and where the sample enters it at its end.
    """
    last_ns = span.to_ns - length_ns
    moved = np.concatenate([times + 1, times - length_ns + 1])
    inside = moved[(moved > span.from_ns) & (moved <= last_ns)]
    begin_ns = np.unique(np.concatenate([inside, np.array([span.from_ns], np.int64)]))
    counts = np.searchsorted(times, begin_ns + length_ns) - np.searchsorted(times, begin_ns)
    return _Windows(begin_ns, counts.astype(np.int64), length_ns)
