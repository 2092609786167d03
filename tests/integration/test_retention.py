"""Retention and deletion over real tables and both stores: the deleted samples and their proofs."""

import asyncio
from dataclasses import dataclass, replace

import numpy as np
import pytest

from broker import clock
from broker.batch import Gap, Series
from broker.clock import NS_PER_S, SteppedClock
from broker.errors import Forbidden, Unavailable
from broker.messages import Held
from broker.namespace import StreamAddress
from broker.streams import Signal, StreamSpec
from testbed_api.recorder.ledger import DeadLetter, FlushEntries, Ledger, StreamEpoch, StreamSpan
from testbed_api.registry.engine import open_engine
from testbed_api.retention import enforcer, fingerprint
from testbed_api.retention.deletions import (
    Deletion,
    Deletions,
    EndedSpan,
    Reason,
    StoredSpan,
)
from testbed_api.retention.enforcer import DAY_S, HOUR_S, RetentionEnforcer
from testbed_api.retention.fingerprint import EARLIEST_NS, LATEST_NS
from testbed_api.stores import duckdb, influxdb
from testbed_api.stores.port import Block, SeriesStore

NOW_NS = clock.ns_of("2026-11-23T12:34:56Z")
RIG = StreamAddress("factory", "pump-rig", "rig")
FIRST = StreamSpec(RIG, (Signal("Pressure"), Signal("Current")), 1)
SPEC = StreamSpec(RIG, (Signal("Flow"), Signal("Pressure")), 2)
LIFE = StreamEpoch("live", RIG, "e1")


@dataclass(frozen=True, slots=True)
class Bed:
    store: SeriesStore
    ledger: Ledger
    keeper: RetentionEnforcer
    clock: SteppedClock

    async def times(self, space="live"):
        """The times of each signal."""
        specs = await self.keeper.deletions.specs(space, RIG)
        times = {}
        frames = fingerprint.samples(self.store, specs, space, from_ns=EARLIEST_NS, to_ns=LATEST_NS)
        async for frame in frames:
            for name, series in frame.series():
                times.setdefault(name, []).extend(series.time_ns.tolist())
        return times

    async def gaps(self):
        return await self.ledger.gaps("live", RIG, EARLIEST_NS, LATEST_NS)

    async def proofs(self):
        return await self.keeper.deletions.listed("live", RIG, 0, 100)


@pytest.fixture(params=["duckdb", "influxdb"])
def opened(request, tmp_path):
    if request.param == "duckdb":
        return duckdb.open(tmp_path / "samples.duckdb")
    server = request.getfixturevalue("influxd")
    return influxdb.open(
        server.url, token=server.token, organisation=server.organisation, bucket=tmp_path.name
    )


@pytest.fixture
async def bed(opened, tmp_path):
    """Ten days of a sample an hour; `Current` ended with the first spec."""
    async with open_engine(tmp_path) as engine, opened as store:
        ledger, time = Ledger(engine), SteppedClock(NOW_NS)
        for space in ("live", "run-1"):
            for spec in (FIRST, SPEC):
                await ledger.keep_specs([(space, spec)], 0)
            await write(store, space, FIRST, "Current", 10 * 24, 9 * 24)
            await write(store, space, SPEC, "Pressure", 10 * 24, 0)
        yield Bed(store, ledger, RetentionEnforcer(store, Deletions(engine), time), time)


async def write(store, space, spec, name, since_h, until_h):
    times = ago_ns(np.arange(since_h, until_h, -1, dtype=np.int64))
    columns = Series(times, times / NS_PER_S, np.zeros(len(times), np.uint8))
    await store.write([Block.of_series(space, spec, ((name, columns),))])


def ago_ns(hours):
    return NOW_NS - hours * HOUR_S * NS_PER_S


def span(since_h, until_h, space="live"):
    return StoredSpan(space, RIG, ago_ns(since_h), ago_ns(until_h))


async def test_a_deletion_takes_the_span_and_proves_it(bed):
    wanted = span(228, 216)
    before = await fingerprint.fingerprint(
        fingerprint.samples(
            bed.store, [FIRST, SPEC], "live", from_ns=wanted.from_ns, to_ns=wanted.to_ns
        )
    )
    (proof,) = await bed.keeper.delete(wanted, by="ada", why="a trial")
    times = await bed.times()
    assert len(times["Pressure"]) == 240 - 12
    assert len(times["Current"]) == 24 - 12
    assert not [time for time in times["Pressure"] if wanted.from_ns <= time < wanted.to_ns]
    assert (proof.samples, proof.signals) == (24, {"Current": 12, "Pressure": 12})
    assert (proof.sha256, proof.by, proof.why) == (before.sha256, "ada", "a trial")
    assert (proof.reason, proof.done_ns) == (Reason.REQUEST, NOW_NS)
    assert await bed.proofs() == [proof]
    assert len((await bed.times("run-1"))["Pressure"]) == 240


