"""The pump rig: the same again for the same seed, physical, and like the recorded one."""

from itertools import groupby, islice

import numpy as np
import pytest

from broker.errors import Invalid
from broker.units import checked_unit
from simulators.faults import Fault
from simulators.models.pump_rig import (
    FAULTS,
    MODEL,
    PRESSURE_STEP,
    PRESSURE_ZERO,
    SIGNALS,
    PumpRig,
    Rig,
)

NAMES = [signal.name for signal in SIGNALS]
RECORDED = {  # mean and standard deviation of the recordings' healthy rows, `valve1` together
    "Accelerometer1RMS": (0.0271, 0.0005),
    "Accelerometer2RMS": (0.0402, 0.0010),
    "Current": (0.986, 0.275),
    "Pressure": (0.073, 0.259),
    "Temperature": (72.1, 2.8),
    "Thermocouple": (25.4, 0.34),
    "Voltage": (230.8, 10.7),
    "Volume Flow RateRMS": (32.13, 0.48),
}
WARM_BY_ITS_ROOM = {"Temperature": 8.0, "Thermocouple": 1.0}  # the recorded rig's day decides these


def columns(**settings):
    rows = list(PumpRig(**settings).rows())
    return dict(zip(NAMES, np.array([row.values for row in rows]).T, strict=True)), rows


def means_in(kind, rig=None):
    """What each sensor shows before a fault, and late in it."""
    fault = Fault(kind, 1000, 2000)
    signals, _ = columns(seed=3, count=2000, faults=[fault], rig=rig)
    before = {name: column[:1000].mean() for name, column in signals.items()}
    return before, {name: column[1500:1990].mean() for name, column in signals.items()}


def test_equal_arguments_give_equal_rows_however_often_they_are_asked_for():
    faults = [Fault("cavitation", 5, 15)]
    first, other = (PumpRig(seed=7, count=30, faults=faults) for _ in range(2))
    assert list(first.rows()) == list(first.rows()) == list(other.rows())


def test_another_seed_gives_other_noise():
    assert columns(seed=1, count=5)[1] != columns(seed=2, count=5)[1]


def test_a_fault_changes_nothing_before_it_begins():
    _, healthy = columns(seed=1, count=50)
    _, faulty = columns(seed=1, count=100, faults=[Fault("valve", 60, 90)])
    assert faulty[:50] == healthy


def test_rows_come_without_end_if_so_many_are_wanted():
    rows = list(islice(PumpRig(count=10**9, period_s=1 / 3).rows(), 3))
    assert [row.time_ns for row in rows] == [0, 333_333_000, 666_667_000]


@pytest.mark.parametrize("name", RECORDED)
def test_the_healthy_rig_looks_like_the_recorded_one(name):
    signals, _ = columns(seed=1, count=3000)
    mean, spread = RECORDED[name]
    room = WARM_BY_ITS_ROOM.get(name)
    assert abs(signals[name].mean() - mean) < (room or spread)
    if room is None:
        assert 0.5 < signals[name].std() / spread < 1.5


@pytest.mark.parametrize("kind", FAULTS)
def test_every_value_lies_in_its_signals_range(kind):
    signals, rows = columns(seed=1, count=2000, faults=[Fault(kind, 100, 2000)])
    for signal in SIGNALS:
        assert signal.low <= signals[signal.name].min()
        assert signals[signal.name].max() <= signal.high
    assert all(type(value) is float for value in rows[-1].values)


def test_pressure_comes_in_the_sensors_steps():
    steps = (columns(count=500)[0]["Pressure"] - PRESSURE_ZERO) / PRESSURE_STEP
    assert np.abs(steps - steps.round()).max() < 1e-5
    assert len(set(steps.round())) > 3


def test_a_shut_valve_lowers_the_flow_and_raises_the_pressure():
    before, after = means_in("valve", Rig(shut_opening=0.3))
    assert after["Volume Flow RateRMS"] < 0.6 * before["Volume Flow RateRMS"]
    assert after["Pressure"] > before["Pressure"] + 0.02


def test_a_valve_that_still_lets_through_what_it_did_in_the_experiments_takes_a_sixth_of_the_flow():
    before, after = means_in("valve")
    assert after["Volume Flow RateRMS"] / before["Volume Flow RateRMS"] == pytest.approx(
        5 / 6, rel=0.02
    )
    assert after["Accelerometer1RMS"] > 1.1 * before["Accelerometer1RMS"]


def test_a_worn_bearing_shakes_and_its_current_warms_the_motor():
    before, after = means_in("bearing")
    for name in ("Accelerometer1RMS", "Accelerometer2RMS"):
        assert after[name] > 1.5 * before[name]
    assert after["Current"] > before["Current"] + 0.2
    assert after["Temperature"] > before["Temperature"] + 10
    assert after["Thermocouple"] > before["Thermocouple"] + 0.3
    assert after["Volume Flow RateRMS"] == pytest.approx(before["Volume Flow RateRMS"], rel=0.01)


