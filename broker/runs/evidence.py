"""The origin of every figure of a run's report, from the run's record alone.  Pure.

The report is written from the same list, so it has no figure of which the evidence says nothing.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

from broker.clock import NS_PER_S, ns_of
from broker.responses.run_document import (
    ExpectationOfRun,
    GapOfRun,
    ResourcesOfRun,
    RunDocument,
    SamplesUsed,
    Scalar,
    StreamOfRun,
    TruthOfRun,
)
from broker.responses.runs import FigureResponse, SamplesOfFigure

VERDICTS = "docs/reference/verdicts.md"
HASH = f"{VERDICTS}#the-hash-of-the-samples"
SIMULATION = "docs/simulation.md"
_SCORED = frozenset({"detection", "control", "resources"})
_UNITS: Mapping[str, str] = {"_per_s": "/s", "_s": "s", "_j": "J", "_bytes": "B"}
"""Unit of an observed value by the end of its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureOrigin:
    """The origin of figures: by what, and from what, they are computed.

    of: the expectation, score or clock.  definition: a page of the documentation.  truth: known
    faults that count.  measurements: of resources.
    """

    of: str
    definition: str
    samples: Sequence[SamplesOfFigure] = ()
    truth: TruthOfRun | None = None
    measurements: int | None = None


@dataclass(frozen=True, slots=True)
class RecordIndex:
    """The record of a run, with its streams and truths by name."""

    document: RunDocument
    streams: Mapping[str, StreamOfRun]
    truths: Mapping[str, TruthOfRun]

    @classmethod
    def of(cls, document: RunDocument) -> Self:
        """The index of a record."""
        streams = {each.name: each for each in document.streams}
        return cls(document, streams, {each.equipment: each for each in document.truth})

    def samples(self, used: Iterable[SamplesUsed]) -> list[SamplesOfFigure]:
        """Samples with their source, and the stated gaps that reach into their span."""
        resolved = []
        for each in used:
            stream = self.streams[each.stream]
            gaps = list(_gaps_within(each, stream.gaps))
            resolved.append(SamplesOfFigure.extending(each, source=stream.source, gaps=gaps))
        return resolved


def figures(document: RunDocument) -> list[FigureResponse]:
    """Every figure that a report of the run has, each with what it was computed from."""
    titles, index = expectation_titles(document), RecordIndex.of(document)
    items = list(_of_run(index))
    for number, expectation in enumerate(document.expectations, 1):
        items += _of_expectation(index, number, expectation, titles[number - 1])
    for stream in document.streams:
        items.append(_of_stream(index, stream))
    for each in document.resources:
        items += _of_resources(index, each)
    return items


def expectation_titles(document: RunDocument) -> list[str]:
    """The names of the expectations, each once: a second one of the same name gets a number."""
    titles, counts = [], Counter[str]()
    for each in document.expectations:
        counts[each.name] += 1
        count = counts[each.name]
        titles.append(each.name if count == 1 else f"{each.name} ({count})")
    return titles


def _of_run(index: RecordIndex) -> Iterator[FigureResponse]:
    document = index.document
    everything = index.samples(_whole(document, stream) for stream in document.streams)
    failed = sum(not each.passed for each in document.expectations)
    verdict = FigureOrigin(of="verdict", definition=VERDICTS, samples=everything)
    counts = {
        "expectations": float(len(document.expectations)),
        "failed expectations": float(failed),
        "samples": float(sum(each.samples for each in document.streams)),
    }
    values: Mapping[str, Scalar] = {"passed": document.passed, **counts}
    for label, value in values.items():
        yield _figure(index, f"run/{_word(label)}", (label, value, "1"), verdict)
    hashed = replace(verdict, of="hash of samples", definition=HASH)
    name = "hash of all samples"
    yield _figure(index, f"run/{_word(name)}", (name, document.samples_sha256, "1"), hashed)
    yield from _of_clock(index)


def _of_clock(index: RecordIndex) -> Iterator[FigureResponse]:
    clock = index.document.clock
    page = f"{SIMULATION}#{'virtual' if clock.is_virtual else 'wall'}-time"
    origin = FigureOrigin(of="clock of the run", definition=page)
    for value in (
        ("length", clock.run_s, "s"),
        ("quanta", float(clock.quanta), "1"),
        ("quantum", clock.quantum_s, "s"),
        ("reached speed", clock.reached_speed, "1"),
        ("started in", clock.started_s, "s"),
        ("real time", clock.wall_s, "s"),
        ("real time of the quanta", clock.quanta_s, "s"),
        *((f"waited for {who}", float(count), "1") for who, count in clock.waited_for.items()),
    ):
        yield _figure(index, f"run/{_word(value[0])}", value, origin)


