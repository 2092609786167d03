"""Writes the report of a scenario's runs: one HTML file, with plots around whatever failed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Self

import numpy as np

from broker.batch import Series
from broker.clock import NS_PER_S, ns_of, text_of
from broker.responses.run_document import RunDocument, Scalar, StreamOfRun
from broker.responses.runs import FigureResponse, SamplesOfFigure
from broker.runs import evidence
from testbed import plot
from testbed.plot import SCORE_COLOUR, SIGNAL_COLOUR, Panel
from testbed.scenario import result as run_result
from testbed.scenario import run_document, whole_file
from testbed.scenario.loading import LoadedScenario
from testbed.scenario.result import RunResult
from testbed_scenarios.expectations.result import ExpectationResult, time_text
from testbed_scenarios.observations import Observations

AROUND = 2.0
"""Time before and after a failure that is plotted, in durations of it."""
LEAST_AROUND_NS = 10 * NS_PER_S
MOST_PANELS = 16
HASH_DIGITS = 16
"""Digits of a hash in the table of figures; the streams have all."""
MOST_SHOWN = 60
"""Characters of a text in the table of figures."""
MOST_FAILURES = 20
"""Failures of a run that are plotted; the sentences name all."""

Span = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class FailurePlot:
    """A failed expectation, and a plot of the moments around it; empty where there is none.

    number: of the expectation in the file, from 1 on.
    """

    number: int
    result: ExpectationResult
    when: str
    svg: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureRow:
    """A figure of a run in the table of figures."""

    id: str
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class ReportOfRun:
    """The part of a report that is about one run."""

    result: RunResult
    document: RunDocument

    @classmethod
    def of(cls, result: RunResult) -> Self:
        """The part about a run that was judged."""
        return cls(result, run_document.of(result))

    @property
    def inputs(self) -> Mapping[str, str]:
        """Inputs that repeat the run, by label."""
        document = self.document
        files = {
            f"file of {each.equipment}": f"{each.path}, {each.sha256}" for each in document.files
        }
        code = {
            f"code of {each.prototype}": f"{each.name}, {each.sha256}" for each in document.code
        }
        return {
            "seed": str(document.seed),
            "begins at": document.clock.start,
            "space": document.space,
            **files,
            **code,
            "SHA-256 of all packages": document.lock_sha256,
        }

    def failures(self) -> list[FailurePlot]:
        """The expectations that failed, each with its moments."""
        numbered = enumerate(self.result.verdict.results, 1)
        failed = [(number, each) for number, each in numbered if not each.passed]
        return [self._failure(number, each) for number, each in failed[:MOST_FAILURES]]

    def _failure(self, number: int, failed: ExpectationResult) -> FailurePlot:
        observed = self.result.observed
        panels = _panels(observed, _related(observed, failed.subject))
        if failed.violation is None:
            svg = _drawn(observed, panels, None)
            return FailurePlot(number=number, result=failed, when="", svg=svg)
        span = (failed.violation.from_ns, failed.violation.to_ns)
        ends = [time_text(each, observed.start_ns) for each in span]
        around = _around(span, (observed.start_ns, observed.end_ns))
        return FailurePlot(
            number=number,
            result=failed,
            when=f"{ends[0]} to {ends[1]} of the run",
            svg=_drawn(observed, panels, around),
        )

    def overview(self) -> str:
        """A plot of the whole run: what prototypes published, and the signals they are about."""
        observed = self.result.observed
        names = [
            f"{stream}/{signal}"
            for stream in sorted(observed.streams, key=lambda name: "/" not in name)
            for signal in observed.streams[stream]
        ]
        return _drawn(observed, _panels(observed, names), None)

    def figures(self) -> Iterator[tuple[str, list[FigureRow]]]:
        """Every figure of the run, as its evidence has it; those of one origin together."""
        for origin, figures in groupby(evidence.figures(self.document), self._origin):
            rows = [
                FigureRow(id=each.id, name=each.name, value=_with_unit(each.value, each.unit))
                for each in figures
            ]
            yield origin, rows

    def _origin(self, figure: FigureResponse) -> str:
        """The score that computed a figure, and the samples that it was computed from, in words."""
        start_ns = self.result.observed.start_ns
        parts = [_samples_text(used, start_ns) for used in figure.samples]
        if figure.measurements is not None:
            parts.append(f"{figure.measurements:,} measurements")
        if figure.truth is not None:
            parts.append(f"the known faults of {figure.truth.equipment}")
        return f"{figure.of}: {'; '.join(parts)}" if parts else figure.of

    def streams(self) -> list[StreamOfRun]:
        """Each stream with its number of samples, and what its data is: never a real machine's."""
        return self.document.streams


