"""Checks of expectations against a scenario: signals, streams, faults and moments that it has."""

from collections.abc import Iterator

from broker.field_findings import unknown
from broker.time_expressions import duration_text
from testbed_scenarios.catalogue import Path
from testbed_scenarios.expectations.model import (
    AlwaysExpectation,
    AnyExpectation,
    DetectionExpectation,
    EventuallyExpectation,
    NeverExpectation,
    Occurrences,
    RepeatedExpectation,
    ResourceExpectation,
    SampleExpectation,
)
from testbed_scenarios.findings import ScenarioFinding
from testbed_scenarios.model import Scenario
from testbed_scenarios.scenario_streams import ScenarioStreams
from testbed_scenarios.timeline_model import (
    SERVER_RESTART,
    FaultDraw,
    InputStep,
    ServerRestart,
)

INPUT_STEP = "set"
"""The event of an entry that sets an input."""


def findings(scenario: Scenario, streams: ScenarioStreams) -> Iterator[ScenarioFinding]:
    """Everything wrong with the expectations, one after the other."""
    for index, expectation in enumerate(scenario.expectations):
        path = ("expectations", str(index))
        yield from _of_subject(scenario, streams, path, expectation)
        if isinstance(expectation, RepeatedExpectation) and expectation.after is not None:
            yield from _of_occurrences(scenario, (*path, "after"), expectation.after)
        else:
            yield from _of_span(scenario, path, expectation)


def _of_subject(
    scenario: Scenario, streams: ScenarioStreams, path: Path, expectation: AnyExpectation
) -> Iterator[ScenarioFinding]:
    match expectation:
        case ResourceExpectation(resources=name):
            if name not in scenario.prototypes:
                sentence = f"there is no prototype {name!r}"
                yield ScenarioFinding(
                    (*path, "resources"), unknown(sentence, name, scenario.prototypes)
                )
        case SampleExpectation(stream=str(stream)):
            yield from streams.of_stream((*path, "stream"), stream)
        case _:
            field = "signal" if expectation.word not in {"detection", "control"} else None
            at = (*path, field or expectation.word)
            yield from streams.of_signal(at, expectation.subject)
    if isinstance(expectation, DetectionExpectation):
        yield from _of_truth(scenario, (*path, "truth"), expectation.truth)
    if isinstance(expectation, AlwaysExpectation | NeverExpectation | EventuallyExpectation):
        signal = streams.signal(expectation.signal)
        condition = getattr(expectation, expectation.word)
        if signal is not None and (sentence := condition.mismatch(signal)):
            yield ScenarioFinding((*path, expectation.word), sentence)


def _of_truth(scenario: Scenario, path: Path, name: str) -> Iterator[ScenarioFinding]:
    if name not in scenario.equipment:
        sentence = f"there is no equipment {name!r} whose faults could be detected"
        yield ScenarioFinding(path, unknown(sentence, name, scenario.equipment))


def _of_occurrences(
    scenario: Scenario, path: Path, after: Occurrences
) -> Iterator[ScenarioFinding]:
    """Findings about `after`: nothing like it is in the timeline, so it would hold unseen."""
    places: dict[str, set[str]] = {}
    for entry in scenario.timeline:
        match entry:
            case ServerRestart():
                places.setdefault(SERVER_RESTART, set())
            case InputStep():
                places.setdefault(INPUT_STEP, set()).add(entry.set)
            case _:
                for kind in entry.draw if isinstance(entry, FaultDraw) else (entry.fault,):
                    places.setdefault(str(kind), set()).add(entry.on)
    events = {name: on for name, on in places.items() if name in {SERVER_RESTART, INPUT_STEP}}
    faults = {name: on for name, on in places.items() if name not in events}
    field, known = ("event", events) if after.event else ("fault", faults)
    if after.kind not in known:
        sentence = f"the timeline has no {field} {after.kind!r}"
        yield ScenarioFinding((*path, field), unknown(sentence, after.kind, known))
        return
    targets = known[after.kind]
    equipment = {target.partition("/")[0] for target in targets}
    if after.on is not None and after.on not in targets | equipment:
        sentence = f"the timeline has no {after.kind} on {after.on!r}"
        yield ScenarioFinding((*path, "on"), unknown(sentence, after.on, targets | equipment))


def _of_span(
    scenario: Scenario, path: Path, expectation: AnyExpectation
) -> Iterator[ScenarioFinding]:
    end = duration_text(scenario.duration_ns)
    if expectation.from_ns >= scenario.duration_ns:
        begin = duration_text(expectation.from_ns)
        yield ScenarioFinding(
            (*path, "from"), f"{begin} is outside the scenario, which ends at {end}"
        )
    elif expectation.to_ns is not None and expectation.to_ns > scenario.duration_ns:
        last = duration_text(expectation.to_ns)
        yield ScenarioFinding((*path, "to"), f"{last} is outside the scenario, which ends at {end}")
