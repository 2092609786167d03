"""Rows of equipment in virtual time: models, recordings, faults of sensors and links."""

import numpy as np
import pytest

from broker.batch import BAD, GOOD, NO_SAMPLE
from broker.clock import NS_PER_S
from broker.streams import Signal
from simulators import catalogue
from simulators.model import SourceRow
from testbed.scenario import source_rows
from testbed.scenario.sensor_link import EquipmentLink, FaultySensors
from testbed.scenario.source_rows import (
    ModelSource,
    Placement,
    ReplaySource,
    SourceColumns,
)
from testbed_scenarios.observations import TruthInterval
from testbed_scenarios.timeline_model import LinkFault, SignalFault

START_NS = 1_700_000_000 * NS_PER_S
SIGNALS = (Signal("Pressure"), Signal("Flow"))


def columns(seconds, start_ns=START_NS):
    time_ns = start_ns + np.array([round(each * NS_PER_S) for each in seconds], np.int64)
    values = np.arange(len(time_ns), dtype=np.float64)
    return SourceColumns.good(time_ns, (values, values * 10))


def seconds_of(rows):
    return ((rows.time_ns - START_NS) / NS_PER_S).tolist()


def replay(recorded, **placed):
    usual = {"start_ns": START_NS, "end_ns": START_NS + 10 * NS_PER_S, "begin_ns": 0}
    return ReplaySource(SIGNALS, recorded, Placement(**usual | placed), None)


def test_a_model_gives_the_same_rows_in_quanta_of_any_length():
    def rows_of(*until_s):
        model = catalogue.model("pump-rig").make(seed=7, period_s=0.5)
        source = ModelSource(model, START_NS, ())
        return SourceColumns.joined(
            [source.advance(START_NS + round(each * NS_PER_S), {}) for each in until_s]
        )

    whole, pieces = rows_of(4), rows_of(0.2, 1.0, 2.5, 4)
    assert seconds_of(whole) == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5]
    assert np.array_equal(whole.time_ns, pieces.time_ns)
    assert all(map(np.array_equal, whole.values, pieces.values))


