"""Each fault of a sensor or link changes what it is there for, in its span, and nothing else."""

import numpy as np
import pytest

from broker import units
from broker.batch import BAD, GOOD, UNCERTAIN, Series
from broker.errors import Invalid
from broker.units import UnitConversion
from testbed_scenarios import signal_faults
from testbed_scenarios.held_signal import TimeSpan
from testbed_scenarios.signal_faults import FaultySensor, SensorFault, SensorFaultKind

SPAN = TimeSpan(3, 7)
FIRST_DRAWS = (0.8965126113372003, 0.8609708451025863, 0.8792733918329498)


def series(values, first=0):
    column = np.array(values)
    if column.dtype.kind == "U":
        column = column.astype(np.object_)
    n = len(column)
    return Series(np.arange(first, first + n), column, np.full(n, GOOD, np.uint8))


RAMP = series([10.0, 11, 12, 13, 14, 15, 16, 17, 18, 19])


def test_a_stuck_sensor_repeats_the_last_value_before_the_fault():
    nothing = series([])
    assert signal_faults.stuck(RAMP, SPAN, nothing).values.tolist() == [
        *(10, 11, 12, 12, 12, 12, 12, 17, 18, 19)
    ]
    late = series([13.0, 14.0], first=3)
    assert signal_faults.stuck(late, SPAN, series([9.5])).values.tolist() == [9.5, 9.5]
    assert signal_faults.stuck(late, SPAN, nothing).values.tolist() == [13, 13]


def test_a_drift_grows_from_nothing_to_its_size():
    drifted = signal_faults.drift(RAMP, SPAN, 4.0).values - RAMP.values
    assert drifted.tolist() == [0, 0, 0, 0, 1, 2, 3, 0, 0, 0]


def test_noise_has_the_standard_deviation_that_was_asked_for():
    long = series(np.zeros(20_000))
    noisy = signal_faults.noise(
        long, TimeSpan(0, 10_000), 0.5, signal_faults.generator(1, 0)
    ).values
    assert noisy[:10_000].std() == pytest.approx(0.5, rel=0.03)
    assert not noisy[10_000:].any()


def test_spikes_hit_a_share_of_the_samples_up_and_down():
    long = series(np.zeros(10_000))
    random = signal_faults.generator(1, 0)
    hit = signal_faults.spikes(long, TimeSpan(0, 10_000), 3.0, 0.05, random).values
    assert set(hit.tolist()) == {-3.0, 0.0, 3.0}
    assert np.count_nonzero(hit) == pytest.approx(500, rel=0.2)


def test_a_dropout_leaves_out_all_or_a_share():
    random = signal_faults.generator(1, 0)
    assert signal_faults.dropout(RAMP, SPAN, 1.0, random).time_ns.tolist() == [0, 1, 2, 7, 8, 9]
    long = series(np.zeros(10_000))
    rest = signal_faults.dropout(long, TimeSpan(0, 10_000), 0.3, random)
    assert len(rest.time_ns) == pytest.approx(7_000, rel=0.05)


def test_a_wrong_unit_converts_values():
    celsius = units.conversion("Cel", "[degF]")
    assert signal_faults.wrong_unit(RAMP, SPAN, celsius).values[3] == pytest.approx(55.4)
    by_factor = signal_faults.wrong_unit(RAMP, SPAN, UnitConversion(1000.0))
    assert by_factor.values.tolist() == [10, 11, 12, 13e3, 14e3, 15e3, 16e3, 17, 18, 19]
    whole = signal_faults.wrong_unit(series([1, 2, 3, 4]), SPAN, UnitConversion(0.3))
    assert whole.values.tolist() == [1, 2, 3, 1]
    assert whole.values.dtype == np.int64


