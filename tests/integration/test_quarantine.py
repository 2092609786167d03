"""What the store does not take holds up its own organisation and no other."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import numpy as np
import pytest
from pydantic import SecretStr

from broker import codec, messages, namespace
from broker.backends.nats import server
from broker.batch import Batch, EquipmentKind, Gap, Source, Wide
from broker.bus import client
from broker.clock import NS_PER_S, WallClock
from broker.credential import Credential
from broker.errors import Partial, Unavailable
from broker.messages import Held
from broker.namespace import MarkTopic, StreamAddress, StreamTopic, Verb
from broker.settings import BusSettings
from broker.streams import Signal, StreamSpec
from testbed_api.recorder import lost_gaps, overdue_specs
from testbed_api.recorder.ledger import Ledger, StreamEpoch, StreamSpan
from testbed_api.recorder.overdue_specs import RegistryLookups
from testbed_api.recorder.recorder import Recorder, RecorderPace
from testbed_api.recorder.time_limits import MOST_NEW_WEEKS, MOST_WEEKS, WEEK_NS
from testbed_api.registry.engine import open_engine
from testbed_api.stores import duckdb, influxdb
from testbed_api.stores.port import Window

CLOCK = WallClock()
GOOD, BARRED = (
    StreamSpec(StreamAddress(name, "pump", "rig"), (Signal("a"),)) for name in ("good", "barred")
)
PARTY = Credential("party", "a-secret-that-is-long-enough")
REGISTERED = [GOOD, BARRED]
BUCKET = "withholding"
PACE = RecorderPace(gather_s=0.05)


async def answer(_request):
    everything = frozenset({f"{namespace.ROOT}/#"})
    return server.Permissions(everything, everything)


@asynccontextmanager
async def recording(folder, opening, pace=PACE):
    """A recorder over a store, and somebody who publishes: (bus, store, ledger, recorder).

    opening: of the store.
    """
    async with (
        server.embedded(folder / "broker", clock=CLOCK).serve(answer) as nats,
        open_engine(folder) as engine,
        opening as store,
    ):
        settings = BusSettings(broker=f"mqtt://{nats.mqtt}", credential=SecretStr(PARTY.text))
        async with (
            client.open(settings, CLOCK, client_id="party--r", durable=True) as bus,
            client.open(settings, CLOCK, client_id="party") as out,
            asyncio.TaskGroup() as tasks,
        ):
            await out.ready()
            recorder = Recorder(
                bus,
                store=store,
                ledger=Ledger(engine),
                registry=RegistryLookups(simulated, registered),
                organisations=organisations,
                clock=CLOCK,
                pace=pace,
            )
            running = tasks.create_task(recorder.run(), name="recorder")
            await bus.ready()
            for spec in (GOOD, BARRED):
                topic = StreamTopic("run-a", Verb.SPEC, spec.address)
                await out.publish(str(topic), messages.encode_spec(spec), retain=True)
            yield out, store, Ledger(engine), recorder
            running.cancel()


def in_buckets(influxd):
    """InfluxDB as a store."""
    return influxdb.open(
        influxd.url, token=influxd.token, organisation=influxd.organisation, bucket=BUCKET
    )


async def organisations():
    return [spec.address.organisation for spec in (GOOD, BARRED)]


async def registered(wanted):
    return [spec for spec in REGISTERED if (spec.address, spec.version) in wanted]


async def simulated(_equipment):
    return EquipmentKind.SIMULATED


async def publish(out, spec, seq, epoch="e1", gaps=()):
    frame = Wide(np.array([seq or 0], np.int64), {"a": np.array([1.0])})
    epoch = epoch if seq else None
    batch = Batch(1, (frame,), Source.SIMULATED, CLOCK.now_ns(), epoch, seq, gaps)
    await out.publish(str(StreamTopic("run-a", Verb.DATA, spec.address)), codec.encode(batch))


async def marked(inbox, upto):
    """Until a mark says that all up to a sequence number is held."""
    async with asyncio.timeout(10):
        async for message in inbox:
            streams = messages.decode_mark(message.payload).streams
            if Held.from_ranges([(1, upto)]) in streams.get(GOOD.address.stream, {}).values():
                return


async def publish_weeks(out, spec, weeks):
    """A sample in each of so many weeks, each in a message of its own."""
    for week in range(weeks):
        frame = Wide(np.array([week * WEEK_NS], np.int64), {"a": np.array([1.0])})
        batch = Batch(1, (frame,), Source.SIMULATED, CLOCK.now_ns(), "weeks", week + 1)
        await out.publish(str(StreamTopic("run-a", Verb.DATA, spec.address)), codec.encode(batch))


async def times(store, spec):
    window = Window("run-a", spec, ("a",), -1, 2**60)
    return [time async for frame in store.read(window) for time in frame.time_ns.tolist()]


async def bucket_of(influxd, name, *, there):
    """Somebody else's bucket of that name, with something in it; or no longer."""
    headers = {"Authorization": f"Token {influxd.token}"}
    async with httpx.AsyncClient(base_url=influxd.url, headers=headers) as http:
        if there:
            [org] = (await http.get("/api/v2/orgs")).json()["orgs"]
            body = {"orgID": org["id"], "name": name}
            (await http.post("/api/v2/buckets", json=body)).raise_for_status()
            params = {"org": influxd.organisation, "bucket": name}
            answered = await http.post("/api/v2/write", params=params, content=b"theirs a=1 1")
        else:
            buckets = (await http.get("/api/v2/buckets", params={"name": name})).json()["buckets"]
            answered = await http.delete(f"/api/v2/buckets/{buckets[0]['id']}")
        answered.raise_for_status()


