"""Writes the record of a judged run: what it was made from, and what each figure comes from."""

import hashlib
import itertools
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from pydantic import ValidationError

from broker import pydantic_checks
from broker.batch import Gap, Series
from broker.clock import NS_PER_S, text_of
from broker.errors import Invalid
from broker.responses import run_document
from broker.responses.run_document import (
    MOST_GAPS,
    MOST_SENTENCE,
    MOST_SETTINGS,
    ClockOfRun,
    CodeOfRun,
    ExpectationOfRun,
    FileOfRun,
    GapOfRun,
    ResourcesOfRun,
    RunDocument,
    SamplesUsed,
    ScenarioOfRun,
    SpanOfRun,
    StreamOfRun,
    TruthOfRun,
)
from testbed.scenario import result as run_result
from testbed.scenario import run_inputs
from testbed.scenario.result import RunResult
from testbed_scenarios import sample_hash
from testbed_scenarios.expectations.model import (
    AnyExpectation,
    DetectionExpectation,
    EventuallyExpectation,
    ResourceExpectation,
)
from testbed_scenarios.expectations.result import ExpectationResult
from testbed_scenarios.expectations.spans import spans_of
from testbed_scenarios.held_signal import TimeSpan
from testbed_scenarios.model import Replayed, Scenario, SweepValue
from testbed_scenarios.observations import Observations, TruthInterval

MOST_INCIDENTS = 100
CUT = " …"
"""The end of a sentence that was too long for a record."""


def of(result: RunResult) -> RunDocument:
    """The record of a run; the same for the same result.

    Raises Invalid for a run that is too large for one.
    """
    try:
        return _document(result)
    except ValidationError as exc:
        raise Invalid(
            f"{result.title} fits no record: {pydantic_checks.first_sentence(exc)}",
            hint="split the scenario, or run it without --server and --report",
        ) from exc


def _document(result: RunResult) -> RunDocument:
    plan, observed, origin = result.plan, result.observed, result.origin
    scenario = ScenarioOfRun(
        name=plan.scenario.name, text=origin.scenario_text, sha256=origin.scenario_hash
    )
    pairs = zip(plan.scenario.expectations, result.verdict.results, strict=True)
    return RunDocument(
        v=run_document.VERSION,
        scenario=scenario,
        label=plan.label,
        values={path: _scalar(value) for path, value in plan.values.items()},
        settings=dict(itertools.islice(_settings(plan.scenario.to_document()), MOST_SETTINGS)),
        seed=plan.seed,
        space=plan.space,
        clock=_clock(result),
        began=text_of(origin.began_ns),
        ended=text_of(origin.ended_ns),
        passed=result.verdict.passed,
        incidents=[_cut(each) for each in result.verdict.incidents[:MOST_INCIDENTS]],
        expectations=[_expectation(observed, *pair) for pair in pairs],
        samples_sha256=result.verdict.hash,
        streams=list(_streams(result)),
        truth=[_truth(name, faults) for name, faults in sorted(observed.truth.items())],
        resources=list(_resources(observed)),
        files=[
            FileOfRun(equipment=each.owner, path=each.path, sha256=each.sha256)
            for each in origin.inputs.files
        ],
        code=[
            CodeOfRun(prototype=each.owner, kind=each.kind, name=each.path, sha256=each.sha256)
            for each in origin.inputs.code
        ],
        versions=dict(run_result.versions()),
        lock_sha256=run_inputs.packages_sha256(),
        architecture=f"{sys.platform} {platform.machine()}",
    )


def _clock(result: RunResult) -> ClockOfRun:
    plan, statistics, observed = result.plan, result.end.statistics, result.observed
    return ClockOfRun(
        is_virtual=statistics.is_virtual,
        start=text_of(observed.start_ns),
        end=text_of(observed.end_ns),
        quantum_s=plan.scenario.quantum_ns / NS_PER_S,
        quanta=plan.quanta,
        speed=None if statistics.is_virtual else result.origin.speed or 1.0,
        reached_speed=round(statistics.speed, 3),
        run_s=statistics.virtual_ns / NS_PER_S,
        started_s=round(result.end.started_s, 3),
        wall_s=round(result.end.wall_s, 3),
        quanta_s=round(statistics.wall_ns / NS_PER_S, 3),
        waited_for=dict(statistics.slowest),
    )


