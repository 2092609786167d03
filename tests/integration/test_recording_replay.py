"""Recordings played as machines: every sample at its time, in step, sought, looped, labelled."""

import asyncio
import itertools
from dataclasses import dataclass, field

import pytest
from asyncua import Client, ua

from broker.batch import BAD, GOOD, NO_SAMPLE, UNCERTAIN
from broker.clock import NS_PER_S, SteppedClock, WallClock, text_of
from broker.errors import Invalid, NotGranted
from broker.recordings import bundle
from broker.recordings.manifest import CoveringGrant
from simulators import world
from simulators.faces import opcua
from simulators.model import SourceRow
from simulators.world import Playback, TimestampMode
from testbed import recording_replay
from testbed.recording_replay import Part
from testbed.simulator.repeated import RepeatedSource
from tests import recorded
from tests.recorded import BIG, RIG, T0

START_NS = 1_700_000_000 * NS_PER_S


@dataclass
class Offers:
    """A face that keeps what it is offered, and when."""

    clock: SteppedClock
    rows: list[tuple[int, SourceRow]] = field(default_factory=list)

    async def offer(self, rows):
        self.rows += [(self.clock.now_ns(), row) for row in rows]


async def played(source, pace, for_s):
    clock = SteppedClock(START_NS)
    face = Offers(clock)
    async with asyncio.TaskGroup() as tasks:
        playing = tasks.create_task(world.play(source, face, clock, pace=pace), name="playing")
        await clock.advance(for_s)
        playing.cancel()
    return face.rows


def source_of(*recordings, **options):
    return recording_replay.source([each.path for each in recordings], WallClock(), **options)


def seconds(rows):
    return [(at_ns - START_NS) / NS_PER_S for at_ns, _ in rows]


@pytest.fixture
def two_rates(tmp_path):
    """A recording of two signals with time stamps of their own."""
    values = {"fast": [(at / 2, at / 2) for at in range(5)], "slow": [(0.0, 10.0), (1.25, 11.0)]}
    return recorded.machine(tmp_path / "rates", values)


