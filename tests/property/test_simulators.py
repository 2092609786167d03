"""Laws of the simulators: repeatable, bounded, and what is written is what is read."""

import tempfile
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from broker.errors import Invalid
from simulators import ledger, replay
from simulators.faults import Fault
from simulators.model import SourceRow
from simulators.models.pump_rig import FAULTS, SIGNALS, PumpRig

NAMES = [signal.name for signal in SIGNALS]
HEADER = ";".join(["datetime", *NAMES, "anomaly"])

spans = st.tuples(st.floats(0, 50), st.floats(0.1, 50))
faults = st.builds(
    lambda kind, span, severity, ramp_s: Fault(kind, span[0], span[0] + span[1], severity, ramp_s),
    st.sampled_from(tuple(FAULTS)),
    spans,
    st.floats(0.01, 1),
    st.floats(0, 30),
)
finite = st.floats(allow_nan=False, allow_infinity=False)
instants = st.datetimes(datetime(1970, 1, 1), datetime(2261, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
rows = st.builds(
    lambda moment, values, anomaly: (moment.replace(microsecond=0), values, anomaly),
    instants,
    st.tuples(*[finite] * 8),
    st.booleans(),
)


@given(st.integers(0, 2**64), st.lists(faults, max_size=3), st.floats(0.001, 1000))
def test_equal_arguments_give_equal_rows(seed, some, period_s):
    first, other = (
        list(PumpRig(seed=seed, period_s=period_s, count=20, faults=some).rows()) for _ in "ab"
    )
    assert first == other
    assert all(before.time_ns <= row.time_ns for before, row in pairwise(first))
    assert all(row.time_ns % 1000 == 0 for row in first)


@given(st.integers(0, 2**32), st.lists(faults, max_size=5))
def test_no_fault_drives_a_sensor_out_of_its_range(seed, some):
    for row in PumpRig(seed=seed, period_s=10, count=20, faults=some).rows():
        for signal, value in zip(SIGNALS, row.values, strict=True):
            assert signal.low <= value <= signal.high


@given(faults, st.floats(0, 200))
def test_a_fault_is_there_inside_its_span_alone(fault, time_s):
    level = fault.level(time_s)
    assert 0 <= level <= fault.severity
    assert (level > 0) <= (fault.start_s < time_s < fault.end_s)


@given(st.lists(rows, min_size=1, max_size=20))
def test_a_recording_reads_value_for_value(some):
    ordered = sorted(some, key=lambda row: row[0])
    lines = [
        ";".join([f"{moment:%Y-%m-%d %H:%M:%S}", *map(repr, values), str(float(anomaly))])
        for moment, values, anomaly in ordered
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "r.csv")
        path.write_text("\n".join([HEADER, *lines]))
        read = replay.read(path).content
    assert [(row.values, row.anomaly) for row in read] == [row[1:] for row in ordered]
    assert [row.time_ns // 10**9 for row in read] == [int(row[0].timestamp()) for row in ordered]


@given(st.one_of(st.binary(), st.text().map(lambda text: f"{HEADER}\n{text}".encode())))
def test_any_file_reads_or_is_refused_in_a_sentence(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "r.csv")
        path.write_bytes(content)
        try:
            assert replay.read(path).content
        except Invalid as refused:
            assert refused.hint  # noqa: PT017 - either way is right


values = st.tuples(finite, st.one_of(finite, st.tuples(finite, finite, finite)))


@given(st.lists(st.builds(SourceRow, st.integers(0, 2**63 - 1), values)))
def test_a_ledger_gives_back_what_it_was_given(some):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "l.jsonl")
        with ledger.create(path, ["a", "b"]) as book:
            book.append(some)
        assert ledger.read(path).rows == tuple(some)
