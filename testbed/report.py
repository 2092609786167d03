"""The report of a run: one HTML file that needs nothing else, with plots of signals, truth, score
and gaps.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from broker.batch import Gap, Series

MOST_POINTS = 4_000


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a report shows.

    signals, scores: samples by name.  units: by signal.  truth: (from, to) spans of known faults,
    ns.  facts: rows of the summary, in order.
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


def write(path: Path, evidence: Evidence) -> None:
    """Write the report."""
    from jinja2 import Environment, PackageLoader  # noqa: PLC0415 - the demo's extra

    template = Environment(loader=PackageLoader("testbed", "."), autoescape=True).get_template(
        "report.html.j2"
    )
    path.write_text(template.render(evidence=evidence, plot=_plot(evidence)), encoding="utf-8")


def _plot(evidence: Evidence) -> str:
    """All signals over one axis of time, as SVG."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    panels = [*evidence.signals.items(), *evidence.scores.items()]
    start_ns = min((int(one.time_ns[0]) for _, one in panels if len(one.time_ns)), default=0)
    figure, axes = plt.subplots(
        len(panels), 1, sharex=True, figsize=(11, 1.25 * len(panels)), squeeze=False
    )
    for axis, (name, series) in zip(axes[:, 0], panels, strict=True):
        _panel(axis, name, series, evidence, start_ns)
    axes[-1, 0].set_xlabel("seconds since the first sample")
    figure.align_ylabels()
    figure.tight_layout(h_pad=0.3)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    plt.close(figure)
    return text.getvalue()[text.getvalue().index("<svg") :]


def _panel(axis: Any, name: str, series: Series, evidence: Evidence, start_ns: int) -> None:
    for from_ns, to_ns in evidence.truth:
        axis.axvspan(
            (from_ns - start_ns) / 1e9,
            (to_ns - start_ns) / 1e9,
            color="#f2b8a0",
            alpha=0.6,
            linewidth=0,
        )
    for gap in evidence.gaps:
        if not gap.signals or name in gap.signals:
            axis.axvspan(
                (gap.from_ns - start_ns) / 1e9,
                (gap.to_ns - start_ns) / 1e9,
                color="#888888",
                hatch="//",
                alpha=0.4,
            )
    step = max(1, len(series.time_ns) // MOST_POINTS)
    times = (series.time_ns[::step] - start_ns) / 1e9
    of_score = name in evidence.scores
    axis.plot(
        times,
        series.values[::step].astype(np.float64),
        linewidth=0.8,
        color="#7a2048" if of_score else "#1d4e6b",
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
