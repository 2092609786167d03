"""Draw the picture of the simulated machines: one signal of each, before and in a fault.

`python docs/pictures/machines.py` writes machines.svg beside this file; a test holds them equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from simulators.catalogue import MODELS
from simulators.faults import Fault

WIDTH, ROW, LEFT, TOP = 960, 92, 280, 12
POINTS = 300
TITLE = "One signal of each simulated machine; in the shaded half a fault acts."
STYLE = """
    text { font: 13px system-ui, sans-serif; fill: #1c2733 }
    .name { font-weight: 600 } .note { font-size: 12px; fill: #46586a }
    .fault { fill: #fbe6d6 } .line { fill: none; stroke: #1f6fc4; stroke-width: 1.2 }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3 } .note { fill: #a9b8c6 }
      .fault { fill: #4a2d17 } .line { stroke: #58a6ff }
    }
"""


@dataclass(frozen=True, slots=True)
class Trace:
    """A signal to draw: `POINTS` rows, of which the later half has the fault."""

    model: str
    signal: str
    fault: str
    period_s: float


TRACES = (
    Trace("pump-rig", "Volume Flow RateRMS", "cavitation", 1.0),
    Trace("press", "Pressure", "leak", 1.0),
    Trace("robot-cell", "Joint1", "conflict", 0.2),
    Trace("conveyor-line", "Buffer2", "wear", 2.0),
    Trace("cnc-spindle", "Outer Race Band", "outer", 1.0),
)


def picture() -> str:
    """The picture as SVG."""
    height = TOP + ROW * len(TRACES)
    parts = [line for at, trace in enumerate(TRACES) for line in drawn(trace, TOP + ROW * at)]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
    title = f'<title id="title">{TITLE}</title>'
    lines = [f'{head} aria-labelledby="title">', title, f"<style>{STYLE}</style>", *parts]
    return "\n".join([*lines, "</svg>\n"])


def drawn(trace: Trace, top: int) -> list[str]:
    """A row of the picture: names on the left, the signal over time on the right."""
    info = MODELS[trace.model]
    at = [signal.name for signal in info.signals].index(trace.signal)
    unit = info.signals[at].unit
    end_s = POINTS * trace.period_s
    fault = Fault(trace.fault, end_s / 2, end_s + 10)
    model = info.make(seed=1, period_s=trace.period_s, faults=[fault])
    values = [row.values[at] for row in model.advance(POINTS, {})]
    middle, plot = LEFT + (WIDTH - LEFT) // 2, ROW - 16
    seconds = f"{end_s:g} s"
    label = (
        f"{trace.signal}{'' if unit == '1' else f', {unit}'}: {min(values):.3g} … {max(values):.3g}"
    )
    return [
        f'<rect class="fault" x="{middle}" y="{top}" width="{WIDTH - middle}" height="{plot}"/>',
        f'<polyline class="line" points="{points(values, top, plot)}"/>',
        f'<text class="name" x="8" y="{top + 22}">{escape(trace.model)}</text>',
        f'<text class="note" x="8" y="{top + 42}">{escape(label)}</text>',
        f'<text class="note" x="8" y="{top + 60}">{seconds}; fault: {escape(trace.fault)}</text>',
    ]


def points(values: Sequence[float], top: int, height: int) -> str:
    """The points of a line through values, from the lowest to the highest."""
    low, high = min(values), max(values)
    scale = (height - 8) / ((high - low) or 1.0)
    step = (WIDTH - LEFT) / (len(values) - 1)
    return " ".join(
        f"{LEFT + at * step:.0f},{top + height - 4 - (value - low) * scale:.0f}"
        for at, value in enumerate(values)
    )


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(picture())
