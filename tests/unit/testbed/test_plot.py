"""Plots as SVG: axes with round numbers and times, lines that break off, spans that are shaded."""

import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from broker.batch import BAD, Gap, Series
from broker.clock import ns_of
from testbed import plot
from testbed.plot import Panel, TimeAxis, ValueAxis

NOON = ns_of("2026-11-30T12:00:00Z")
S = 10**9


def series(values, *, start_ns=NOON, step_ns=S, bad=()):
    count = len(values)
    quality = np.zeros(count, np.uint8)
    quality[list(bad)] = BAD
    return Series(start_ns + np.arange(count) * step_ns, np.array(values), quality)


def drawn(*panels, truth=(), colours=None):
    return ET.fromstring(plot.draw(panels, truth=truth, colours=colours or {}))  # noqa: S314


def texts(svg):
    return ["".join(node.itertext()) for node in svg.iter("text")]


def paths(svg):
    """The lines of samples: the paths that are not filled."""
    return [node.get("d") for node in svg.iter("path") if node.get("fill") == "none"]


def test_a_panel_has_its_name_its_unit_and_round_numbers():
    svg = drawn(Panel(name="Thermocouple", unit="Cel", series=series([20.3, 25.1, 24.0])))
    assert "ThermocoupleThermocouplein °C" in texts(svg)  # the first is the tooltip's
    assert {"22", "24"} <= set(texts(svg))
    assert float(svg.get("font-size")) >= 12
    assert {float(node.get("font-size", 12)) for node in svg.iter("text")} == {12}


def test_the_time_axis_has_hours_minutes_and_seconds_with_a_date():
    svg = drawn(Panel(name="p", unit="1", series=series([1.0, 2.0, 3.0])))
    assert {"12:00:00.000", "12:00:01.000", "12:00:02.000"} <= set(texts(svg))
    assert "time in UTC, from 2026-11-30 on" in texts(svg)


@pytest.mark.parametrize(
    ("span_s", "first", "second"),
    [
        (0.004, "12:00:00.000", "12:00:00.001"),
        (10, "12:00:00", "12:00:02"),
        (800, "12:00", "12:02"),
        (3_600 * 30, "12:00", "18:00"),
        (86_400 * 9, "12-01", "12-03"),
    ],
)
def test_times_are_labelled_at_round_instants(span_s, first, second):
    labels = [text for _, text in TimeAxis(NOON, NOON + round(span_s * S)).ticks()]
    assert labels[:2] == [first, second]
    assert 2 <= len(labels) <= plot.MOST_TIME_TICKS + 1


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 3.0, ["0", "1", "2", "3"]),
        (0.0262, 0.0281, ["0.027", "0.028"]),
        (-1.4, 2.9, ["0", "2"]),
        (0.05, 1.9, ["0.5", "1.0", "1.5"]),
        (78_000.0, 81_000.0, ["78,000", "79,000", "80,000", "81,000"]),
    ],
)
def test_values_are_labelled_with_round_numbers(low, high, expected):
    axis = ValueAxis(low, high, top=0)
    assert [text for _, text in axis.ticks()] == expected
    assert (axis.y(high), axis.y(low)) == (0, plot.HEIGHT)


def test_a_line_breaks_off_where_a_sample_is_bad_or_a_gap_begins():
    whole = Panel(name="p", unit="", series=series([1.0, 2.0, 3.0, 4.0]))
    assert paths(drawn(whole))[0].count("M") == 1
    bad = Panel(name="p", unit="", series=series([1.0, 2.0, 3.0, 4.0], bad=[1]))
    assert paths(drawn(bad))[0].count("M") == 2
    gap = Gap((), NOON + S + 1, NOON + 2 * S - 1, "lost")
    gapped = Panel(name="p", unit="", series=series([1.0, 2.0, 3.0, 4.0]), gaps=[gap])
    svg = drawn(gapped, colours={"lost": "#888888"})
    assert paths(svg)[0].count("M") == 2
    assert [node.text for node in svg.iter("title")][1].startswith("p: lost, 2026-11-30T12:00:01")


def test_a_bool_is_a_step_between_no_and_yes():
    svg = drawn(Panel(name="anomaly", unit="", series=series([False, True, False])))
    assert {"no", "yes"} <= set(texts(svg))
    (line,) = paths(svg)
    assert re.fullmatch(r"M[\d.,]+h0\.1(H[\d.]+V[\d.]+){2}", line)


def test_known_faults_are_shaded_and_visible_however_short():
    svg = drawn(
        Panel(name="p", unit="", series=series([1.0] * 100)),
        truth=[(NOON + S, NOON + S), (NOON + 50 * S, NOON + 60 * S)],
    )
    widths = [
        float(node.get("width"))
        for node in svg.iter("rect")
        if node.get("fill") == plot.TRUTH_COLOUR
    ]
    assert widths[0] == 1.0
    assert widths[1] == pytest.approx((plot.WIDTH - plot.LEFT - plot.RIGHT) * 10 / 99, abs=0.1)


@pytest.mark.parametrize("values", [[], ["a", "b"]])
def test_what_has_no_numbers_says_so(values):
    empty = Series(np.empty(0, np.int64), np.empty(0), np.empty(0, np.uint8))
    text = Series(np.array([NOON, NOON + S]), np.array(values, object), np.zeros(2, np.uint8))
    svg = drawn(Panel(name="state", unit="", series=text if values else empty))
    assert "no numbers to plot" in texts(svg)


def test_many_samples_become_few_points_that_keep_every_peak():
    values = np.zeros(100_000)
    values[31_234], values[77_777] = 9.0, -9.0
    svg = drawn(Panel(name="p", unit="", series=series(values, step_ns=S // 1000)))
    (line,) = paths(svg)
    assert line.count("L") <= plot.MOST_POINTS
    heights = [float(y) for y in re.findall(r"[ML][\d.]+,([\d.]+)", line)]
    assert min(heights) < plot.TOP + 0.1 * plot.HEIGHT
    assert max(heights) > plot.TOP + 0.9 * plot.HEIGHT


def test_a_foreign_name_is_text_and_a_long_one_is_cut_with_a_tooltip():
    name = "a <b>&" + "x" * 50
    svg = drawn(Panel(name=name, unit="<u>", series=series([1.0, 2.0])))
    assert next(svg.iter("title")).text == name
    (span, unit) = svg.iter("tspan")
    assert span.text.startswith("a <b>&x")
    assert len(span.text) == plot.NAME_LETTERS
    assert unit.text == "in <u>"
