"""The spindle against published frequencies of bearings and closed solutions of its equations."""

import math

import numpy as np
import pytest

from simulators.catalogue import MODELS
from simulators.faults import Fault
from simulators.models.cnc_spindle import (
    BINS,
    INNER,
    OUTER,
    SpindleConstants,
    _Spindle,
    defect_frequencies,
    hann_response,
)

SPINDLE = MODELS["cnc-spindle"]
NAMES = [signal.name for signal in SPINDLE.signals]
SKF_6205 = {"balls": 9, "ball_diameter": 7.94, "pitch_diameter": 39.04, "contact_angle": 0}


def means(rows):
    columns = zip(*(row.values for row in rows), strict=True)
    return {name: np.mean(column, axis=0) for name, column in zip(NAMES, columns, strict=True)}


def test_the_defect_frequencies_of_a_6205_are_those_of_the_bearing_data_center():
    # Case Western Reserve University, Bearing Data Center, drive end: multiples of the speed
    frequencies = defect_frequencies(SpindleConstants(**SKF_6205))
    assert frequencies.outer == pytest.approx(3.5848, abs=2e-3)
    assert frequencies.inner == pytest.approx(5.4152, abs=2e-3)


@pytest.mark.parametrize(
    ("fault", "orders"),
    [
        (OUTER, [3.585, 2 * 3.585, 3 * 3.585]),
        (INNER, [5.415, 4.415, 6.415, 2 * 5.415, 3 * 5.415]),
    ],
)
def test_a_pit_shows_lines_where_the_balls_pass_it(fault, orders):
    constants = SpindleConstants(**SKF_6205 | {"pitch_diameter": 39.04, "bandwidth": 2000})
    spindle = _Spindle(constants, np.random.default_rng(1))
    inputs = {"speed": 6000, "feed": 0}
    quiet = dict.fromkeys(SPINDLE.faults, 0.0)
    spindle.step(10, inputs, quiet, [0.0] * spindle.draws)
    healthy = spindle.spectrum
    spindle.step(10, inputs, quiet | {fault: 1.0}, [0.0] * spindle.draws)
    risen = spindle.spectrum > 5 * healthy.mean() + healthy
    places = {round(order * 100 / (2000 / (BINS - 1))) for order in orders}
    assert all(risen[place] for place in places)
    near = {place + beside for place in places for beside in (-2, -1, 0, 1, 2)}
    others = {at for at in np.flatnonzero(risen) if at not in near}
    if fault == OUTER:
        assert not others


def test_a_line_keeps_its_effective_value_wherever_it_lies_between_two_bins():
    for place in (0.0, 0.2, 0.5, 0.9):
        squares = [hann_response(at - place) ** 2 for at in range(-40, 41)]
        assert sum(squares) / 1.5 == pytest.approx(1, rel=1e-3)


def test_the_window_is_that_of_a_discrete_fourier_transform():
    samples, place = 256, 40.3
    at = np.arange(samples)
    wave = np.cos(2 * np.pi * place * at / samples) * np.hanning(samples + 1)[:-1]
    measured = np.abs(np.fft.rfft(wave)) / (samples / 4)
    for bin_number in (39, 40, 41, 42):
        assert hann_response(bin_number - place) == pytest.approx(measured[bin_number], abs=2e-3)


def test_cutting_power_is_kienzles():
    # 2 mm x 30 mm x 1200 mm/min in steel: Q = 72 cm3/min, h = 0.0667 sqrt(0.6) mm
    specific = 1700 * (1200 / 6000 / 3 * math.sqrt(0.6)) ** -0.25
    expected_kw = 72 * specific / 60_000 + 0.4
    measured = means(SPINDLE.make().advance(2000, {}))
    assert measured["Power"] == pytest.approx(expected_kw, rel=0.005)
    assert measured["Load"] == pytest.approx(100 * expected_kw / 15, rel=0.005)
    assert measured["Torque"] == pytest.approx(expected_kw * 1000 / (2 * math.pi * 100), rel=0.005)


def test_speed_and_heat_follow_with_their_time_constants():
    spindle = SPINDLE.make(period_s=0.1)
    spindle.advance(1, {"feed": 0})
    speeds = [row.values[0] for row in spindle.advance(40, {"speed": 12_000})]
    for at in (3, 7, 15):
        share = 1 - math.exp(-(at + 1) * 0.1 / 0.8)
        assert speeds[at] == pytest.approx(6000 + share * 6000, abs=3)
    warming = SPINDLE.make(inputs={"feed": 0, "speed": 12_000})
    rows = [row.values[NAMES.index("Temperature")] for row in warming.advance(4000, {})]
    end_c = 22 + 0.9 * 400 * 4 / 20
    assert np.mean(rows[-500:]) == pytest.approx(end_c, abs=0.1)
    at = 6000 // 20
    begin_c = np.interp(0, [0, 1], rows[:2])
    assert (rows[at] - begin_c) / (end_c - begin_c) == pytest.approx(1 - math.exp(-1), abs=0.01)


def test_the_effective_value_is_that_of_the_spectrum():
    for row in SPINDLE.make(seed=1).advance(50, {}):
        spectrum = np.array(row.values[NAMES.index("Spectrum")])
        effective = math.sqrt((spectrum**2).sum() / 2 / 1.5)
        assert row.values[NAMES.index("VibrationRMS")] == pytest.approx(effective, abs=1e-3)


def test_bands_tell_the_faults_apart():
    bands = ("Rotation Band", "Tooth Band", "Outer Race Band", "Inner Race Band")
    healthy = means(SPINDLE.make(seed=1).advance(300, {}))
    for kind, band in (("unbalance", 0), ("tool", 1), ("outer", 2), ("inner", 3)):
        rows = SPINDLE.make(seed=1, faults=[Fault(kind, 0, 1e6)]).advance(300, {})
        ratios = [means(rows)[name] / healthy[name] for name in bands]
        assert max(ratios) == ratios[band]
        assert ratios[band] > 1.4


def test_a_standing_spindle_is_quiet_and_takes_no_power():
    spindle = SPINDLE.make(seed=1)
    spindle.advance(60, {"speed": 0})
    values = means(spindle.advance(100, {}))
    assert values["Power"] == values["Torque"] == 0
    assert values["VibrationRMS"] < 0.2


def test_a_controller_holds_the_load_with_the_feed():
    spindle, feed = SPINDLE.make(seed=1), 500.0
    loads = []
    for _ in range(300):
        (row,) = spindle.advance(1, {"feed": feed})
        loads.append(row.values[NAMES.index("Load")])
        feed += 5 * (60 - loads[-1])
    assert np.mean(loads[200:]) == pytest.approx(60, abs=1)