def _settings(part: Any, path: str = "") -> Iterator[tuple[str, run_document.Scalar]]:
    """The fields of a scenario's document that hold a value, each by its dotted path."""
    if isinstance(part, Mapping):
        fields: Iterable[tuple[Any, Any]] = part.items()
    elif isinstance(part, list | tuple):
        fields = enumerate(part)
    else:
        is_plain = part is None or isinstance(part, bool | int | float)
        yield path[: run_document.MOST_WORDS], part if is_plain else _words(part)
        return
    for name, value in fields:
        yield from _settings(value, f"{path}.{name}" if path else str(name))


def _words(value: object) -> str:
    return str(value)[: run_document.MOST_WORDS]


def _scalar(value: SweepValue) -> run_document.Scalar:
    """A swept value; of several parts, as JSON."""
    if isinstance(value, dict | list):
        return _words(orjson.dumps(value).decode())
    return value


def _cut(sentence: str) -> str:
    """A sentence that a record takes."""
    if len(sentence) <= MOST_SENTENCE:
        return sentence
    return sentence[: MOST_SENTENCE - len(CUT)] + CUT


# --- streams ------------------------------------------------------------------------------------


def _streams(result: RunResult) -> Iterator[StreamOfRun]:
    observed, sources = result.observed, sources_of(result.plan.scenario)
    equipment = result.plan.scenario.equipment
    for name, signals in observed.streams.items():
        times = [each.time_ns for each in signals.values() if len(each.time_ns)]
        gaps = observed.gaps.get(name, ())
        yield StreamOfRun(
            name=name,
            by="equipment" if name in equipment else "prototype",
            source=sources.get(name, "simulated"),
            samples=sum(len(each) for each in times),
            sha256=_hash(observed, name, signals),
            first=text_of(min(int(each.min()) for each in times)) if times else None,
            last=text_of(max(int(each.max()) for each in times)) if times else None,
            gaps=[_gap(each) for each in gaps[:MOST_GAPS]],
            gaps_left_out=max(0, len(gaps) - MOST_GAPS),
        )


def sources_of(scenario: Scenario) -> Mapping[str, run_document.Source]:
    """The source of each stream by its name: recorded or simulated.

    An output is recorded if all that its prototype reads is, and simulated otherwise.
    """
    sources: dict[str, run_document.Source] = {
        name: "recorded" if isinstance(part, Replayed) else "simulated"
        for name, part in scenario.equipment.items()
    }
    for _ in scenario.prototypes:  # one may read another's output: as many rounds as there are
        for name, prototype in scenario.prototypes.items():
            reads = [sources.get(stream) for stream in prototype.inputs.values()]
            is_recorded = bool(reads) and all(each == "recorded" for each in reads)
            for output in prototype.outputs:
                sources[f"{name}/{output}"] = "recorded" if is_recorded else "simulated"
    return sources


def _gap(gap: Gap) -> GapOfRun:
    return GapOfRun(
        signals=sorted(gap.signals),
        from_=text_of(gap.from_ns),
        to=text_of(gap.to_ns),
        cause=str(gap.cause),
    )


def _hash(observed: Observations, stream: str, signals: Mapping[str, Series]) -> str:
    """The hash over some samples of one stream, as `testbed_scenarios.sample_hash` defines it."""
    return sample_hash.of_samples({stream: signals}, observed.signals)


def _truth(equipment: str, faults: Sequence[TruthInterval]) -> TruthOfRun:
    lines = sorted(f"{each.kind} {each.signal} {each.from_ns} {each.to_ns}\n" for each in faults)
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    return TruthOfRun(equipment=equipment, faults=len(faults), sha256=digest)


