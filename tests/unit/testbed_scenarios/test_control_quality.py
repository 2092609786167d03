"""Control quality, against responses whose measures are known."""

import math

import numpy as np
import pytest

from broker.batch import BAD, GOOD, Gap, Series
from broker.clock import NS_PER_S
from testbed_scenarios import control_quality
from testbed_scenarios.held_signal import HeldSignal, TimeSpan


def held(times_s, values, *, quality=None, until_s, gaps=()):
    times = np.round(np.asarray(times_s) * NS_PER_S).astype(np.int64)
    qualities = np.full(len(times), GOOD, np.uint8) if quality is None else np.array(quality)
    signal = HeldSignal.of(Series(times, np.asarray(values), qualities.astype(np.uint8)), gaps)
    return signal.within(TimeSpan(0, until_s * NS_PER_S))


def second_order(times_s, damping, frequency):
    """Step response of a second-order system. Source: Ogata, eq. 5-12."""
    root = math.sqrt(1 - damping**2)
    damped = frequency * root
    phase = math.atan2(root, damping)
    return 1 - np.exp(-damping * frequency * times_s) / root * np.sin(damped * times_s + phase)


@pytest.mark.parametrize("damping", [0.2, 0.4, 0.7])
@pytest.mark.parametrize(("start", "size"), [(0.0, 1.0), (3.0, -2.0)])
def test_the_overshoot_of_a_second_order_system_is_that_of_the_textbook(damping, start, size):
    times_s = np.arange(0, 60, 0.001)
    response = held(times_s, start + size * second_order(times_s, damping, 1.0), until_s=60)
    step = control_quality.step_response(response, 0, set_point=start + size, band=0.02)
    expected = math.exp(-damping * math.pi / math.sqrt(1 - damping**2))
    assert step.overshoot == pytest.approx(expected, abs=1e-4)
    assert step.peak_ns / NS_PER_S == pytest.approx(math.pi / math.sqrt(1 - damping**2), abs=0.01)


def test_a_first_order_system_settles_after_four_time_constants():
    times_s = np.arange(0, 20, 0.001)
    response = held(times_s, 1 - np.exp(-times_s), until_s=20)
    step = control_quality.step_response(response, 0, set_point=1.0, band=0.02)
    assert step.overshoot == 0
    assert step.settling_ns / NS_PER_S == pytest.approx(-math.log(0.02), abs=0.002)


def test_what_leaves_the_band_at_the_end_has_not_settled():
    response = held([0, 1, 2, 3], [0.0, 1.0, 1.0, 1.5], until_s=4)
    step = control_quality.step_response(response, 0, set_point=1.0, band=0.02)
    assert step.settling_ns is None
    assert step.overshoot == 0.5


def test_without_a_step_there_is_no_response():
    at_rest = held([0, 1], [1.0, 1.1], until_s=2)
    assert control_quality.step_response(at_rest, 0, set_point=1.0, band=0.02) is None
    unknown = held([0, 1], [1.0, 1.1], quality=[BAD, BAD], until_s=2)
    assert control_quality.step_response(unknown, 0, set_point=2.0, band=0.02) is None


def test_an_integral_counts_each_value_for_the_time_that_it_is_held():
    power = held([0, 2, 3], [100.0, 50.0, 10.0], until_s=10)
    assert control_quality.integral(power) == 2 * 100 + 50 + 7 * 10


def test_an_integral_leaves_out_what_is_not_known():
    power = held([0, 2, 3], [100.0, 50.0, 10.0], quality=[GOOD, BAD, GOOD], until_s=10)
    assert control_quality.integral(power) == 2 * 100 + 7 * 10
    gap = Gap((), 1 * NS_PER_S, 2 * NS_PER_S - 1, "cut")
    cut = held([0, 2, 3], [100.0, 50.0, 10.0], until_s=10, gaps=[gap])
    assert control_quality.integral(cut) == 100 + 50 + 7 * 10


def test_cycles_run_from_rise_to_rise():
    busy = held([0, 1, 2, 5, 6, 12], [False, True, False, True, False, True], until_s=20)
    assert (control_quality.cycle_times_ns(busy) / NS_PER_S).tolist() == [4, 7]
    number = held([0, 1, 2, 5], [-1.0, 0.5, 0.0, 2.0], until_s=20)
    assert (control_quality.cycle_times_ns(number) / NS_PER_S).tolist() == [4]


def test_a_cycle_with_an_unknown_value_is_left_out():
    busy = held(
        [0, 1, 2, 3, 5, 6, 8],
        [False, True, False, False, True, False, True],
        quality=[GOOD, GOOD, GOOD, BAD, GOOD, GOOD, GOOD],
        until_s=20,
    )
    assert control_quality.rises(busy).tolist() == [NS_PER_S, 8 * NS_PER_S]
    assert control_quality.cycle_times_ns(busy).tolist() == []
