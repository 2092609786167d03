"""The press against the closed solutions of its equations."""

import math

import numpy as np
import pytest

from simulators.catalogue import MODELS
from simulators.faults import Fault

PRESS = MODELS["press"]
NAMES = [signal.name for signal in PRESS.signals]


def columns(rows):
    return dict(zip(NAMES, np.array([row.values for row in rows]).T, strict=True))


def test_the_platens_answer_a_step_of_the_heater_as_a_first_order_balance():
    # Incropera et al., ch. 5: T = T_end + (T_0 - T_end) exp(-t / tau), tau = C / G
    press = PRESS.make(period_s=10, parameters={"part_conductance": 0})
    capacity, conductance, ambient = 29_000, 12, 22
    before = columns(press.advance(2000, {"heater": 1.0}))["Platen Temperature"]
    assert before[-100:].mean() == pytest.approx(ambient + 1000 / conductance, abs=0.1)
    after = columns(press.advance(1000, {"heater": 2.0}))["Platen Temperature"]
    for at in (50, 240, 600):
        share = 1 - math.exp(-(at + 1) * 10 * conductance / capacity)
        rise = after[at - 5 : at + 6].mean() - before[-100:].mean()
        assert rise == pytest.approx(share * 1000 / conductance, abs=0.25)


def test_heat_into_the_platens_is_heat_out_of_them():
    rows = columns(PRESS.make(period_s=1.0).advance(36 * 400, {"heater": 3.0}))
    mean_c = rows["Platen Temperature"][-36 * 50 :].mean()
    lost_w = 12 * (mean_c - 22) + 20 / 36 * 9 * (mean_c - 25)
    assert lost_w == pytest.approx(3000, rel=0.005)


def test_pressure_rises_with_its_time_constant_and_stays_below_the_set_point_by_the_leak():
    # Merritt, ch. 3: tau = V / (beta (K + L)), p_end = K p_set / (K + L)
    press = PRESS.make(period_s=0.01, parameters={"pressing": 600})
    bar = columns(press.advance(2400, {"pressure": 200}))["Pressure"]
    gain, leak = 0.072, 0.0012
    assert bar[1000:].mean() == pytest.approx(200 * gain / (gain + leak), rel=0.001)
    tau_s = 5e-3 / (1.4e9 * (gain + leak) * 1e-3 / 60 / 1e5)
    at = 400 + round(tau_s / 0.01)
    share = bar[at - 3 : at + 2].mean() / bar[1000:].mean()
    assert share == pytest.approx(1 - math.exp(-1), abs=0.02)


def test_force_is_pressure_times_area():
    rows = columns(PRESS.make(seed=1).advance(2000, {}))
    pressed = rows["Pressure"] > 100
    ratio = rows["Force"][pressed].mean() / rows["Pressure"][pressed].mean()
    assert ratio == pytest.approx(0.0314 * 1e5 / 1e3, rel=0.001)


@pytest.mark.parametrize(
    ("coefficient", "faults"), [(1e-5, []), (1e-7, [Fault("abrasion", 0, 1e9)])]
)
def test_wear_is_archards_coefficient_times_pressure_times_way(coefficient, faults):
    parameters = {"wear_coefficient": coefficient, "compliance": 0}
    press = PRESS.make(period_s=36, parameters=parameters, faults=faults)
    rows = columns(press.advance(101, {}))
    factor = 300 if faults else 1
    contact_mpa = 160 * 0.072 / 0.0732 * 0.0314e5 / 0.04 / 1e6
    a_stroke_mm = factor * coefficient * contact_mpa * 40
    grown_mm = rows["Part Thickness"][100] - rows["Part Thickness"][10]
    strokes = rows["Strokes"][100] - rows["Strokes"][10]
    assert strokes == 90
    assert grown_mm / strokes == pytest.approx(a_stroke_mm, rel=0.02)


def test_a_step_may_be_as_long_as_many_strokes():
    fine, coarse = (PRESS.make(period_s=period_s) for period_s in (1.0, 360.0))
    short, long = columns(fine.advance(3600, {})), columns(coarse.advance(10, {}))
    assert long["Strokes"][-1] == short["Strokes"][-1] == 100
    for name in ("Platen Temperature", "Oil Temperature", "Position"):
        assert long[name][-1] == pytest.approx(short[name][-1], abs=0.5)


def test_a_controller_holds_the_platens_with_the_heater():
    press, heater, at = PRESS.make(period_s=10), 2.7, NAMES.index("Platen Temperature")
    for _ in range(2000):
        (row,) = press.advance(1, {"heater": heater})
        heater += 0.002 * (200 - row.values[at])
    assert row.values[at] == pytest.approx(200, abs=2)