@pytest.mark.parametrize("together", [True, False], ids=["with others", "before the others"])
async def test_what_is_barred_waits_alone_and_is_stored_when_it_may(tmp_path, influxd, together):
    barred = f"{BUCKET}-{BARRED.address.organisation}"
    await bucket_of(influxd, barred, there=True)
    try:
        async with recording(tmp_path, in_buckets(influxd)) as (out, store, ledger, recorder):
            topics = [str(MarkTopic("run-a", GOOD.address.owner))]
            async with out.subscribe(topics, capacity=100, overflow="drop_oldest") as marks:
                await publish(out, BARRED, 1)
                await publish(out, BARRED, None)  # nobody would send it again
                if not together:
                    await recorder_withheld(recorder, 2)
                for seq in range(1, 21):
                    await publish(out, GOOD, seq)
                began_s = asyncio.get_running_loop().time()
                await marked(marks, 20)
                assert asyncio.get_running_loop().time() - began_s < 3
            assert await times(store, GOOD) == list(range(1, 21))
            await recorder_withheld(recorder, 2)
            assert not recorder.interrupted
            arrival = StreamSpan("run-a", BARRED.address, 0, 2**63 - 1)
            (letter,) = await ledger.dead_letters(arrival, 0, 10)
            assert "does not take it for now" in letter.reason
            await bucket_of(influxd, barred, there=False)
            there = False
            async with asyncio.timeout(15):  # as a spool does, until it is marked
                while not there:
                    await publish(out, BARRED, 1)
                    await CLOCK.sleep(0.3)
                    there = await times(store, BARRED) == [1]
    finally:
        await bucket_of(influxd, barred, there=False)


async def recorder_withheld(recorder, count):
    await until(lambda: recorder.counts.withheld >= count)


async def until(is_so):
    async with asyncio.timeout(10):
        while not is_so():
            await CLOCK.sleep(0.02)


# --- a store that does not say whose samples it refuses -------------------------------------------


class Choosy:
    """A store in which every write fails that holds samples of one organisation."""

    def __init__(self, store):
        self.barred = BARRED.address.organisation
        self.puts_off = False
        """Whether it first refuses such blocks, and says of their parts that it may take them."""
        self.writes = 0
        self.is_reading, self.answers_reads = asyncio.Event(), asyncio.Event()
        self.answers_reads.set()
        self._store = store

    async def write(self, blocks, position=None):
        self.writes += 1
        barred = [
            (at, "no")
            for at, block in enumerate(blocks)
            if block.spec.address.organisation == self.barred
        ]
        if barred and self.puts_off:
            good = [block for at, block in enumerate(blocks) if (at, "no") not in barred]
            await self._store.write(good, position)
            if position is None:
                raise Partial("not all", rejected=(), later=barred)
            raise Partial("not all", rejected=barred)
        if barred:
            raise Unavailable("it is too much")
        await self._store.write(blocks, position)

    async def positions(self, organisations):
        return await self._store.positions(organisations)

    async def read(self, window):
        self.is_reading.set()
        await self.answers_reads.wait()
        async for frame in self._store.read(window):
            yield frame

    async def ready(self):
        await self._store.ready()


