"""Write the report of a demo: a self-contained HTML file with plots of signals, scores and gaps."""

import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from broker.batch import Column, Gap, Series, Times
from broker.clock import text_of
from testbed.demo.plan import RIG, SPACE

MAX_POINTS = 4_000
MAX_LISTED_GAPS = 200
GAP_COLOURS = ("#888888", "#b58900", "#6c71c4", "#2aa198", "#cb4b16", "#586e75")
"""Colours of the causes, which are sorted by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The contents of a report.

    signals, scores: samples by name.  units: by signal.  truth: (from, to) spans of known faults,
    in ns.  facts: rows of the summary, in order.  clean: whether all counters are zero.
    """

    title: str
    subtitle: str
    signals: Mapping[str, Series]
    units: Mapping[str, str]
    scores: Mapping[str, Series]
    truth: Sequence[tuple[int, int]]
    gaps: Sequence[Gap]
    facts: Mapping[str, str]
    clean: bool

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
        """The gaps of a signal; none for a score, since gaps are the machine's."""
        if name in self.scores:
            return []
        return [gap for gap in self.gaps if not gap.signals or name in gap.signals]

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


def write(path: Path, evidence: Evidence) -> None:
    """Render a report to a file."""
    from jinja2 import Environment, PackageLoader  # noqa: PLC0415 - the demo's extra

    template = Environment(loader=PackageLoader("testbed.demo", "."), autoescape=True).get_template(
        "report.html.j2"
    )
    path.write_text(template.render(evidence=evidence, plot=_plot(evidence)), encoding="utf-8")


def _plot(evidence: Evidence) -> str:
    """Plot all signals and scores over a common time axis, as SVG."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    panels = [*evidence.signals.items(), *evidence.scores.items()]
    start_ns = min(
        (int(series.time_ns[0]) for _, series in panels if len(series.time_ns)), default=0
    )
    figure, axes = plt.subplots(
        len(panels), 1, sharex=True, figsize=(11, 1.25 * len(panels)), squeeze=False
    )
    titles: dict[str, str] = {}
    for axis, (name, series) in zip(axes[:, 0], panels, strict=True):
        _shade_truth(axis, evidence, start_ns)
        titles |= _draw_gaps(axis, name, evidence, start_ns)
        _panel(axis, name, series, evidence, start_ns)
    axes[-1, 0].set_xlabel("seconds since the first sample")
    figure.align_ylabels()
    figure.tight_layout(h_pad=0.3)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    plt.close(figure)
    return _add_titles(text.getvalue()[text.getvalue().index("<svg") :], titles)


def _add_titles(svg: str, titles: Mapping[str, str]) -> str:
    """Add tooltips to an SVG; titles: texts by the id of a gap's group."""

    def with_title(match: re.Match[str]) -> str:
        text = titles.get(match[1])
        return match[0] if text is None else f"{match[0]}<title>{html.escape(text)}</title>"

    return re.sub(r'<g id="(gap-\d+-\d+)">', with_title, svg)


def _shade_truth(axis: Any, evidence: Evidence, start_ns: int) -> None:
    for from_ns, to_ns in evidence.truth:
        axis.axvspan(
            (from_ns - start_ns) / 1e9,
            (to_ns - start_ns) / 1e9,
            color="#f2b8a0",
            alpha=0.6,
            linewidth=0,
        )


def _draw_gaps(axis: Any, name: str, evidence: Evidence, start_ns: int) -> dict[str, str]:
    """Draw the gaps of a signal as hatched areas; the tooltip of each by its SVG id."""
    titles = {}
    panel = list(evidence.signals).index(name) if name in evidence.signals else 0
    for number, gap in enumerate(evidence.gaps_of(name)):
        span = axis.axvspan(
            (gap.from_ns - start_ns) / 1e9,
            (gap.to_ns - start_ns) / 1e9,
            facecolor=evidence.colours[gap.cause],
            edgecolor=evidence.colours[gap.cause],
            hatch="///",
            alpha=0.35,
            linewidth=1,  # so that a gap of no length is visible
        )
        span.set_gid(f"gap-{panel}-{number}")
        ends = f"{text_of(gap.from_ns)} to {text_of(gap.to_ns)}"
        titles[f"gap-{panel}-{number}"] = f"{name}: {gap.cause}, {ends}"
    return titles


def _broken(time_ns: Times, values: Column, gaps: Sequence[Gap]) -> tuple[Times, Any]:
    """Times and values with NaN at the begin of each gap, where the plotted line breaks off."""
    begins = np.array([gap.from_ns for gap in gaps], np.int64)
    at = np.searchsorted(time_ns, begins)
    return np.insert(time_ns, at, begins), np.insert(values.astype(np.float64), at, np.nan)


def _panel(axis: Any, name: str, series: Series, evidence: Evidence, start_ns: int) -> None:
    step = max(1, len(series.time_ns) // MAX_POINTS)
    times, values = _broken(series.time_ns[::step], series.values[::step], evidence.gaps_of(name))
    is_score = name in evidence.scores
    axis.plot(
        (times - start_ns) / 1e9,
        values,
        linewidth=0.8,
        color="#7a2048" if is_score else "#1d4e6b",
    )
    unit = evidence.units.get(name, "")
    axis.set_ylabel(
        f"{name}\n{unit}" if unit not in {"", "1"} else name,
        rotation=0,
        ha="right",
        va="center",
        fontsize=8,
    )
    axis.tick_params(labelsize=7)
    axis.margins(x=0)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
