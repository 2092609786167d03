"""Evaluation of any expectation over the data of a run.  Pure: equal data, equal result."""

from collections.abc import Sequence

from broker.errors import Invalid
from testbed_scenarios.expectations import samples, scores, signals
from testbed_scenarios.expectations.model import (
    AnyExpectation,
    ControlExpectation,
    DetectionExpectation,
    RateExpectation,
    RepeatedExpectation,
    ResourceExpectation,
    SampleExpectation,
    SignalExpectation,
)
from testbed_scenarios.expectations.result import ExpectationResult, SpanResult, worst
from testbed_scenarios.expectations.title import title_of
from testbed_scenarios.observations import Observations


def evaluate(expectation: AnyExpectation, observed: Observations) -> ExpectationResult:
    """Evaluate an expectation.

    With `after` it passes if it passes after each occurrence.  An occurrence is undecided whose
    span reaches beyond the end of the run; if all are, or if there is none, it fails.
    """
    results = _over_spans(expectation, observed)
    decisive = worst(results) if results else _without_occurrence(expectation)
    passed = decisive.passed is True
    sentence = decisive.sentence
    if len(results) > 1:
        sentence = f"{sentence} ({_tally(results)})"
    if decisive.passed is None:
        sentence = f"it is undecided, and counts as failed: {sentence}"
    return ExpectationResult(
        name=title_of(expectation),
        subject=expectation.subject,
        passed=passed,
        sentence=sentence,
        robustness=_least_robustness(results) if decisive.robustness is not None else None,
        unit=_unit(expectation, observed),
        observed=decisive.observed,
        violation=None if passed else decisive.violation,
        unknown_ns=sum(result.unknown_ns for result in results),
    )


def _over_spans(expectation: AnyExpectation, observed: Observations) -> list[SpanResult]:
    match expectation:
        case SignalExpectation():
            return signals.evaluate(expectation, observed)
        case SampleExpectation():
            return samples.evaluate(expectation, observed)
        case DetectionExpectation():
            return scores.of_detection(expectation, observed)
        case ControlExpectation():
            return scores.of_control(expectation, observed)
        case ResourceExpectation():
            return scores.of_resources(expectation, observed)
        case _:
            raise Invalid(f"{type(expectation).__name__} is no kind of expectation")


def _without_occurrence(expectation: AnyExpectation) -> SpanResult:
    after = expectation.after if isinstance(expectation, RepeatedExpectation) else None
    kind = "" if after is None else after.kind
    on = "" if after is None or after.on is None else f" on {after.on}"
    return SpanResult(passed=False, sentence=f"{kind}{on} did not occur in this run")


def _least_robustness(results: Sequence[SpanResult]) -> float | None:
    """The robustness over all spans that were decided, the least of theirs."""
    known = [result.robustness for result in results if result.robustness is not None]
    return min(known, default=None)


def _tally(results: Sequence[SpanResult]) -> str:
    """The numbers of occurrences by their results: `2 of 3 occurrences passed, 1 undecided`."""
    passed = sum(result.passed is True for result in results)
    undecided = sum(result.passed is None for result in results)
    words = f"{passed} of {len(results)} occurrences passed"
    return f"{words}, {undecided} undecided" if undecided else words


def _unit(expectation: AnyExpectation, observed: Observations) -> str:
    match expectation:
        case SignalExpectation():
            return observed.unit(expectation.signal)
        case RateExpectation():
            return "/s"
        case DetectionExpectation() | ControlExpectation() | ResourceExpectation():
            return scores.unit_of(expectation.conditions)
        case _:
            return "1"
