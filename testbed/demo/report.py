"""Write the report of a demo: a self-contained HTML file with plots of signals, scores and gaps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from broker.batch import Gap, Series
from broker.clock import text_of
from testbed import plot
from testbed.demo.plan import RIG, SPACE
from testbed.demo.result import COUNTERS, DemoResult
from testbed.plot import SCORE_COLOUR, Panel

MAX_LISTED_GAPS = 200
GAP_COLOURS = ("#888888", "#b58900", "#6c71c4", "#2aa198", "#cb4b16", "#586e75")
"""Colours of the causes, which are sorted by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The contents of a report.

    about: facts that are needed to repeat the run, by label.  signals, scores: samples by name.
    units: by signal.  truth: (from, to) spans of known faults, in ns.  steps: commands that may
    come next, by what they do.
    """

    title: str
    about: Mapping[str, str]
    result: DemoResult
    signals: Mapping[str, Series]
    units: Mapping[str, str]
    scores: Mapping[str, Series]
    truth: Sequence[tuple[int, int]]
    gaps: Sequence[Gap]
    steps: Mapping[str, str]

    @property
    def gaps_command(self) -> str:
        """The command that lists the gaps while the demo's server runs."""
        return f"testbed stream gaps {RIG} --space {SPACE}"

    @property
    def colours(self) -> dict[str, str]:
        """The colours of the gaps by cause."""
        causes = sorted({gap.cause for gap in self.gaps})
        return {cause: GAP_COLOURS[index % len(GAP_COLOURS)] for index, cause in enumerate(causes)}

    def gaps_of(self, name: str) -> list[Gap]:
        """The gaps of a signal of the machine."""
        return [gap for gap in self.gaps if not gap.signals or name in gap.signals]

    def panels(self) -> list[Panel]:
        """The plots: signals of the machine with their gaps, then those of the prototype."""
        signals = [
            Panel(name=name, unit=self.units.get(name, ""), series=series, gaps=self.gaps_of(name))
            for name, series in self.signals.items()
        ]
        scores = [
            Panel(name=name, unit="", series=series, colour=SCORE_COLOUR)
            for name, series in self.scores.items()
        ]
        return signals + scores

    def counter_rows(self) -> list[dict[str, str]]:
        """The four counters as rows of a table, each with its meaning."""
        counters = self.result.counters
        return [
            {"name": name, "count": f"{getattr(counters, name):,}", "meaning": meaning}
            for name, meaning in COUNTERS.items()
        ]

    def gap_rows(self) -> list[dict[str, str]]:
        """The first MAX_LISTED_GAPS gaps as rows of a table."""
        return [
            {
                "from": text_of(gap.from_ns),
                "to": text_of(gap.to_ns),
                "seconds": f"{(gap.to_ns - gap.from_ns) / 1e9:,.3f}",
                "cause": gap.cause,
                "signals": ", ".join(gap.signals) or "all",
            }
            for gap in self.gaps[:MAX_LISTED_GAPS]
        ]


def write(path: Path, evidence: Evidence, now_ns: int) -> None:
    """Render a report to a file; now_ns: its date."""
    from jinja2 import Environment, PackageLoader  # noqa: PLC0415 - the demo's extra

    template = Environment(loader=PackageLoader("testbed.demo", "."), autoescape=True).get_template(
        "report.html.j2"
    )
    date = text_of(now_ns)[:19].replace("T", " ") + " UTC"
    svg = plot.draw(evidence.panels(), truth=evidence.truth, colours=evidence.colours)
    text = template.render(evidence=evidence, result=evidence.result, date=date, plot=svg)
    path.write_text(text, encoding="utf-8")