@asynccontextmanager
async def choosing(folder):
    async with duckdb.open(folder / "samples.duckdb") as store:
        yield Choosy(store)


class Counting(Choosy):
    """A store that notes the weeks of each write."""

    def __init__(self, store):
        super().__init__(store)
        self.barred = ""
        self.weeks = []

    async def write(self, blocks, position=None):
        stamps = [frame.time_ns for block in blocks for frame in block.frames]
        self.weeks.append(len(np.unique(np.concatenate(stamps) // WEEK_NS)))
        await super().write(blocks, position)


@asynccontextmanager
async def counting(folder):
    async with duckdb.open(folder / "samples.duckdb") as store:
        yield Counting(store)


@pytest.mark.parametrize("together", [True, False], ids=["with others", "before the others"])
async def test_a_flush_that_fails_is_narrowed_down_and_the_others_are_stored(tmp_path, together):
    async with recording(tmp_path, choosing(tmp_path)) as (out, store, _, recorder):
        topics = [str(MarkTopic("run-a", GOOD.address.owner))]
        async with out.subscribe(topics, capacity=100, overflow="drop_oldest") as marks:
            await publish(out, BARRED, 1)
            if not together:
                await until(lambda: recorder.interrupted)
            for seq in range(1, 6):
                await publish(out, GOOD, seq)
            await marked(marks, 5)
        assert await times(store, GOOD) == list(range(1, 6))
        await until(lambda: not recorder.interrupted)
        await recorder_withheld(recorder, 1)
        store.barred = ""
        async with asyncio.timeout(10):
            while await times(store, BARRED) != [1]:
                await publish(out, BARRED, 1)
                await CLOCK.sleep(0.3)


async def test_what_was_set_aside_and_fails_holds_up_nobody_and_is_stored_when_it_may(tmp_path):
    address = StreamAddress(BARRED.address.organisation, "pump", "late")
    late = StreamSpec(address, BARRED.signals)
    pace = replace(PACE, spec_wait_s=0.1, retry_s=0.2)
    async with recording(tmp_path, choosing(tmp_path), pace) as (out, store, ledger, recorder):
        topics = [str(MarkTopic("run-a", GOOD.address.owner))]
        async with out.subscribe(topics, capacity=100, overflow="drop_oldest") as marks:
            await publish(out, late, 1)
            await until(lambda: recorder.counts.set_aside)
            spec = str(StreamTopic("run-a", Verb.SPEC, address)), messages.encode_spec(late)
            await out.publish(*spec)
            await until(lambda: recorder.interrupted)
            await publish(out, GOOD, 1)
            await marked(marks, 1)
            assert await times(store, GOOD) == [1]
            await until(lambda: not recorder.interrupted)
            await out.publish(*spec)  # as every start of a publisher does
            await publish(out, GOOD, 2)
            await marked(marks, 2)
        assert recorder.counts.interruptions == 1
        assert (await ledger.counts())["set_aside"] == 1
        store.barred = ""
        async with asyncio.timeout(10):
            while await times(store, late) != [1]:
                await CLOCK.sleep(0.1)
            while (await ledger.counts())["set_aside"]:
                await CLOCK.sleep(0.1)


async def test_what_is_refused_and_then_put_off_goes_into_quarantine(tmp_path):
    async with recording(tmp_path, choosing(tmp_path)) as (out, store, _, recorder):
        store.puts_off = True
        topics = [str(MarkTopic("run-a", GOOD.address.owner))]
        async with out.subscribe(topics, capacity=100, overflow="drop_oldest") as marks:
            await publish(out, BARRED, 1)
            await publish(out, GOOD, 1)
            await marked(marks, 1)
        await until(lambda: recorder.counts.withheld == 1)
        assert store.writes < 10


async def test_reading_around_a_lost_gap_holds_up_nobody_who_is_stored_apart(tmp_path):
    async with recording(tmp_path, choosing(tmp_path)) as (out, store, ledger, recorder):
        await publish(out, BARRED, 1)
        await publish(out, GOOD, 1)
        await recorder_withheld(recorder, 1)
        store.barred = ""
        store.is_reading.clear()
        store.answers_reads.clear()
        await publish(out, BARRED, 1)
        await publish(out, GOOD, 2, gaps=[Gap((), 1, 2, lost_gaps.SPOOL_LOST)])
        await store.is_reading.wait()
        lives = {spec: StreamEpoch("run-a", spec.address, "e1") for spec in (GOOD, BARRED)}
        async with asyncio.timeout(10):
            while (await ledger.held([lives[BARRED]]))[lives[BARRED]] != Held(1):
                await CLOCK.sleep(0.05)
        assert (await ledger.held([lives[GOOD]]))[lives[GOOD]] == Held(1)
        store.answers_reads.set()
        async with asyncio.timeout(10):
            while (await ledger.held([lives[GOOD]]))[lives[GOOD]] != Held(2):
                await CLOCK.sleep(0.05)


async def test_a_spec_that_does_not_come_is_looked_up_in_the_registry(tmp_path, monkeypatch):
    late = StreamSpec(StreamAddress("good", "pump", "late"), GOOD.signals)
    pace = replace(PACE, spec_wait_s=60.0)
    monkeypatch.setattr(overdue_specs, "OVERDUE_NS", NS_PER_S // 5)
    REGISTERED.append(late)
    try:
        opening = duckdb.open(tmp_path / "samples.duckdb")
        async with recording(tmp_path, opening, pace) as (out, store, _, recorder):
            await publish(out, late, 1)
            async with asyncio.timeout(10):
                while await times(store, late) != [1]:
                    await CLOCK.sleep(0.05)
            assert not recorder.counts.set_aside
    finally:
        REGISTERED.remove(late)


async def test_samples_of_many_new_weeks_are_stored_apart_and_a_few_weeks_at_a_time(tmp_path):
    weeks = 5 * MOST_NEW_WEEKS
    async with recording(tmp_path, counting(tmp_path)) as (out, store, _, recorder):
        await publish_weeks(out, BARRED, weeks)
        await publish(out, GOOD, 1)
        async with asyncio.timeout(10):
            while await times(store, BARRED) != [week * WEEK_NS for week in range(weeks)]:
                await CLOCK.sleep(0.05)
        assert await times(store, GOOD) == [1]
        assert max(store.weeks) <= MOST_NEW_WEEKS
        assert not recorder.counts.withheld
        assert not recorder.counts.interruptions


async def test_what_is_too_much_to_be_set_aside_is_left_to_its_publisher(tmp_path):
    late = StreamSpec(StreamAddress(GOOD.address.organisation, "pump", "late"), GOOD.signals)
    pace = replace(PACE, spec_wait_s=0.0, most_set_aside_bytes=500)
    opening = duckdb.open(tmp_path / "samples.duckdb")
    async with recording(tmp_path, opening, pace) as (out, store, ledger, recorder):
        for seq in range(1, 11):  # not within one flush
            await publish(out, late, seq)
            await until(lambda seq=seq: recorder.counts.set_aside + recorder.counts.withheld == seq)
            await CLOCK.sleep(0.15)
        sizes = await ledger.set_aside_bytes()
        assert 250 < sizes.pop(GOOD.address.organisation) <= 500
        assert not sizes
        assert 2 <= recorder.counts.set_aside <= 8
        await out.publish(
            str(StreamTopic("run-a", Verb.SPEC, late.address)), messages.encode_spec(late)
        )
        for seq in range(1, 11):  # as a spool does, of those that were not marked
            await publish(out, late, seq)
        async with asyncio.timeout(10):
            while await times(store, late) != list(range(1, 11)):
                await CLOCK.sleep(0.1)
        assert await ledger.set_aside_bytes() == {}


async def test_samples_of_too_many_weeks_are_dead_letters_and_marked(tmp_path):
    weeks = np.arange(MOST_WEEKS + 10, dtype=np.int64) * WEEK_NS
    frame = Wide(weeks, {"a": weeks * 0.5})
    payload = codec.encode(Batch(1, (frame,), Source.SIMULATED, CLOCK.now_ns(), "e1", 1))
    opening = duckdb.open(tmp_path / "samples.duckdb")
    async with recording(tmp_path, opening) as (out, store, ledger, _):
        topics = [str(MarkTopic("run-a", GOOD.address.owner))]
        async with out.subscribe(topics, capacity=100, overflow="drop_oldest") as marks:
            await out.publish(str(StreamTopic("run-a", Verb.DATA, GOOD.address)), payload)
            await marked(marks, 1)
        assert len(await times(store, GOOD)) == MOST_WEEKS
        span = StreamSpan("run-a", GOOD.address, 0, 2**63 - 1)
        letters = await ledger.dead_letters(span, 0, 100)
        assert {letter.seq for letter in letters} == {1}
        assert sum(letter.time_ns is not None for letter in letters) == 10
