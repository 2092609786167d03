"""Evaluation of expectations on scores: of detection, of control quality, of resources.  Pure.

An expectation may have conditions on several scores, and passes if each of them holds.  A score
that cannot be computed from the data fails its condition, with the reason.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from broker import units
from broker.batch import Times
from broker.clock import NS_PER_S
from broker.errors import Invalid
from testbed_scenarios import control_quality, detection
from testbed_scenarios.detection import Detection, EventDetection
from testbed_scenarios.expectations.model import (
    AnyCondition,
    ControlExpectation,
    DetectionExpectation,
    ResourceExpectation,
)
from testbed_scenarios.expectations.result import (
    Observed,
    SpanResult,
    beyond_end,
    length_text,
    number_or_none,
    time_text,
    unknown_text,
)
from testbed_scenarios.expectations.spans import ExpectedSpan, spans_of
from testbed_scenarios.held_signal import HeldSignal, TimeSpan
from testbed_scenarios.observations import Observations

DURATIONS = frozenset({"delay", "settling_time", "cycle_time", "lag"})
UNITS: Mapping[str, str] = {
    **dict.fromkeys(DURATIONS, "s"),
    "false_alarms": "/s",
    "energy": "J",
    "memory": "B",
}
"""Unit of each score in observed values and robustness; `1` for those that are shares."""


@dataclass(frozen=True, slots=True)
class _Score:
    """One score.  values: all that its condition is about, none if it cannot be computed.

    missing: the reason for that.  violation: where to look if the condition does not hold.
    """

    values: tuple[float, ...]
    missing: str = ""
    violation: TimeSpan | None = None


def of_detection(expectation: DetectionExpectation, observed: Observations) -> list[SpanResult]:
    """Score the alarms of a prototype over the span of the expectation."""
    (expected,) = spans_of(expectation, observed)
    span, name = expected.span, expectation.detection
    truth = _truth(expectation, observed)
    series = observed.series(name)
    if truth is None:
        return [_failed(f"nothing is known about the faults of {expectation.truth}", span)]
    if not len(series.time_ns):
        return [_failed(f"{name} has no sample{observed.known_signals(name)}", span)]
    events = detection.by_event(
        truth, detection.alarms_of(_alarm_signal(expectation, observed, span)), span
    )
    if expectation.by == "event":
        scores = _event_scores(events)
    else:
        counts = by_row(expectation, observed)
        if counts is None:
            return [_failed(f"{expectation.truth} has no row to score", span)]
        scores = _point_scores(counts, events)
    scores["delay"] = _delay(events)
    return [_judged(expectation.conditions, scores, span)]


def by_row(expectation: DetectionExpectation, observed: Observations) -> Detection | None:
    """Count the rows of the equipment in the span of an expectation by fault and alarm.

    None where nothing can be counted: without a row, without a sample of the alarm, or where
    nothing is known of the faults.
    """
    (expected,) = spans_of(expectation, observed)
    span, truth = expected.span, _truth(expectation, observed)
    if truth is None or not len(observed.series(expectation.detection).time_ns):
        return None
    stamps = [each.time_ns for each in observed.streams.get(expectation.truth, {}).values()]
    rows = np.unique(np.concatenate(stamps)) if stamps else np.empty(0, np.int64)
    rows = rows[(rows >= span.from_ns) & (rows < span.to_ns)]
    if not len(rows):
        return None
    flagged = detection.flags_at(_alarm_signal(expectation, observed, span), rows)
    return detection.by_point(detection.inside(truth, rows), flagged)


def _alarm_signal(
    expectation: DetectionExpectation, observed: Observations, span: TimeSpan
) -> HeldSignal:
    name = expectation.detection
    return HeldSignal.of(observed.series(name), observed.gaps_of(name)).within(span)


def _truth(expectation: DetectionExpectation, observed: Observations) -> list[TimeSpan] | None:
    """The faults that are to be detected; None if nothing is known of any."""
    faults, kinds = observed.truth.get(expectation.truth), expectation.faults
    if faults is None:
        return None
    return [
        TimeSpan(fault.from_ns, fault.to_ns)
        for fault in faults
        if (not fault.signal if kinds is None else fault.kind in kinds)
    ]


def _point_scores(counts: Detection, events: EventDetection) -> dict[str, _Score]:
    no_fault = "no row has a fault"
    missed, false = _first(events.missed), _first(events.false)
    return {
        "precision": _score(counts.precision, "it flagged no row", false),
        "recall": _score(counts.recall, no_fault, missed),
        "f1": _score(counts.f1, no_fault, missed or false),
        "false_alarm_rate": _score(counts.far, "every row has a fault", false),
        "missed_alarm_rate": _score(counts.mar, no_fault, missed),
    }


def _event_scores(counts: EventDetection) -> dict[str, _Score]:
    no_fault = "there was no fault"
    missed, false = _first(counts.missed), _first(counts.false)
    no_time = "there was no time without a fault"
    return {
        "precision": _score(counts.precision, "it raised no alarm", false),
        "recall": _score(counts.recall, no_fault, missed),
        "f1": _score(counts.f1, no_fault, missed or false),
        "false_alarms": _score(counts.false_alarms_per_s, no_time, false),
        "missed_alarm_rate": _score(counts.mar, no_fault, missed),
    }


def _delay(counts: EventDetection) -> _Score:
    if not counts.found_after_ns:
        return _Score((), "it detected no fault" if counts.missed else "there was no fault")
    event, delay_ns = max(counts.found_after_ns.items(), key=lambda item: item[1])
    return _Score((float(delay_ns),), violation=event)


def of_control(expectation: ControlExpectation, observed: Observations) -> list[SpanResult]:
    """Measure a signal under control over each span of the expectation; no span, no result."""
    name = expectation.control
    held = HeldSignal.of(observed.series(name), observed.gaps_of(name))
    return [_control(expectation, held, each, observed) for each in spans_of(expectation, observed)]


def _control(
    expectation: ControlExpectation,
    held: HeldSignal,
    expected: ExpectedSpan,
    observed: Observations,
) -> SpanResult:
    span = expected.span
    begin = time_text(span.from_ns, observed.start_ns)
    if not span.length_ns:
        return beyond_end(begin)
    signal = held.within(span)
    if not signal.known.any():
        known = observed.known_signals(expectation.control)
        return _failed(f"it has no sample with a value from {begin} on{known}", span)
    scores: dict[str, _Score] = {}
    if expectation.set_point is not None:
        scores |= _step_scores(signal, span, expectation.set_point, expectation.band)
    if expectation.energy is not None:
        scores["energy"] = _energy(signal, observed.unit(expectation.control))
    if expectation.cycle_time is not None:
        cycles_ns = control_quality.cycle_times_ns(signal)
        scores["cycle_time"] = _Score(tuple(map(float, cycles_ns)), "it has no whole cycle")
    result = _judged(expectation.conditions, scores, span)
    unknown_ns = span.length_ns - signal.known_ns
    sentence = f"{result.sentence}{unknown_text(unknown_ns)}"
    return replace(result, sentence=sentence, unknown_ns=unknown_ns)


def _step_scores(
    signal: HeldSignal, span: TimeSpan, set_point: float, band: float
) -> dict[str, _Score]:
    step = control_quality.step_response(signal, span.from_ns, set_point=set_point, band=band)
    if step is None:
        missing = f"it is at {set_point:g} from the beginning, so there is no step"
        return dict.fromkeys(("overshoot", "settling_time"), _Score((), missing))
    peak = TimeSpan(step.peak_ns, min(step.peak_ns + 1, span.to_ns))
    settling = () if step.settling_ns is None else (float(step.settling_ns),)
    return {
        "overshoot": _Score((step.overshoot,), violation=peak),
        "settling_time": _Score(settling, f"it did not stay near {set_point:g}"),
    }


def _energy(signal: HeldSignal, unit: str) -> _Score:
    try:
        watts = units.conversion(unit, "W").factor
    except Invalid as exc:
        return _Score((), f"its unit is no power: {exc.message}")
    return _Score((control_quality.integral(signal) * watts,))


def of_resources(expectation: ResourceExpectation, observed: Observations) -> list[SpanResult]:
    """Measure the resources that a prototype took over the span of the expectation.

    cpu is the mean of its measurements; memory and lag are the greatest of theirs.
    """
    (expected,) = spans_of(expectation, observed)
    span, samples = expected.span, observed.resources.get(expectation.resources)
    if samples is None:
        return [_failed(f"nothing is known about the resources of {expectation.resources}", span)]
    inside = (samples.time_ns >= span.from_ns) & (samples.time_ns < span.to_ns)
    if not inside.any():
        return [_failed(f"the resources of {expectation.resources} were not measured", span)]
    times = samples.time_ns[inside]
    memory, lag_ns = samples.memory[inside], samples.lag_ns[inside]
    scores = {
        "cpu": _Score((float(np.sort(samples.cpu[inside]).mean()),)),
        "memory": _Score((float(memory.max()),), violation=_at(times[memory == memory.max()])),
        "lag": _Score((float(lag_ns.max()),), violation=_at(times[lag_ns == lag_ns.max()])),
    }
    return [_judged(expectation.conditions, scores, span)]


def _at(times: Times) -> TimeSpan:
    first_ns = int(times.min())
    return TimeSpan(first_ns, first_ns + 1)


def _score(value: float | None, missing: str, violation: TimeSpan | None) -> _Score:
    values = () if value is None else (value,)
    return _Score(values, missing, violation)


def _first(spans: Sequence[TimeSpan]) -> TimeSpan | None:
    return spans[0] if spans else None


def _failed(sentence: str, span: TimeSpan) -> SpanResult:
    return SpanResult(passed=False, sentence=sentence, violation=span)


def _judged(
    conditions: Mapping[str, AnyCondition], scores: Mapping[str, _Score], span: TimeSpan
) -> SpanResult:
    """Judge scores by their conditions; the worst value of a score is the one that is told."""
    observed: dict[str, Observed] = {}
    sentences: dict[bool, list[str]] = {True: [], False: []}
    margins: list[float] = []
    violation: TimeSpan | None = None
    for name, condition in conditions.items():
        score, label = scores[name], name.replace("_", " ")
        if not score.values:
            observed[_key(name)] = None
            sentences[False].append(f"{label} cannot be told: {score.missing}")
            violation = violation or span
            continue
        holds, margin = condition.judge(score.values)
        at = int(np.argmin(margin))
        observed[_key(name)] = _scaled(name, score.values[at])
        margins.append(_scaled(name, float(margin[at])))
        words = f"{label} {_text(name, score.values[at])}"
        passed = bool(holds.all())
        sentences[passed].append(
            words if passed else f"{words}, expected {_bound(name, condition)}"
        )
        if not passed:
            violation = violation or score.violation or span
    failed = sentences[False]
    return SpanResult(
        passed=not failed,
        sentence="; ".join(failed or sentences[True]),
        robustness=number_or_none(margins[0]) if len(conditions) == len(margins) == 1 else None,
        observed=observed,
        violation=violation,
    )


def unit_of(conditions: Mapping[str, AnyCondition]) -> str:
    """The unit of the robustness of an expectation with these conditions."""
    return UNITS.get(next(iter(conditions)), "1") if len(conditions) == 1 else "1"


def _key(name: str) -> str:
    """The key of an observed value, with its unit."""
    return {"s": f"{name}_s", "/s": f"{name}_per_s", "J": f"{name}_j", "B": f"{name}_bytes"}.get(
        UNITS.get(name, "1"), name
    )


def _scaled(name: str, value: float) -> float:
    return value / NS_PER_S if name in DURATIONS else value


def _text(name: str, value: float) -> str:
    if name in DURATIONS:
        return length_text(value)
    if name == "false_alarms":
        return f"{value * 3_600:.4g} /h"
    if name == "memory":
        return f"{value / 1e6:.4g} MB"
    if name == "energy":
        return f"{value / 3.6e6:.4g} kW.h" if abs(value) >= 3.6e5 else f"{value:.4g} J"
    return f"{value:.4g}" if name == "f1" else f"{100 * value:.4g} %"


def _bound(name: str, condition: AnyCondition) -> str:
    return condition.text(show=functools.partial(_text, name))