def test_bad_quality_takes_the_value_away_and_uncertain_does_not():
    bad = signal_faults.bad_quality(RAMP, SPAN)
    assert bad.quality.tolist() == [0, 0, 0, 2, 2, 2, 2, 0, 0, 0]
    assert np.isnan(bad.values[3:7]).all()
    uncertain = signal_faults.bad_quality(RAMP, SPAN, UNCERTAIN)
    assert uncertain.quality[3] == UNCERTAIN
    assert uncertain.values.tolist() == RAMP.values.tolist()
    twice = signal_faults.bad_quality(bad, SPAN, UNCERTAIN)
    assert twice.quality[3] == BAD
    truth = signal_faults.bad_quality(series([True] * 5), SPAN)
    assert truth.values.tolist() == [True, True, True, False, False]


def test_a_bad_sample_gets_no_value_by_a_fault():
    bad = signal_faults.bad_quality(series([5] * 5), SPAN)
    assert signal_faults.drift(bad, SPAN, 400.0).values.tolist() == [5, 5, 5, 0, 0]


def test_a_skewed_clock_shifts_time_stamps_and_goes_back_at_the_end():
    assert signal_faults.skewed(RAMP.time_ns, SPAN, 5).tolist() == [
        *(0, 1, 2, 8, 9, 10, 11, 7, 8, 9)
    ]
    assert signal_faults.skewed(RAMP.time_ns, SPAN, -2).tolist() == [
        *(0, 1, 2, 1, 2, 3, 4, 7, 8, 9)
    ]


def test_a_slow_link_keeps_the_order():
    arrival = signal_faults.delayed_until(RAMP.time_ns, SPAN, 5, before_ns=1)
    assert arrival.tolist() == [1, 1, 2, 8, 9, 10, 11, 11, 11, 11]


def test_a_cut_link_gives_everything_afterwards():
    assert signal_faults.cut_until(RAMP.time_ns, SPAN).tolist() == [0, 1, 2, 7, 7, 7, 7, 7, 8, 9]


@pytest.mark.parametrize("kind", ["drift", "noise", "spike", "wrong-unit"])
def test_a_fault_of_numbers_needs_numbers(kind):
    fault = SensorFault(kind=SensorFaultKind(kind), span=SPAN, by=1.0)
    with pytest.raises(Invalid, match="holds none"):
        FaultySensor(fault, 1, 0).apply(series(["idle"] * 5))


@pytest.mark.parametrize("kind", ["stuck", "dropout", "bad-quality"])
def test_other_faults_take_any_signal(kind):
    fault = SensorFault(kind=SensorFaultKind(kind), span=SPAN)
    faulty = FaultySensor(fault, 1, 0).apply(series(["a", "b", "c", "d", "e"]))
    assert faulty.values.tolist()[:3] == ["a", "b", "c"]
    assert faulty.values.tolist()[3:] in ([], ["c", "c"], ["", ""])


def test_a_fault_of_arrays_shifts_every_element():
    spectra = Series(np.arange(2, 4), np.ones((2, 3)), np.zeros(2, np.uint8))
    assert signal_faults.drift(spectra, TimeSpan(2, 4), 2.0).values.tolist() == [
        *([1, 1, 1], [2, 2, 2])
    ]


def test_a_fault_that_cannot_be_is_refused():
    with pytest.raises(Invalid, match="duration"):
        SensorFault(kind=SensorFaultKind.STUCK, span=TimeSpan(5, 5))
    with pytest.raises(Invalid, match="share"):
        SensorFault(kind=SensorFaultKind.SPIKE, span=SPAN, share=0)


def test_random_numbers_belong_to_seed_and_entry():
    draws = {
        (seed, entry): tuple(signal_faults.generator(seed, entry).random(3))
        for seed in (0, 1)
        for entry in (0, 1)
    }
    assert len(set(draws.values())) == 4
    assert tuple(signal_faults.generator(1, 1).random(3)) == draws[1, 1]
    assert draws[0, 0] == pytest.approx(FIRST_DRAWS)
