"""The conveyor line against published throughputs of lines with blocking and breakdowns."""

import numpy as np
import pytest

from simulators.catalogue import MODELS

LINE = MODELS["conveyor-line"]
NAMES = [signal.name for signal in LINE.signals]
MINUTE_S = 60.0
SURE = {"up_time": 1e9}
AT_ONCE = {"release": 600.0}


def rate(parts, parameters, seed=1, inputs=AT_ONCE):
    """Parts a second of a line in the long run."""
    line = LINE.make(seed=seed, period_s=MINUTE_S, parameters=parameters, inputs=inputs)
    warm, minutes = 60, parts * 10 // 60
    done = [row.values[NAMES.index("Parts Done")] for row in line.advance(warm + minutes, {})]
    return (done[-1] - done[warm - 1]) / (minutes * MINUTE_S)


def exponential(**parameters):
    return SURE | {"time_1": 10, "time_2": 10, "time_3": 10, "variation": 1} | parameters


def test_three_exponential_stations_without_buffers_reach_hunts_22_39ths():
    # Hunt, Sequential arrays of waiting lines, Operations Research 4 (1956)
    measured = rate(8_000, exponential(buffer_1=0, buffer_2=0))
    assert measured * 10 == pytest.approx(22 / 39, rel=0.02)


@pytest.mark.parametrize("places", [0, 2, 8])
def test_two_exponential_stations_reach_what_a_buffer_of_so_many_places_allows(places):
    # (N + 2) / (N + 3) of a station's rate: Buzacott and Shanthikumar, 1993, ch. 5
    measured = rate(8_000, exponential(buffer_1=places, buffer_2=100, time_3=0.01))
    assert measured * 10 == pytest.approx((places + 2) / (places + 3), rel=0.02)


@pytest.mark.parametrize("places", [2, 30])
def test_two_stations_that_break_down_reach_buzacotts_efficiency(places):
    times = {"time_1": 1, "time_2": 1, "time_3": 0.01, "variation": 0}
    times |= {"up_time": 20, "down_time": 10}
    measured = rate(1500, times | {"buffer_1": places, "buffer_2": 100})
    p, r, n = 1 / 20, 1 / 10, places + 1  # the part on the second station is stored, too
    efficiency = (n * r * (r + p) + 2 * r) / (n * (r + p) ** 2 + 2 * r + 4 * p)
    assert measured == pytest.approx(efficiency, rel=0.03)


def test_without_variation_or_breakdowns_the_slowest_station_sets_the_pace():
    measured = rate(600, SURE | {"variation": 0, "time_1": 4, "time_2": 10, "time_3": 6})
    assert measured == pytest.approx(1 / 10, rel=0.01)


def test_what_is_let_in_comes_out():
    assert rate(600, SURE, inputs={"release": 4.0}) == pytest.approx(4 / 60, rel=0.01)
    assert rate(100, SURE, inputs={"release": 0.0}) == 0


def test_the_speed_scales_the_rate():
    parameters = SURE | {"variation": 0}
    assert rate(600, parameters, inputs=AT_ONCE | {"speed": 0.5}) == pytest.approx(1 / 12, rel=0.01)


def test_parts_are_neither_made_nor_lost_and_the_period_only_decides_when_one_looks():
    fine, coarse = (LINE.make(seed=3, period_s=period_s) for period_s in (0.5, 30.0))
    for row in (short := fine.advance(6000, {})):
        states, buffers = row.values[:3], row.values[3:5]
        in_line = sum(buffers) + sum(state in (1, 2) for state in states)
        assert in_line <= row.values[5] <= in_line + sum(state == 3 for state in states)
        assert all(0 <= parts <= 8 for parts in buffers)
    (*_, last) = coarse.advance(100, {})
    assert last.values[:7] == short[-1].values[:7]


def test_a_controller_holds_the_parts_in_the_line():
    line, release = LINE.make(seed=2), 60.0
    parts = []
    for _ in range(3000):
        (row,) = line.advance(1, {"release": release})
        parts.append(row.values[5])
        release = 60.0 if parts[-1] < 5 else 0.0
    assert max(parts) <= 6
    assert np.mean(parts[500:]) > 3.5