def _of_resources(index: RecordIndex, used: ResourcesOfRun) -> Iterator[FigureResponse]:
    definition, prototype = f"{VERDICTS}#scores", used.prototype
    for name, value, unit in (
        ("cpu", used.cpu, "1"),
        ("memory", used.memory_bytes, "B"),
        ("lag", used.lag_s, "s"),
    ):
        origin = FigureOrigin(of=name, definition=definition, measurements=used.measurements)
        named = (f"{prototype}: {name}", value, unit)
        yield _figure(index, f"resources/{prototype}/{name}", named, origin)


def _of_expectation(
    index: RecordIndex, number: int, expectation: ExpectationOfRun, title: str
) -> Iterator[FigureResponse]:
    anchor = "scores" if expectation.kind in _SCORED else "expectations"
    origin = FigureOrigin(
        of=expectation.kind,
        definition=f"{VERDICTS}#{anchor}",
        samples=index.samples(expectation.samples),
        truth=None if expectation.truth is None else index.truths[expectation.truth],
        measurements=expectation.measurements,
    )
    figure = partial(_figure, index, origin=origin)
    path = f"expectation/{number}"
    yield figure(path, (f"{title}: passed", expectation.passed, "1"))
    for name, value in expectation.observed.items():
        unit = _unit_of(name, expectation)
        yield figure(f"{path}/{_word(name)}", (f"{title}: {name}", value, unit))
    if expectation.robustness is not None:
        robustness = (f"{title}: robustness", expectation.robustness, expectation.unit)
        yield figure(f"{path}/robustness", robustness)
    yield figure(f"{path}/unknown_s", (f"{title}: unknown_s", expectation.unknown_s, "s"))
    start_ns, violation = ns_of(index.document.clock.start), expectation.violation
    if violation is not None:
        for name, text in (("from", violation.from_), ("to", violation.to)):
            moment_s = (ns_of(text) - start_ns) / NS_PER_S
            yield figure(f"{path}/violated-{name}", (f"{title}: violated {name}", moment_s, "s"))


def _of_stream(index: RecordIndex, stream: StreamOfRun) -> FigureResponse:
    origin = FigureOrigin(
        of="count of samples",
        definition=HASH,
        samples=index.samples([_whole(index.document, stream)]),
    )
    named = (f"samples of {stream.name}", float(stream.samples), "1")
    return _figure(index, f"stream/{stream.name}/samples", named, origin)


def _figure(
    index: RecordIndex, id_: str, named: tuple[str, Scalar, str], origin: FigureOrigin
) -> FigureResponse:
    """A figure; named: its name, value and unit."""
    document = index.document
    name, value, unit = named
    return FigureResponse(
        id=id_,
        name=name,
        value=value,
        unit=unit,
        of=origin.of,
        definition=origin.definition,
        space=document.space,
        samples=list(origin.samples),
        truth=origin.truth,
        measurements=origin.measurements,
        code=document.code,
        scenario_sha256=document.scenario.sha256,
        seed=document.seed,
        sources=sorted({each.source for each in origin.samples}),
    )


def _whole(document: RunDocument, stream: StreamOfRun) -> SamplesUsed:
    """All samples of a stream: over the whole run."""
    return SamplesUsed(
        stream=stream.name,
        signals=[],
        from_=document.clock.start,
        to=document.clock.end,
        samples=stream.samples,
        sha256=stream.sha256,
    )


def _gaps_within(used: SamplesUsed, gaps: Iterable[GapOfRun]) -> Iterator[GapOfRun]:
    """The stated gaps of the signals that are used, as far as they reach into the span."""
    from_ns, to_ns, signals = ns_of(used.from_), ns_of(used.to), set(used.signals)
    for gap in gaps:
        is_of_these = not gap.signals or not signals or signals & set(gap.signals)
        if is_of_these and ns_of(gap.from_) < to_ns and ns_of(gap.to) >= from_ns:
            yield gap


def _unit_of(name: str, expectation: ExpectationOfRun) -> str:
    for ending, unit in _UNITS.items():
        if name.endswith(ending):
            return unit
    return expectation.unit if expectation.kind not in _SCORED and name == "value" else "1"


def _word(name: str) -> str:
    return name.replace(" ", "-")
