"""Playing: every row at its time, into the ledger first, none left out."""

import asyncio
from dataclasses import dataclass, field

import pytest

from broker.clock import NS_PER_S, SteppedClock, WallClock
from broker.errors import Invalid, Unavailable
from simulators import ledger, world
from simulators.model import SourceRow
from simulators.models.pump_rig import SIGNALS, PumpRig
from simulators.world import Playback, TimestampMode

START_NS = 1_700_000_000_123_456_789
FIRST_NS = START_NS // 1000 * 1000


@dataclass
class Shown:
    """A face that keeps what it is offered, and when; `slow_s` is what each offer takes it."""

    clock: SteppedClock | WallClock
    slow_s: float = 0.0
    offers: list[tuple[int, list[SourceRow]]] = field(default_factory=list)

    async def offer(self, rows):
        self.offers.append((self.clock.now_ns(), rows))
        if self.slow_s:
            await self.clock.sleep(self.slow_s)

    @property
    def rows(self):
        return [row for _, rows in self.offers for row in rows]


@dataclass(frozen=True)
class Listed:
    """A source of given instants."""

    times_ns: tuple[int, ...]
    signals: tuple = SIGNALS

    def rows(self):
        return (SourceRow(time_ns, (float(at),) * 8) for at, time_ns in enumerate(self.times_ns))


async def played(source, face, clock, pace, for_s):
    async with asyncio.TaskGroup() as tasks:
        playing = tasks.create_task(world.play(source, face, clock, pace=pace), name="playing")
        await clock.advance(for_s)
    return playing.result()


async def test_each_row_is_offered_when_it_is_due():
    clock = SteppedClock(START_NS)
    face = Shown(clock)
    source = Listed((5 * NS_PER_S, 6 * NS_PER_S, 9 * NS_PER_S))
    result = await played(source, face, clock, Playback(speed=2), 10)
    assert [at_ns - FIRST_NS for at_ns, _ in face.offers] == [789, 500_000_000, 2_000_000_000]
    assert [row.time_ns - FIRST_NS for row in face.rows] == [0, 500_000_000, 2_000_000_000]
    assert result == world.PlaybackResult(3, FIRST_NS + 2_000_000_000)


async def test_original_time_stamps_are_the_sources_whatever_the_speed():
    clock = SteppedClock(START_NS)
    face = Shown(clock)
    times_ns = (1_583_748_873_000_000_000, 1_583_748_873_000_000_000, 1_583_748_879_000_000_000)
    result = await played(Listed(times_ns), face, clock, Playback(60, TimestampMode.ORIGINAL), 1)
    assert tuple(row.time_ns for row in face.rows) == times_ns
    assert [len(rows) for _, rows in face.offers] == [2, 1]
    assert result.last_ns == times_ns[-1]


async def test_shifted_time_stamps_are_whole_microseconds():
    clock = SteppedClock(START_NS)
    face = Shown(clock)
    await played(PumpRig(count=50), face, clock, Playback(speed=7), 10)
    assert len(face.rows) == 50
    assert not any(row.time_ns % 1000 for row in face.rows)


async def test_who_falls_behind_catches_up_and_leaves_nothing_out():
    clock = SteppedClock(START_NS)
    face = Shown(clock, slow_s=3.0)
    await played(PumpRig(count=20), face, clock, Playback(), 60)
    assert [row.values for row in face.rows] == [row.values for row in PumpRig(count=20).rows()]
    assert max(len(rows) for _, rows in face.offers) == 3


async def test_a_speed_that_nothing_could_follow_holds_neither_memory_nor_event_loop():
    clock = SteppedClock(START_NS)
    face = Shown(clock)
    async with asyncio.TaskGroup() as tasks:
        endless = world.play(PumpRig(count=10**9), face, clock, pace=Playback(speed=1e12))
        playing = tasks.create_task(endless, name="playing")
        for _ in range(5):
            await clock.sleep(0)
        playing.cancel()
    assert {len(rows) for _, rows in face.offers} == {world.MOST_ROWS_AT_ONCE}


async def test_progress_is_the_number_of_rows_offered_so_far():
    clock, counts = SteppedClock(START_NS), []
    async with asyncio.TaskGroup() as tasks:
        playing = world.play(
            PumpRig(count=4), Shown(clock), clock, pace=Playback(), on_rows=counts.append
        )
        tasks.create_task(playing, name="playing")
        await clock.advance(10)
    assert counts == [1, 2, 3, 4]


async def test_a_row_is_in_the_ledger_before_anyone_sees_it(tmp_path):
    path = tmp_path / "offered.jsonl"

    class Checked(Shown):
        async def offer(self, rows):
            await super().offer(rows)
            assert list(ledger.read(path).rows) == self.rows

    clock = WallClock()
    face = Checked(clock)
    with ledger.create(path, [signal.name for signal in SIGNALS]) as book:
        await world.play(PumpRig(count=30), face, clock, pace=Playback(speed=1000), ledger=book)
    assert len(face.rows) == 30


async def test_what_the_ledger_does_not_take_is_not_offered():
    class Full:
        def append(self, rows):
            raise Unavailable(f"{len(rows)} rows do not fit")

    clock = WallClock()
    face = Shown(clock)
    with pytest.raises(Unavailable):
        await world.play(PumpRig(count=3), face, clock, pace=Playback(), ledger=Full())
    assert face.offers == []


@pytest.mark.parametrize("speed", [0, -1, float("nan"), float("inf")])
def test_a_speed_is_above_zero_and_finite(speed):
    with pytest.raises(Invalid, match="above 0"):
        Playback(speed=speed)