@pytest.mark.parametrize(
    ("placed", "expected"),
    [
        ({}, [0, 1, 2]),
        ({"begin_ns": NS_PER_S}, [0, 1]),
        ({"speed": 2.0}, [0, 0.5, 1]),
        ({"loop": True}, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ({"loop": True, "speed": 0.5}, [0, 2, 4, 6, 8]),
    ],
)
def test_a_recording_is_played_at_the_instants_of_the_run(placed, expected):
    source = replay(columns([0, 1, 2], start_ns=0), **placed)
    rows = [source.advance(START_NS + until * NS_PER_S, {}) for until in range(1, 11)]
    assert seconds_of(SourceColumns.joined(rows)) == expected


def test_rows_that_share_a_time_stamp_get_the_next_nanosecond():
    times = source_rows.distinct(np.array([5, 5, 5, 6, 20, 20], np.int64))
    assert times.tolist() == [5, 6, 7, 8, 20, 21]


def test_labels_become_faults_and_are_played_with_their_rows():
    rows = [SourceRow(at, (0.0, 0.0), anomaly=at in {2, 3, 5}, cause="valve") for at in range(6)]
    labelled = source_rows.labelled(rows)
    assert labelled == (TruthInterval("valve", 2, 4), TruthInterval("valve", 5, 6))
    assert source_rows.labelled([SourceRow(0, (0.0, 0.0))]) is None
    placement = Placement(start_ns=100, end_ns=200, begin_ns=1)
    source = ReplaySource(SIGNALS, columns([0, 1], start_ns=0), placement, labelled)
    assert source.truth == (TruthInterval("valve", 101, 103), TruthInterval("valve", 104, 105))


def link(**fault):
    usual = {"on": "rig", "from": "2s", "to": "4s"}
    return EquipmentLink(START_NS, [LinkFault.model_validate(usual | fault)])


def arrivals(carrier, rows):
    """Seconds of the rows that arrive in each quantum of a second."""
    arrived = []
    for until in range(1, 9):
        until_ns = START_NS + until * NS_PER_S
        inside = (rows.time_ns < until_ns) & (rows.time_ns >= until_ns - NS_PER_S)
        arrived.append(seconds_of(carrier.carry(rows.part(inside), until_ns)))
    return arrived


def test_a_cut_holds_rows_back_until_its_end_in_their_order():
    rows = columns([0.5, 1.5, 2.5, 3.5, 4.5, 5.5])
    expected = [[0.5], [1.5], [], [], [2.5, 3.5, 4.5], [5.5], [], []]
    assert arrivals(link(fault="cut"), rows) == expected


def test_a_delay_lets_nothing_overtake():
    rows = columns([0.5, 1.5, 2.5, 3.5, 4.5, 5.5])
    expected = [[0.5], [1.5], [], [], [2.5], [3.5, 4.5, 5.5], [], []]
    assert arrivals(link(fault="delay", by="2s"), rows) == expected


def test_a_wrong_clock_changes_time_stamps_alone():
    skewed = link(fault="clock-skew", by="-1s")
    rows = skewed.carry(columns([1, 2, 3, 4]), START_NS + 5 * NS_PER_S)
    assert seconds_of(rows) == [1, 1, 2, 4]
    assert skewed.is_skewed
    assert rows.values[0].tolist() == [0, 1, 2, 3]


def sensors(**fault):
    usual = {"on": "rig/Flow", "from": "1s", "to": "3s"}
    timeline = [SignalFault.model_validate(usual | fault)]
    return FaultySensors.of(timeline, "rig", {"Flow": "L/min"}, start_ns=START_NS, seed=7)


def test_a_faulty_sensor_changes_its_own_signal_in_its_own_time():
    faulty = sensors(fault="stuck").apply(columns([0, 1, 2, 3]), ["Pressure", "Flow"])
    assert faulty.values[0].tolist() == [0, 1, 2, 3]
    assert faulty.values[1].tolist() == [0, 0, 0, 30]


def test_samples_that_drop_out_are_lost_and_others_are_not():
    faulty = sensors(fault="dropout").apply(columns([0, 1, 2, 3]), ["Pressure", "Flow"])
    assert faulty.quality[0].tolist() == [GOOD] * 4
    assert faulty.quality[1].tolist() == [GOOD, NO_SAMPLE, NO_SAMPLE, GOOD]


def test_arrays_that_drop_out_are_lost_as_a_whole():
    rows = columns([0, 1, 2, 3])
    spectra = np.arange(8, dtype=np.float64).reshape(4, 2)
    rows = SourceColumns.good(rows.time_ns, (rows.values[0], spectra))
    faulty = sensors(fault="dropout").apply(rows, ["Pressure", "Flow"])
    assert faulty.quality[1].tolist() == [GOOD, NO_SAMPLE, NO_SAMPLE, GOOD]
    assert faulty.values[1][[0, 3]].tolist() == [[0, 1], [6, 7]]


def test_a_sensor_of_another_unit_converts_its_values():
    faulty = sensors(fault="wrong-unit", unit="m3/h").apply(
        columns([0, 1, 4]), ["Pressure", "Flow"]
    )
    assert faulty.values[1].tolist() == [0, pytest.approx(0.6), 20]


def test_bad_samples_have_no_value():
    faulty = sensors(fault="bad-quality").apply(columns([0, 1, 2, 3]), ["Pressure", "Flow"])
    assert faulty.quality[1].tolist() == [GOOD, BAD, BAD, GOOD]
    assert np.isnan(faulty.values[1][1:3]).all()


def test_another_equipments_faults_change_nothing():
    rows = columns([0, 1, 2])
    assert sensors(on="press/Flow", fault="stuck").apply(rows, ["Pressure", "Flow"]) is rows