def test_a_row_has_the_samples_of_its_instant_and_no_others(two_rates):
    rows = [(row.time_ns - T0, row.values, row.quality) for row in source_of(two_rates).rows()]
    half, good = NS_PER_S // 2, (GOOD, NO_SAMPLE)
    assert rows == [
        (0, (0.0, 10.0), (GOOD, GOOD)),
        (half, (0.5, None), good),
        (2 * half, (1.0, None), good),
        (NS_PER_S * 5 // 4, (None, 11.0), (NO_SAMPLE, GOOD)),
        (3 * half, (1.5, None), good),
        (4 * half, (2.0, None), good),
    ]


async def test_rows_come_at_their_times_divided_by_the_speed(two_rates):
    rows = await played(source_of(two_rates), Playback(2, TimestampMode.ORIGINAL), 10)
    assert seconds(rows) == [0, 0.25, 0.5, 0.625, 0.75, 1.0]
    assert [row.time_ns for _, row in rows][1] == T0 + NS_PER_S // 2
    shifted = await played(source_of(two_rates), Playback(2, TimestampMode.SHIFTED), 10)
    assert [row.time_ns for _, row in shifted] == [at_ns for at_ns, _ in shifted]
    assert [row.values for _, row in shifted] == [row.values for _, row in rows]


async def test_a_part_is_sought_by_a_duration_or_an_instant(two_rates):
    begin, end = text_of(T0 + NS_PER_S), text_of(T0 + NS_PER_S * 3 // 2)
    part = source_of(two_rates, part=Part(skip_s=1.0, end=end))
    assert [row.values for row in part.rows()] == [(1.0, None), (None, 11.0)]
    same = source_of(two_rates, part=Part(begin=begin, end=end))
    assert list(same.rows()) == list(part.rows())
    assert seconds(await played(part, Playback(), 10)) == [0, 0.25]
    with pytest.raises(Invalid, match=r"no sample of .* lies from"):
        source_of(two_rates, part=Part(skip_s=5.0))
    with pytest.raises(Invalid, match="no length"):
        source_of(two_rates, part=Part(begin=end, end=begin))
    with pytest.raises(Invalid, match="--skip and --from at once"):
        source_of(two_rates, part=Part(skip_s=1.0, begin=begin))


def test_a_loop_goes_on_with_later_time_stamps(two_rates):
    source = source_of(two_rates, part=Part(end=text_of(T0 + NS_PER_S * 9 // 10)))
    rows = list(itertools.islice(RepeatedSource(source).rows(), 5))
    half = NS_PER_S // 2
    assert [row.time_ns - T0 for row in rows] == [0, half, 2 * half, 3 * half, 4 * half]
    assert rows[3].quality == (GOOD, NO_SAMPLE)


async def test_several_recordings_share_one_clock(tmp_path):
    pump = recorded.machine(tmp_path / "pump", {"a": [(0.0, 1.0), (1.0, 2.0), (3.0, 3.0)]})
    later_ns = T0 + NS_PER_S
    press = recorded.machine(tmp_path / "press", {"b": [(0.0, 8.0), (1.5, 9.0)]}, from_ns=later_ns)
    source = source_of(pump, press)
    assert [each.name for each in source.objects] == ["rig", "rig-2"]
    rows = await played(source, Playback(times=TimestampMode.ORIGINAL), 10)
    assert seconds(rows) == [0, 1, 2.5, 3]
    assert [row.values for _, row in rows] == [(1.0, None), (2.0, 8.0), (None, 9.0), (3.0, None)]
    together = source_of(pump, press, align="start")
    rows = await played(together, Playback(times=TimestampMode.ORIGINAL), 10)
    assert seconds(rows) == [0, 1, 1.5, 3]
    assert rows[0][1].values == (1.0, 8.0)
    assert rows[2][1].time_ns == T0 + 3 * NS_PER_S // 2
    with pytest.raises(Invalid, match="alignment"):
        source_of(pump, press, align="end")


def test_labels_are_no_signals_and_hold_until_the_next(tmp_path):
    source = source_of(recorded.labelled(tmp_path / "labelled"))
    assert [signal.name for signal in source.signals] == ["Pressure"]
    assert [each.name for each in source.objects] == ["rig"]
    rows = [(row.values, row.anomaly, row.cause) for row in source.rows()]
    assert rows == [
        ((0.0,), False, ""),
        ((1.0,), False, ""),
        ((2.0,), True, "valve"),
        ((3.0,), True, "valve"),
        ((4.0,), False, ""),
        ((5.0,), False, ""),
    ]


async def test_quality_and_every_dtype_reach_an_opc_ua_client(tmp_path):
    source = source_of(recorded.every_kind(tmp_path / "every"))
    kinds = {
        ua.StatusCodes.Good: GOOD,
        ua.StatusCodes.Uncertain: UNCERTAIN,
        ua.StatusCodes.Bad: BAD,
    }
    seen = []
    async with opcua.serve_objects("Rig", source.objects) as face, Client(face.url) as client:
        index = await client.get_namespace_index(opcua.NAMESPACE)
        for row in source.rows():
            await face.offer([row])
            values = [
                await client.get_node(ua.NodeId(f"Rig.{signal.name}", index)).read_data_value(
                    raise_on_bad_status=False
                )
                for signal in source.signals
            ]
            seen.append([(kinds.get(each.StatusCode.value), each.Value.Value) for each in values])
    waiting = (None, None)
    assert seen[0] == [(GOOD, 1.5), waiting, (GOOD, True), waiting, waiting]
    assert seen[1] == [(BAD, None), (GOOD, BIG), (GOOD, True), waiting, waiting]
    assert [each[0] for each in seen[2:4]] == [(UNCERTAIN, 0.1 + 0.2), (GOOD, -0.0)]
    assert [each[3] for each in seen[3:]] == [(GOOD, "it's 5 µm"), (BAD, None), (GOOD, "")]


def test_a_recording_that_was_changed_or_whose_grant_ended_is_not_played(tmp_path):
    changed = recorded.every_kind(tmp_path / "changed")
    (changed.path / "gaps.parquet").write_bytes(b"")
    with pytest.raises(Invalid, match=r"gaps\.parquet"):
        source_of(changed)
    until = text_of(T0 + 20 * NS_PER_S)
    grant = CoveringGrant(id=7, purpose="p", decided_by="fay", from_=None, until=until)
    path = tmp_path / "granted"
    with (
        bundle.create(path, recorded.facts("granted")) as writer,
        writer.stream(recorded.SPEC, recorded.Source.LIVE, grants=[grant]) as table,
    ):
        table.append(recorded.SAMPLES)
    assert recording_replay.source([path], SteppedClock(T0 + 19 * NS_PER_S)).signals
    with pytest.raises(NotGranted, match=f"grant 7, under which {RIG} was read, has ended"):
        recording_replay.source([path], SteppedClock(T0 + 20 * NS_PER_S))