def test_cavitation_takes_head_away_and_makes_the_flow_flutter():
    signals, _ = columns(seed=3, count=1000, faults=[Fault("cavitation", 500, 1000)])
    flow = signals["Volume Flow RateRMS"]
    assert flow[510:990].mean() < flow[:500].mean() - 1
    assert flow[510:990].std() > 2 * flow[:500].std()
    assert signals["Temperature"][-1] < signals["Temperature"][0]  # it draws less


def test_temperatures_follow_with_their_time_constant():
    fault = Fault("bearing", 100, 10_000, ramp_s=0)
    warm = columns(count=2000, faults=[fault])[0]["Temperature"]
    start, end = warm[:100].mean(), warm[1500:].mean()
    motor_time = round(Rig().motor_capacity / Rig().conductance)
    reached = (warm[95 + motor_time : 106 + motor_time].mean() - start) / (end - start)
    assert reached == pytest.approx(1 - np.exp(-1), abs=0.03)


def test_a_long_period_gives_the_same_temperatures_in_the_end():
    warm = columns(period_s=10_000, count=50, faults=[Fault("bearing", 0, 1e9)])[0]
    assert warm["Temperature"][2:].mean() == pytest.approx(94.5, abs=0.2)


def test_flow_head_and_power_follow_the_affinity_laws_of_the_speed():
    half, full = (MODEL.make(inputs={"speed": speed}).advance(4000, {}) for speed in (0.5, 1.0))
    means = [np.array([row.values for row in rows[1500:]]).mean(axis=0) for rows in (half, full)]
    slow, fast = (dict(zip(NAMES, mean, strict=True)) for mean in means)
    assert slow["Volume Flow RateRMS"] == pytest.approx(fast["Volume Flow RateRMS"] / 2, rel=0.02)
    assert slow["Pressure"] == pytest.approx(fast["Pressure"] / 4, abs=0.02)
    warm = fast["Temperature"] - Rig().ambient
    assert slow["Temperature"] - Rig().ambient == pytest.approx(warm / 8, abs=0.2)  # as the power
    assert slow["Accelerometer1RMS"] == pytest.approx(fast["Accelerometer1RMS"] / 4, rel=0.02)


def test_a_controller_throttles_the_flow_with_the_valve():
    rig = MODEL.make(seed=1)
    at = NAMES.index("Volume Flow RateRMS")
    flows = [
        np.mean([row.values[at] for row in rig.advance(200, {"opening": opening})])
        for opening in (1.0, 0.5, 0.25, 1.0)
    ]
    assert flows[0] > flows[1] + 5 > flows[2] + 10
    assert flows[3] == pytest.approx(flows[0], abs=0.2)


def test_the_truth_names_every_fault_that_is_there():
    faults = [
        Fault("valve", 10, 30),
        Fault("valve", 15, 20),
        Fault("bearing", 25, 40),
    ]
    _, rows = columns(count=50, faults=faults)
    assert [row.cause for row in rows[9:42:8]] == ["", "valve", "valve", "bearing", ""]
    assert rows[27].cause == "valve+bearing"
    assert [row.anomaly for row in rows] == [10 < at < 40 for at in range(50)]


def spans_of_faults(rows):
    """Cause, first and last row of each fault."""
    groups = groupby(enumerate(rows), key=lambda pair: pair[1].cause)
    numbers = [(cause, [at for at, _ in members]) for cause, members in groups if cause]
    return [(cause, each[0], each[-1]) for cause, each in numbers]


def test_random_faults_come_again_and_again_and_are_those_of_the_seed():
    _, rows = columns(seed=7, count=20_000, fault_every_s=1_000)
    spans = spans_of_faults(rows)
    assert len(spans) == 20
    causes = [cause for cause, _, _ in spans]
    threes = [causes[at : at + 3] for at in range(0, 18, 3)]
    assert all(sorted(each) == sorted(FAULTS) for each in threes)
    assert any(each != threes[0] for each in threes)
    for number, (_, first, last) in enumerate(spans):
        assert 400 <= first - 1_000 * number <= 601
        assert 98 <= last - first <= 200
    assert columns(seed=7, count=2_000, fault_every_s=1_000)[1] == rows[:2_000]
    assert spans_of_faults(columns(seed=8, count=20_000, fault_every_s=1_000)[1]) != spans


def test_faults_that_are_named_come_beside_random_ones():
    named = [Fault("valve", 10, 30)]
    _, rows = columns(seed=7, count=1_000, faults=named, fault_every_s=1_000)
    spans = spans_of_faults(rows)
    assert (len(spans), spans[0][1]) == (2, 11)


def test_every_unit_is_a_unit_and_every_name_is_the_recordings():
    assert list(RECORDED) == NAMES
    for signal in SIGNALS:
        checked_unit(signal.unit)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"seed": -1}, "seed -1"),
        ({"period_s": 0}, "period 0 s"),
        ({"period_s": float("nan")}, "period nan s"),
        ({"period_s": 1e-9}, "a microsecond at least"),
        ({"count": 0}, "0 rows"),
        ({"fault_every_s": 5}, "a fault every 5 s"),
        ({"fault_every_s": float("nan")}, "a fault every nan s"),
    ],
)
def test_what_cannot_be_played_is_refused(settings, said):
    with pytest.raises(Invalid) as refused:
        PumpRig(**settings)
    assert said in str(refused.value)
