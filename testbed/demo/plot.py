"""Plot samples over time as SVG text, one panel per signal over a common time axis.

Written here because a plotting library takes longer to install than all else that the demo needs.
"""

import html
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from broker.batch import BAD, Column, Gap, Series, Times
from broker.clock import DAY_S, HOUR_S, NS_PER_S, text_of

WIDTH = 1040
LEFT, RIGHT = 236, 40
"""Columns of the names and of the numbers at the axes; room for the end of the last time."""
HEIGHT, SPACING = 64, 16
"""Height of a panel, and the distance to the next."""
TOP, BOTTOM = 8, 46
NAME_LETTERS = 22
MOST_POINTS = 2_000
"""Points of a line, two for each pixel of its width."""
MOST_TIME_TICKS = 8
VALUE_TICKS = 3
SIGNAL_COLOUR, SCORE_COLOUR, TRUTH_COLOUR = "var(--signal)", "var(--score)", "var(--truth)"
TEXT, MUTED, GRID = "var(--text)", "var(--muted)", "var(--grid)"
"""Colours that the page defines, for a light and a dark screen."""
UNITS: Mapping[str, str] = {"1": "", "Cel": "°C", "[g]": "g", "K": "K", "deg": "°"}
"""Texts of UCUM codes that are not read as they are written."""
TIME_STEPS_S = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800),
    *(HOUR_S, 2 * HOUR_S, 3 * HOUR_S, 6 * HOUR_S, 12 * HOUR_S),
    *(DAY_S, 2 * DAY_S, 5 * DAY_S, 10 * DAY_S, 30 * DAY_S, 90 * DAY_S, 365 * DAY_S),
)

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One signal to be plotted, with the gaps in it; colour: of its line."""

    name: str
    unit: str
    series: Series
    gaps: Sequence[Gap] = ()
    colour: str = SIGNAL_COLOUR


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """The common axis of all panels, from `from_ns` to `to_ns`, which is later."""

    from_ns: int
    to_ns: int

    def x(self, time_ns: Any) -> Any:
        """The horizontal position of one instant, or of an array of them."""
        share = (time_ns - self.from_ns) / (self.to_ns - self.from_ns)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    @property
    def step_ns(self) -> int:
        """The distance of two labelled instants."""
        span_ns = self.to_ns - self.from_ns
        steps = (round(step_s * NS_PER_S) for step_s in TIME_STEPS_S)
        wide = (step for step in steps if span_ns <= step * MOST_TIME_TICKS)
        return next(wide, span_ns)

    def ticks(self) -> Iterator[tuple[int, str]]:
        """The labelled instants, each with its text: hours, minutes and seconds, or a date."""
        step_ns = self.step_ns
        for time_ns in range(-(-self.from_ns // step_ns) * step_ns, self.to_ns + 1, step_ns):
            date, time = text_of(time_ns)[:-1].split("T")
            if step_ns >= DAY_S * NS_PER_S:
                yield time_ns, date[5:]
            elif step_ns >= 60 * NS_PER_S:
                yield time_ns, time[:5]
            else:
                yield time_ns, time[:8] if step_ns >= NS_PER_S else time[:12]


@dataclass(frozen=True, slots=True)
class ValueAxis:
    """The axis of one panel, from `low` at its bottom to `high` at its top; top: position in px."""

    low: float
    high: float
    top: float

    def y(self, values: Any) -> Any:
        """The vertical position of one value, or of an array of them."""
        return self.top + HEIGHT * (self.high - values) / (self.high - self.low)

    def ticks(self) -> Iterator[tuple[float, str]]:
        """Round values on the axis, each with its text."""
        step = _round_step((self.high - self.low) / VALUE_TICKS)
        if math.floor(self.high / step) <= math.ceil(self.low / step):  # one alone has no scale
            step = _round_step((self.high - self.low) / VALUE_TICKS / 2)
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        for count in range(math.ceil(self.low / step), math.floor(self.high / step) + 1):
            value = count * step
            yield value, f"{value:,.{decimals}f}" if decimals < 7 else f"{value:.3g}"


def draw(
    panels: Sequence[Panel], *, truth: Sequence[tuple[int, int]], colours: Mapping[str, str]
) -> str:
    """Plot panels one below the other, as an `<svg>` for an HTML page that defines its colours.

    truth: (from, to) spans of known faults in ns, which are shaded.  colours: of gaps, by cause.
    """
    axis = _time_axis(panels, truth)
    bottom = TOP + len(panels) * (HEIGHT + SPACING) - SPACING
    names = ", ".join(panel.name for panel in panels)
    root = (
        f'<svg viewBox="0 0 {WIDTH} {bottom + BOTTOM}" role="img" font-size="13"'
        f' font-family="system-ui, sans-serif" fill="{TEXT}"'
        f' aria-label="{html.escape(f"plots over time: {names}")}">'
    )
    parts = [root, *_hatches(colours)]
    for number, panel in enumerate(panels):
        parts += _panel(panel, axis, TOP + number * (HEIGHT + SPACING), truth, colours)
    parts += _time_labels(axis, bottom)
    return "\n".join([*parts, "</svg>"])


def _time_axis(panels: Sequence[Panel], truth: Sequence[tuple[int, int]]) -> TimeAxis:
    """The axis over all samples, gaps and known faults."""
    instants = [time_ns for span in truth for time_ns in span]
    for panel in panels:
        if len(panel.series.time_ns):
            instants += [int(panel.series.time_ns[0]), int(panel.series.time_ns[-1])]
        instants += [time_ns for gap in panel.gaps for time_ns in (gap.from_ns, gap.to_ns)]
    from_ns = min(instants, default=0)
    return TimeAxis(from_ns, max(max(instants, default=0), from_ns + 1_000_000))


def _panel(
    panel: Panel,
    axis: TimeAxis,
    top: float,
    truth: Sequence[tuple[int, int]],
    colours: Mapping[str, str],
) -> Iterator[str]:
    times, values = _usable(panel)
    is_bool = panel.series.values.dtype == np.bool_
    scale = ValueAxis(-0.15, 1.15, top) if is_bool else _value_axis(values, top)
    yield from _frame(panel, axis, scale, is_bool=is_bool)
    for from_ns, to_ns in truth:
        yield _span(axis, (from_ns, to_ns), top, f'fill="{TRUTH_COLOUR}"')
    for gap in panel.gaps:
        hatch = f"url(#hatch-{list(colours).index(gap.cause)})"
        span = _span(axis, (gap.from_ns, gap.to_ns), top, f'fill="{hatch}"')
        ends = f"{text_of(gap.from_ns)} to {text_of(gap.to_ns)}"
        yield f"<g><title>{html.escape(f'{panel.name}: {gap.cause}, {ends}')}</title>{span}</g>"
    if not np.isfinite(values).any():
        x, y = LEFT + 12, top + HEIGHT / 2 + 4
        yield f'<text x="{x}" y="{y:.1f}" fill="{MUTED}">no numbers to plot</text>'
        return
    yield (
        f'<path d="{_line(axis.x(times), scale.y(values), is_stepped=is_bool)}" fill="none"'
        f' stroke="{panel.colour}" stroke-width="1.2" stroke-linejoin="round"/>'
    )


def _frame(panel: Panel, axis: TimeAxis, scale: ValueAxis, *, is_bool: bool) -> Iterator[str]:
    """Name, unit, axes and grid of a panel."""
    middle, right = scale.top + HEIGHT / 2, WIDTH - RIGHT
    name = panel.name
    short = name if len(name) <= NAME_LETTERS else f"{name[: NAME_LETTERS - 1]}…"
    unit = UNITS.get(panel.unit, panel.unit)
    yield (
        f'<text x="0" y="{middle:.1f}"><title>{html.escape(name)}</title>'
        f'<tspan font-weight="600">{html.escape(short)}</tspan>'
        + (f'<tspan x="0" dy="16" fill="{MUTED}">in {html.escape(unit)}</tspan>' if unit else "")
        + "</text>"
    )
    for time_ns, _ in axis.ticks():
        x = axis.x(time_ns)
        yield _rule(x, scale.top, x, scale.top + HEIGHT, GRID)
    for value, text in [(0.0, "no"), (1.0, "yes")] if is_bool else scale.ticks():
        y = scale.y(value)
        yield _rule(LEFT, y, right, y, GRID)
        yield (
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" font-size="12"'
            f' fill="{MUTED}">{text}</text>'
        )
    yield _rule(LEFT, scale.top, LEFT, scale.top + HEIGHT, MUTED)


def _time_labels(axis: TimeAxis, bottom: float) -> Iterator[str]:
    """The time axis below the last panel."""
    yield _rule(LEFT, bottom, WIDTH - RIGHT, bottom, MUTED)
    for time_ns, text in axis.ticks():
        yield (
            f'<text x="{axis.x(time_ns):.1f}" y="{bottom + 17}" text-anchor="middle"'
            f' font-size="12" fill="{MUTED}">{text}</text>'
        )
    date = text_of(axis.from_ns)[:10]
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield (
        f'<text x="{middle}" y="{bottom + 37}" text-anchor="middle">time in UTC, from {date} on'
        "</text>"
    )


def _hatches(colours: Mapping[str, str]) -> Iterator[str]:
    """A pattern for the gaps of each cause."""
    yield "<defs>"
    for number, colour in enumerate(colours.values()):
        yield (
            f'<pattern id="hatch-{number}" width="6" height="6" patternUnits="userSpaceOnUse"'
            f' patternTransform="rotate(45)"><rect width="6" height="6" fill="{colour}"'
            f' opacity="0.25"/><rect width="2" height="6" fill="{colour}" opacity="0.7"/></pattern>'
        )
    yield "</defs>"


def _span(axis: TimeAxis, span: tuple[int, int], top: float, style: str) -> str:
    """A shaded span of a panel, a pixel wide at least."""
    left, right = axis.x(span[0]), axis.x(span[1])
    width = max(right - left, 1.0)
    return f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{HEIGHT}" {style}/>'


def _rule(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<path d="M{x1:.1f},{y1:.1f}L{x2:.1f},{y2:.1f}" stroke="{colour}"/>'


def _usable(panel: Panel) -> tuple[Times, Numbers]:
    """Times and values of a panel's line: NaN where a sample is bad or a gap begins."""
    series = panel.series
    if series.values.dtype == np.object_ or series.values.ndim > 1:  # these have no height
        return series.time_ns[:0], np.empty(0)
    values = series.values.astype(np.float64)
    values[series.quality == BAD] = np.nan
    times, values = _thinned(series.time_ns, values)
    begins = np.array([gap.from_ns for gap in panel.gaps], np.int64)
    at = np.searchsorted(times, begins)
    return np.insert(times, at, begins), np.insert(values, at, np.nan)