async def test_the_hole_is_one_gap_with_cause_deleted(bed):
    recorded = [
        Gap(("Pressure",), ago_ns(8), ago_ns(7), "server-overflow"),
        Gap((), ago_ns(30), ago_ns(9), "gateway-down"),
        Gap((), ago_ns(3), ago_ns(2), "gateway-down"),
    ]
    await bed.ledger.commit(FlushEntries(gaps=[(LIFE, 1, gap) for gap in recorded]))
    (proof,) = await bed.keeper.delete(span(10, 4), by="ada", why="")
    assert proof.gaps == 1
    hole = Gap((), ago_ns(10), ago_ns(5), "deleted")
    assert await bed.gaps() == [recorded[1], hole, recorded[2]]
    await bed.keeper.delete(span(12, 4), by="ada", why="")
    assert await bed.gaps() == [recorded[1], replace(hole, from_ns=ago_ns(12)), recorded[2]]


async def test_dead_letters_of_the_span_go_with_it(bed):
    letters = [
        DeadLetter("live", str(RIG), "bad", signal="Pressure", time_ns=ago_ns(5)),
        DeadLetter("live", str(RIG), "not JSON", received_ns=ago_ns(5), payload=b"{"),
        DeadLetter("live", str(RIG), "bad", signal="Pressure", time_ns=ago_ns(1)),
    ]
    await bed.ledger.commit(FlushEntries(dead_letters=letters))
    (proof,) = await bed.keeper.delete(span(6, 4), by="ada", why="")
    assert proof.dead_letters == 2
    left = await bed.ledger.dead_letters(StreamSpan("live", RIG, 0, 2**63 - 1), 0, 10)
    assert [letter.time_ns for letter in left] == [ago_ns(1)]


async def test_the_id_of_a_deleted_dead_letter_is_not_used_again(bed):
    everything, ids = StreamSpan("live", RIG, 0, 2**63 - 1), []
    for _ in range(2):
        letter = DeadLetter("live", str(RIG), "bad", signal="Pressure", time_ns=ago_ns(5))
        await bed.ledger.commit(FlushEntries(dead_letters=[letter]))
        (stored,) = await bed.ledger.dead_letters(everything, 0, 10)
        await bed.keeper.delete(span(6, 4), by="ada", why="")
        ids.append(stored.id)
    assert ids[0] < ids[1]


async def test_what_is_held_stays_held(bed):
    await bed.ledger.commit(FlushEntries(held={LIFE: Held(7)}))
    await bed.keeper.delete(span(240, 0), by="ada", why="")
    assert await bed.ledger.held([LIFE]) == {LIFE: Held(7)}


async def test_deleting_nothing_is_recorded_and_leaves_no_gap(bed):
    (proof,) = await bed.keeper.delete(span(400, 300), by="ada", why="")
    assert (proof.samples, proof.first_ns, proof.done_ns) == (0, None, NOW_NS)
    assert await bed.gaps() == []


async def test_retention_takes_what_is_too_old_in_every_space(bed):
    await bed.keeper.deletions.set_retention(RIG, 7 * DAY_S)
    await bed.keeper.enforce()
    midnight = clock.ns_of("2026-11-16T00:00:00Z")
    for space in ("live", "run-1"):
        times = await bed.times(space)
        assert "Current" not in times
        assert min(times["Pressure"]) == midnight + 34 * 60 * NS_PER_S + 56 * NS_PER_S
    (proof,) = await bed.proofs()
    assert (proof.reason, proof.by) == (Reason.RETENTION, None)
    assert (proof.span.from_ns, proof.span.to_ns) == (EARLIEST_NS, midnight)
    (gap,) = await bed.gaps()
    assert (gap.from_ns, gap.cause) == (ago_ns(240), "deleted")
    assert gap.to_ns < midnight


async def test_retention_has_nothing_to_say_until_there_is_more(bed):
    await bed.keeper.deletions.set_retention(RIG, 2 * HOUR_S)
    await bed.keeper.enforce()
    await bed.keeper.enforce()
    assert len(await bed.proofs()) == 1
    await bed.clock.advance(3 * HOUR_S)
    await bed.keeper.enforce()
    first, second = await bed.proofs()
    assert (first.samples, second.samples) == (240 + 24 - 2, 2)
    (gap,) = await bed.gaps()
    assert (gap.from_ns, gap.to_ns) == (ago_ns(240), ago_ns(1))


@pytest.mark.parametrize("step_s", [-300 * DAY_S, 300 * DAY_S])
async def test_a_clock_that_is_set_makes_no_sample_too_old(bed, step_s):
    await bed.keeper.deletions.set_retention(RIG, 20 * DAY_S)
    bed.clock.set_wall(step_s)
    await bed.keeper.enforce()
    assert len((await bed.times())["Pressure"]) == 240
    assert await bed.proofs() == []