def write(path: Path, loaded: LoadedScenario, results: Sequence[RunResult], now_ns: int) -> None:
    """Write a report to a file, whole or not at all; now_ns: its date.  Raises Invalid."""
    whole_file.write(path, text(loaded, results, now_ns), option="--report")


def text(loaded: LoadedScenario, results: Sequence[RunResult], now_ns: int) -> str:
    """A report as HTML; now_ns: its date."""
    from jinja2 import Environment, PackageLoader  # noqa: PLC0415 - the demo's extra

    template = Environment(
        loader=PackageLoader("testbed.scenario", "."), autoescape=True
    ).get_template("report.html.j2")
    return template.render(
        scenario=loaded.scenario,
        path=str(loaded.path),
        source=loaded.text,
        pages=[ReportOfRun.of(each) for each in results],
        totals=run_result.totals(results),
        versions=run_result.versions(),
        scenario_hash=results[0].origin.scenario_hash,
        date=text_of(now_ns)[:19].replace("T", " ") + " UTC",
        passed=sum(each.verdict.passed for each in results),
    )


def _samples_text(used: SamplesOfFigure, start_ns: int) -> str:
    """The samples of a figure in words: how many, of what, over which span, and their hash."""
    signals = f" ({', '.join(used.signals)})" if used.signals else ""
    begin, end = (time_text(ns_of(each), start_ns) for each in (used.from_, used.to))
    gaps = f", {len(used.gaps)} gaps" if used.gaps else ""
    return (
        f"{used.samples:,} samples of {used.stream}{signals} from {begin} to {end},"
        f" {used.source}{gaps}, hash {used.sha256[:HASH_DIGITS]}"
    )


def _related(observed: Observations, subject: str) -> list[str]:
    """The signals to plot about a subject: itself, and what is published beside it."""
    stream = subject if subject in observed.streams else subject.rpartition("/")[0]
    beside = [f"{stream}/{signal}" for signal in observed.streams.get(stream, {})]
    first = [subject] if subject in beside else []
    machines = [
        f"{name}/{signal}"
        for name in observed.truth
        if name != stream
        for signal in observed.streams.get(name, {})
    ]
    return [*first, *(each for each in beside if each != subject), *machines]


def _panels(observed: Observations, names: Sequence[str]) -> list[Panel]:
    """The first MOST_PANELS signals that are numbers, as panels."""
    panels = []
    for name in names:
        series = observed.series(name)
        if series.values.dtype.kind in "fib" and series.values.ndim == 1:
            colour = SCORE_COLOUR if name.count("/") > 1 else SIGNAL_COLOUR
            panels.append(
                Panel(name=name, unit=observed.unit(name), series=_sorted(series), colour=colour)
            )
    return panels[:MOST_PANELS]


def _sorted(series: Series) -> Series:
    order = np.argsort(series.time_ns, kind="stable")
    return Series(series.time_ns[order], series.values[order], series.quality[order])


def _around(span: Span, whole: Span) -> Span:
    """A span and the moments before and after it, inside the run."""
    more_ns = max(LEAST_AROUND_NS, round((span[1] - span[0]) * AROUND))
    return max(span[0] - more_ns, whole[0]), min(span[1] + more_ns, whole[1])


def _drawn(observed: Observations, panels: Sequence[Panel], window: Span | None) -> str:
    """Panels as SVG, of a window of the run or of all of it, with the known faults shaded."""
    from_ns, to_ns = window or (observed.start_ns, observed.end_ns)
    cut = [
        Panel(
            name=each.name,
            unit=each.unit,
            series=_within(each.series, from_ns, to_ns),
            colour=each.colour,
        )
        for each in panels
    ]
    faults = {
        (max(each.from_ns, from_ns), min(each.to_ns, to_ns))
        for intervals in observed.truth.values()
        for each in intervals
        if each.from_ns < to_ns and each.to_ns > from_ns
    }
    return plot.draw(cut, truth=sorted(faults), colours={}) if cut else ""


def _within(series: Series, from_ns: int, to_ns: int) -> Series:
    first, last = np.searchsorted(series.time_ns, (from_ns, to_ns))
    part = slice(first, last)
    return Series(series.time_ns[part], series.values[part], series.quality[part])


def _with_unit(value: Scalar, unit: str) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, str):
        return value if len(value) <= MOST_SHOWN else f"{value[:HASH_DIGITS]} …"
    text = _number(value)
    return text if unit == "1" else f"{text} {unit}"


def _number(value: float) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value + 0.0:.6g}"  # -0 becomes 0
