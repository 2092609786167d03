"""Evaluation of expectations on the values of a signal: always, never, eventually, settles.  Pure.

A sample is held until the next one (`testbed_scenarios.held_signal`).  Time of which nothing is
known neither fulfils nor fails an expectation: it is told, and where nothing at all is known the
expectation fails.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from broker import time_expressions
from broker.errors import Invalid
from testbed_scenarios.expectations.conditions import Judgement, SignalCondition
from testbed_scenarios.expectations.model import (
    AlwaysExpectation,
    EventuallyExpectation,
    NeverExpectation,
    SettlesExpectation,
    SignalExpectation,
)
from testbed_scenarios.expectations.result import (
    SpanResult,
    beyond_end,
    length_text,
    number_or_none,
    plain,
    time_text,
    unknown_text,
    value_text,
)
from testbed_scenarios.expectations.spans import ExpectedSpan, spans_of
from testbed_scenarios.held_signal import HeldSignal, TimeSpan
from testbed_scenarios.observations import Observations

Flags = npt.NDArray[np.bool_]
Margins = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Subject:
    """A signal under an expectation: its name, its values over the run, its unit, and the start.

    known: the end of a sentence about one that its stream does not have; empty where it does.
    """

    name: str
    held: HeldSignal
    unit: str
    start_ns: int
    known: str

    def value(self, value: object) -> str:
        return value_text(value, self.unit)

    def time(self, instant_ns: int) -> str:
        return time_text(instant_ns, self.start_ns)


def evaluate(expectation: SignalExpectation, observed: Observations) -> list[SpanResult]:
    """Evaluate an expectation over each of its spans; no span, no result."""
    name = expectation.signal
    held = HeldSignal.of(observed.series(name), observed.gaps_of(name))
    subject = _Subject(
        name, held, observed.unit(name), observed.start_ns, observed.known_signals(name)
    )
    match expectation:
        case AlwaysExpectation():
            condition = expectation.always
            results = [
                _always(subject, each, condition) for each in spans_of(expectation, observed)
            ]
        case NeverExpectation():
            condition = expectation.never
            results = [
                _always(subject, each, condition, negated=True)
                for each in spans_of(expectation, observed)
            ]
        case EventuallyExpectation():
            spans = spans_of(expectation, observed, expectation.within_ns)
            results = [_eventually(subject, each, expectation.eventually) for each in spans]
        case SettlesExpectation():
            results = [
                _settles(subject, each, expectation)
                for each in _until_next(spans_of(expectation, observed))
            ]
        case _:
            raise Invalid(f"{type(expectation).__name__} is not about the values of a signal")
    return [_strict(result) for result in results] if expectation.unknown == "fails" else results


def _always(
    subject: _Subject, expected: ExpectedSpan, condition: SignalCondition, *, negated: bool = False
) -> SpanResult:
    span = expected.span
    if not span.length_ns:
        return beyond_end(subject.time(span.from_ns))
    pieces = subject.held.within(span).only_known()
    if not len(pieces):
        return _nothing_known(expected, subject)
    holds, margin = _judged(condition, pieces, negated=negated)
    unknown_ns = span.length_ns - pieces.known_ns
    at = _least(holds, margin)
    wording = f"{'never' if negated else 'always'} {condition.text(_shown(subject.unit))}"
    if holds.all():
        extreme = f"{subject.value(pieces.values[at])} at {subject.time(int(pieces.begin_ns[at]))}"
        sentence = f"it was {wording}; nearest to that bound was {extreme}"
        if np.isnan(margin[at]):
            sentence = f"it was {wording}"
        return SpanResult(
            passed=True,
            sentence=f"{sentence}{unknown_text(unknown_ns)}",
            robustness=number_or_none(margin[at]),
            observed={"value": plain(pieces.values[at])},
            unknown_ns=unknown_ns,
        )
    violation = _first_violation(pieces, holds)
    first = pieces.values[int(np.argmin(holds))]
    lasting = f" for {length_text(violation.length_ns)}" if violation.length_ns else ""
    furthest = "" if np.isnan(margin[at]) else f", at worst {subject.value(pieces.values[at])}"
    return SpanResult(
        passed=False,
        sentence=f"expected {wording}: it was {subject.value(first)} at"
        f" {subject.time(violation.from_ns)}{lasting}{furthest}{unknown_text(unknown_ns)}",
        robustness=number_or_none(margin[at]),
        observed={"value": plain(pieces.values[at])},
        violation=violation,
        unknown_ns=unknown_ns,
    )


def _eventually(
    subject: _Subject, expected: ExpectedSpan, condition: SignalCondition
) -> SpanResult:
    span = expected.span
    if not span.length_ns:
        return beyond_end(subject.time(span.from_ns))
    pieces = subject.held.within(span).only_known()
    unknown_ns = span.length_ns - pieces.known_ns
    wording = condition.text(_shown(subject.unit))
    if not len(pieces) and not expected.is_cut:
        return _nothing_known(expected, subject)
    holds, margin = _judged(condition, pieces)
    if holds.any():
        first = int(np.argmax(holds))
        delay_ns = int(pieces.begin_ns[first]) - span.from_ns
        return SpanResult(
            passed=True,
            sentence=f"it was {wording} after {length_text(delay_ns)}{unknown_text(unknown_ns)}",
            robustness=_greatest(margin),
            observed={"value": plain(pieces.values[first]), "after_s": delay_ns / 1e9},
            unknown_ns=unknown_ns,
        )
    if expected.is_cut:
        return SpanResult(
            passed=None,
            sentence=f"it was not {wording} until the run ended, before the time for it was over",
            unknown_ns=unknown_ns,
        )
    best = pieces.values[int(np.argmax(np.nan_to_num(margin, nan=-np.inf)))]
    nearest = "" if np.isnan(margin).all() else f"; nearest to it was {subject.value(best)}"
    return SpanResult(
        passed=False,
        sentence=f"it was not {wording} between {subject.time(span.from_ns)} and"
        f" {subject.time(span.to_ns)}{nearest}{unknown_text(unknown_ns)}",
        robustness=_greatest(margin),
        observed={"value": plain(best), "after_s": None},
        violation=span,
        unknown_ns=unknown_ns,
    )


def _settles(
    subject: _Subject, expected: ExpectedSpan, expectation: SettlesExpectation
) -> SpanResult:
    """A signal has settled if it is in the band at the end of `within` and ever after."""
    settling, span = expectation.settles, expected.span
    condition = SignalCondition(between=(settling.to - settling.band, settling.to + settling.band))
    late = TimeSpan(span.from_ns + settling.within_ns, span.to_ns)
    if not late.length_ns:
        return beyond_end(subject.time(span.from_ns))
    rest = _always(subject, replace(expected, span=late), condition)
    pieces = subject.held.within(span).only_known()
    settled_ns = _settled_ns(pieces, condition)
    if settled_ns is None or not rest.observed:
        return rest
    after_ns = settled_ns - span.from_ns
    band = f"{settling.to:g} ± {settling.band:g} {_shown(subject.unit)}".rstrip()
    observed = {**rest.observed, "settled_after_s": after_ns / 1e9}
    sentence = f"it was in {band} for good after {length_text(after_ns)}"
    if rest.passed:
        return replace(
            rest, sentence=f"{sentence}{unknown_text(rest.unknown_ns)}", observed=observed
        )
    limit = time_expressions.duration_text(settling.within_ns)
    return replace(
        rest,
        sentence=f"{sentence}, and not within {limit}{unknown_text(rest.unknown_ns)}",
        observed=observed,
    )


def _settled_ns(pieces: HeldSignal, condition: SignalCondition) -> int | None:
    """The instant from which every known value is in the band; None if the last one is not."""
    outside = np.flatnonzero(~condition.judge(pieces.values).holds)
    first = int(outside[-1]) + 1 if len(outside) else 0
    return int(pieces.begin_ns[first]) if first < len(pieces) else None


def _until_next(spans: list[ExpectedSpan]) -> list[ExpectedSpan]:
    """Spans that end at the latest where the next occurrence is."""
    ends = [*(each.base_ns for each in spans[1:]), None]
    return [
        each
        if next_ns is None
        else replace(each, span=TimeSpan(each.span.from_ns, min(each.span.to_ns, next_ns)))
        for each, next_ns in zip(spans, ends, strict=True)
    ]


def _judged(condition: SignalCondition, pieces: HeldSignal, *, negated: bool = False) -> Judgement:
    judgement = condition.judge(pieces.values)
    return Judgement(~judgement.holds, -judgement.margin) if negated else judgement


def _least(holds: Flags, margin: Margins) -> int:
    """Index of the value that is furthest from holding."""
    if np.isnan(margin).all():
        return int(np.argmin(holds))
    return int(np.nanargmin(margin))


def _greatest(margin: Margins) -> float | None:
    return None if np.isnan(margin).all() else number_or_none(float(np.nanmax(margin)))


def _first_violation(pieces: HeldSignal, holds: Flags) -> TimeSpan:
    """The first time over which values do not hold, one after the other."""
    first = last = int(np.argmin(holds))
    while (
        last + 1 < len(pieces)
        and not holds[last + 1]
        and pieces.begin_ns[last + 1] == pieces.end_ns[last]
    ):
        last += 1
    return TimeSpan(int(pieces.begin_ns[first]), int(pieces.end_ns[last]))


def _strict(result: SpanResult) -> SpanResult:
    """The result where time of which nothing is known makes an expectation fail."""
    if result.passed is False or not (result.unknown_ns or result.passed is None):
        return result
    return replace(
        result,
        passed=False,
        sentence=f"{result.sentence}; and `unknown: fails` does not allow that",
        robustness=None,
    )


def _nothing_known(expected: ExpectedSpan, subject: _Subject) -> SpanResult:
    span = expected.span
    reason = "it has no sample" if not len(subject.held) else "no value of it is known"
    return SpanResult(
        passed=False,
        sentence=f"{reason} between {subject.time(span.from_ns)} and {subject.time(span.to_ns)}"
        f"{subject.known}",
        violation=span,
        unknown_ns=span.length_ns,
    )


def _shown(unit: str) -> str:
    return "" if unit == "1" else unit
