"""Writes the report of a scenario's runs: one HTML file, with plots around whatever failed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from broker.batch import Series
from broker.clock import NS_PER_S, text_of
from testbed import plot
from testbed.plot import SCORE_COLOUR, SIGNAL_COLOUR, Panel
from testbed.scenario import result as run_result
from testbed.scenario import whole_file
from testbed.scenario.loading import LoadedScenario
from testbed.scenario.result import RunResult
from testbed_scenarios.expectations.result import ExpectationResult, time_text
from testbed_scenarios.observations import Observations

AROUND = 2.0
"""Time before and after a failure that is plotted, in durations of it."""
LEAST_AROUND_NS = 10 * NS_PER_S
MOST_PANELS = 16
MOST_FAILURES = 20
"""Failures of a run that are plotted; the sentences name all."""

Span = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class FailurePlot:
    """A failed expectation, and a plot of the moments around it; empty where there is none."""

    result: ExpectationResult
    when: str
    svg: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure of a run, and where it comes from."""

    name: str
    value: str
    origin: str


@dataclass(frozen=True, slots=True)
class RunPage:
    """The part of a report that is about one run."""

    result: RunResult

    @property
    def facts(self) -> Mapping[str, str]:
        """Facts that repeat the run, and how it went, by label."""
        end, plan = self.result.end, self.result.plan
        statistics = end.statistics
        slowest = ", ".join(
            f"{name} in {count:,}" for name, count in statistics.slowest.most_common(3)
        )
        return {
            "seed": str(plan.seed),
            "virtual time"
            if statistics.is_virtual
            else "time": f"{text_of(plan.scenario.start_ns)} and {statistics}",
            "quanta": f"{plan.quanta:,} of {plan.scenario.quantum_ns / NS_PER_S:g} s",
            "waited for": slowest or "nobody",
            "started in": f"{end.started_s:.1f} s",
            "space": plan.space,
            "hash of all samples": self.result.verdict.hash,
        }

    def failures(self) -> list[FailurePlot]:
        """The expectations that failed, each with its moments."""
        failed = self.result.verdict.failed
        return [self._failure(each) for each in failed[:MOST_FAILURES]]

    def _failure(self, failed: ExpectationResult) -> FailurePlot:
        observed = self.result.observed
        panels = _panels(observed, _related(observed, failed.subject))
        if failed.violation is None:
            return FailurePlot(result=failed, when="", svg=_drawn(observed, panels, None))
        span = (failed.violation.from_ns, failed.violation.to_ns)
        ends = [time_text(each, observed.start_ns) for each in span]
        around = _around(span, (observed.start_ns, observed.end_ns))
        return FailurePlot(
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

    def figures(self) -> Iterator[Figure]:
        """Every figure of the verdict with its origin."""
        samples = self.result.samples()
        for each in self.result.verdict.results:
            stream = each.subject.rpartition("/")[0]
            origin = f"{each.subject}: expectation {each.name!r}"
            if stream in samples:
                origin = f"{samples[stream]:,} samples of {stream}, {origin}"
            for name, value in each.observed.items():
                yield Figure(name=name, value=_shown(value), origin=origin)

    def streams(self) -> list[tuple[str, str, str]]:
        """Each stream with its number of samples, and what its data is: never a real machine's."""
        scenario = self.result.plan.scenario
        rows = []
        for name, count in self.result.samples().items():
            part = scenario.equipment.get(name)
            origin = "published by the prototype"
            if part is not None:
                origin = "recorded, played back" if hasattr(part, "begin_ns") else "simulated"
            rows.append((name, f"{count:,}", f"{origin}; space {self.result.plan.space}"))
        return rows


def write(path: Path, loaded: LoadedScenario, results: Sequence[RunResult], now_ns: int) -> None:
    """Write a report to a file, whole or not at all; now_ns: its date.  Raises Invalid."""
    from jinja2 import Environment, PackageLoader  # noqa: PLC0415 - the demo's extra

    template = Environment(
        loader=PackageLoader("testbed.scenario", "."), autoescape=True
    ).get_template("report.html.j2")
    text = template.render(
        scenario=loaded.scenario,
        path=str(loaded.path),
        source=loaded.text,
        pages=[RunPage(each) for each in results],
        totals=run_result.totals(results),
        versions=run_result.versions(),
        scenario_hash=results[0].scenario_hash,
        date=text_of(now_ns)[:19].replace("T", " ") + " UTC",
        passed=sum(each.verdict.passed for each in results),
    )
    whole_file.write(path, text, option="--report")


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


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "unknown" if value is None else str(value)