def _resources(observed: Observations) -> Iterator[ResourcesOfRun]:
    for name, samples in observed.resources.items():
        if len(samples.time_ns):
            yield ResourcesOfRun(
                prototype=name,
                measurements=len(samples.time_ns),
                cpu=round(float(np.sort(samples.cpu).mean()), 6),
                memory_bytes=float(samples.memory.max()),
                lag_s=int(samples.lag_ns.max()) / NS_PER_S,
            )


# --- expectations -------------------------------------------------------------------------------


def _expectation(
    observed: Observations, expectation: AnyExpectation, result: ExpectationResult
) -> ExpectationOfRun:
    span = _span(observed, expectation)
    violation = result.violation
    truth = expectation.truth if isinstance(expectation, DetectionExpectation) else None
    return ExpectationOfRun(
        name=result.name[: run_document.MOST_WORDS],
        kind=expectation.word,
        subject=result.subject,
        passed=result.passed,
        sentence=_cut(result.sentence),
        robustness=result.robustness,
        unit=result.unit,
        observed=dict(result.observed),
        violation=None
        if violation is None
        else SpanOfRun(from_=text_of(violation.from_ns), to=text_of(violation.to_ns)),
        unknown_s=result.unknown_ns / NS_PER_S,
        samples=[_used(observed, span, *each) for each in _subjects(observed, expectation)],
        truth=truth if truth in observed.truth else None,
        measurements=_measurements(observed, expectation, span),
    )


def _span(observed: Observations, expectation: AnyExpectation) -> TimeSpan:
    """The span from the beginning of an expectation's first to the end of its last span."""
    within_ns = expectation.within_ns if isinstance(expectation, EventuallyExpectation) else None
    spans = [each.span for each in spans_of(expectation, observed, within_ns)]
    if not spans:
        return TimeSpan(observed.start_ns, observed.start_ns)
    return TimeSpan(min(each.from_ns for each in spans), max(each.to_ns for each in spans))


def _subjects(
    observed: Observations, expectation: AnyExpectation
) -> Iterable[tuple[str, Mapping[str, Series]]]:
    """The streams that an expectation was computed from, each with its signals."""
    if isinstance(expectation, ResourceExpectation):
        return
    subject = expectation.subject
    if subject in observed.streams:
        yield subject, observed.streams[subject]
    else:
        stream, _, signal = subject.rpartition("/")
        if signal in observed.streams.get(stream, {}):
            yield stream, {signal: observed.streams[stream][signal]}
    if isinstance(expectation, DetectionExpectation):
        rows = expectation.truth
        if expectation.by == "point" and rows in observed.streams:
            yield rows, observed.streams[rows]


def _used(
    observed: Observations, span: TimeSpan, stream: str, signals: Mapping[str, Series]
) -> SamplesUsed:
    """The samples of some signals within a span, and the hash of exactly these."""
    cut = {name: _within(series, span) for name, series in signals.items()}
    is_whole = len(signals) == len(observed.streams[stream])
    return SamplesUsed(
        stream=stream,
        signals=[] if is_whole else sorted(signals),
        from_=text_of(span.from_ns),
        to=text_of(span.to_ns),
        samples=sum(len(each.time_ns) for each in cut.values()),
        sha256=_hash(observed, stream, cut),
    )


def _within(series: Series, span: TimeSpan) -> Series:
    inside = (series.time_ns >= span.from_ns) & (series.time_ns < span.to_ns)
    return Series(series.time_ns[inside], series.values[inside], series.quality[inside])


def _measurements(observed: Observations, expectation: Any, span: TimeSpan) -> int | None:
    """The number of measurements of resources in a span; None for other expectations."""
    if not isinstance(expectation, ResourceExpectation):
        return None
    samples = observed.resources.get(expectation.resources)
    if samples is None:
        return 0
    return int(((samples.time_ns >= span.from_ns) & (samples.time_ns < span.to_ns)).sum())