async def test_a_stream_is_kept_for_ever_unless_somebody_says_otherwise(bed):
    await bed.keeper.deletions.set_retention(RIG, HOUR_S)
    await bed.keeper.deletions.set_retention(RIG, 2 * HOUR_S)
    assert await bed.keeper.deletions.retentions() == {RIG: 2 * HOUR_S}
    await bed.keeper.deletions.set_retention(RIG, None)
    await bed.keeper.enforce()
    assert len((await bed.times())["Pressure"]) == 240


@pytest.mark.parametrize("gone", [False, True], ids=["before the store", "after the store"])
async def test_a_deletion_that_broke_off_is_brought_to_its_end(bed, gone):
    wanted = span(10, 4)
    before = await fingerprint.fingerprint(
        fingerprint.samples(bed.store, [SPEC], "live", from_ns=wanted.from_ns, to_ns=wanted.to_ns)
    )
    deletion = Deletion(span=wanted, reason=Reason.REQUEST, by="ada", why="", asked_ns=NOW_NS)
    await bed.keeper.deletions.begin(deletion.with_contents(before))
    if gone:
        await bed.store.delete("live", RIG, wanted.from_ns, wanted.to_ns)
    await bed.keeper.resume()
    (proof,) = await bed.proofs()
    assert (proof.samples, proof.sha256, proof.done_ns) == (6, before.sha256, NOW_NS)
    assert len((await bed.times())["Pressure"]) == 240 - 6
    assert await bed.gaps() == [Gap((), ago_ns(10), ago_ns(5), "deleted")]


async def test_what_comes_while_it_is_deleted_gets_a_record_of_its_own(bed):
    wanted = span(10, 4)
    deletion = Deletion(span=wanted, reason=Reason.REQUEST, by="ada", why="", asked_ns=NOW_NS)
    await bed.keeper.deletions.begin(replace(deletion, samples=1, sha256="of another time"))
    await bed.keeper.resume()
    first, second = await bed.proofs()
    assert (first.samples, second.samples) == (1, 6)
    assert first.done_ns == second.done_ns == NOW_NS


class RefilledStore:
    """A store that receives new samples after each deletion."""

    def __init__(self, store):
        self._store = store
        self.deleted = 0

    def read(self, window):
        return self._store.read(window)

    async def delete(self, *span):
        await self._store.delete(*span)
        self.deleted += 1
        await write(self._store, "live", SPEC, "Pressure", 8, 8 - self.deleted)


async def test_a_span_that_does_not_stay_empty_is_not_called_so(bed):
    keeper = RetentionEnforcer(RefilledStore(bed.store), bed.keeper.deletions, bed.clock)
    with pytest.raises(Unavailable, match="came while they were deleted"):
        await keeper.delete(span(10, 0), by="ada", why="")
    assert {proof.done_ns for proof in await bed.proofs()} == {None}
    await bed.keeper.resume()
    assert {proof.done_ns for proof in await bed.proofs()} == {NOW_NS}


class ForbiddenStore:
    """A store that refuses each read, as with a revoked token."""

    def __init__(self):
        self.reads = 0

    async def read(self, _window):
        self.reads += 1
        raise Forbidden("the token is not right")
        yield


async def test_a_store_that_refuses_does_not_end_the_server(bed):
    await bed.keeper.deletions.set_retention(RIG, HOUR_S)
    refusing = ForbiddenStore()
    async with asyncio.TaskGroup() as tasks:
        keeper = RetentionEnforcer(refusing, bed.keeper.deletions, bed.clock)
        running = tasks.create_task(keeper.run(), name="keeper")
        for looks in (1, 2):
            async with asyncio.timeout(10):
                while refusing.reads < looks:
                    await asyncio.to_thread(lambda: None)
            await bed.clock.advance(enforcer.INTERVAL_S)
        running.cancel()


def test_nothing_goes_before_its_time():
    for keep_s in (HOUR_S, DAY_S, 7 * DAY_S, 400 * DAY_S):
        late_ns = NOW_NS - keep_s * NS_PER_S - enforcer.expired_ns(NOW_NS, keep_s)
        assert 0 <= late_ns < (DAY_S if keep_s >= 7 * DAY_S else HOUR_S) * NS_PER_S


async def test_what_nobody_may_have_any_more_is_deleted_once_with_a_proof(bed):
    async def ended():
        return [EndedSpan(span(4, 0), "its grant has ended")]

    keeper = RetentionEnforcer(bed.store, bed.keeper.deletions, bed.clock, ended=ended)
    before = await bed.times()
    await keeper.remove_ended()
    await keeper.remove_ended()
    after = await bed.times()
    assert after["Pressure"] == [each for each in before["Pressure"] if each < ago_ns(4)]
    (proof,) = await bed.proofs()
    assert (proof.reason, proof.by, proof.why) == (Reason.GRANT, None, "its grant has ended")