def _thinned(times: Times, values: Column) -> tuple[Times, Numbers]:
    """MOST_POINTS of the samples at most: the least and the greatest of each of many short spans,
    at their own times.
    """
    if len(times) <= MOST_POINTS:
        return times, values
    chosen: set[int] = set()
    edges = np.linspace(0, len(times), MOST_POINTS // 2 + 1).astype(int).tolist()
    for begin, end in itertools.pairwise(edges):
        finite = np.flatnonzero(np.isfinite(values[begin:end])) + begin
        if len(finite):
            chosen.add(int(finite[np.argmin(values[finite])]))
            chosen.add(int(finite[np.argmax(values[finite])]))
        else:
            chosen.add(begin)
    order = sorted(chosen)
    return times[order], values[order]


def _value_axis(values: Numbers, top: float) -> ValueAxis:
    """An axis on which all values lie, with a little room above and below."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    room = 0.08 * (high - low) or max(abs(high) * 0.05, 0.5)
    return ValueAxis(low - room, high + room, top)


def _round_step(least: float) -> float:
    """The smallest of 1, 2 or 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))


def _line(x: Numbers, y: Numbers, *, is_stepped: bool) -> str:
    """The path through points, which breaks off where a value is NaN; stepped for a bool."""
    parts: list[str] = []
    is_begun = False
    for at_x, at_y in zip(x.tolist(), y.tolist(), strict=True):
        if math.isnan(at_y):
            is_begun = False
            continue
        if not is_begun:
            parts.append(f"M{at_x:.1f},{at_y:.1f}h0.1")  # a sample alone is a dot
        elif is_stepped:
            parts.append(f"H{at_x:.1f}V{at_y:.1f}")
        else:
            parts.append(f"L{at_x:.1f},{at_y:.1f}")
        is_begun = True
    return "".join(parts)
