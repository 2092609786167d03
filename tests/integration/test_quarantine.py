"""A bucket that the store does not give holds up its own organisation and no other."""

import asyncio
from contextlib import asynccontextmanager

import httpx
import numpy as np
import pytest
from pydantic import SecretStr

from broker import codec, messages, namespace
from broker.backends.nats import server
from broker.batch import Batch, EquipmentKind, Source, Wide
from broker.bus import client
from broker.clock import WallClock
from broker.credential import Credential
from broker.messages import Held
from broker.namespace import MarkTopic, StreamAddress, StreamTopic, Verb
from broker.settings import BusSettings
from broker.streams import Signal, StreamSpec
from testbed_api.recorder.ledger import Ledger, StreamSpan
from testbed_api.recorder.recorder import Recorder, RecorderPace
from testbed_api.registry.engine import open_engine
from testbed_api.stores import influxdb
from testbed_api.stores.port import Window

CLOCK = WallClock()
GOOD, BARRED = (
    StreamSpec(StreamAddress(name, "pump", "rig"), (Signal("a"),)) for name in ("good", "barred")
)
PARTY = Credential("party", "a-secret-that-is-long-enough")
BUCKET = "withholding"


async def answer(_request):
    everything = frozenset({f"{namespace.ROOT}/#"})
    return server.Permissions(everything, everything)


@asynccontextmanager
async def recording(folder, influxd):
    """A recorder over InfluxDB, and somebody who publishes: (bus, store, ledger, recorder)."""
    async with (
        server.embedded(folder / "broker", clock=CLOCK).serve(answer) as nats,
        open_engine(folder) as engine,
        influxdb.open(
            influxd.url, token=influxd.token, organisation=influxd.organisation, bucket=BUCKET
        ) as store,
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
                kind_of=simulated,
                organisations=organisations,
                clock=CLOCK,
                pace=RecorderPace(gather_s=0.05),
            )
            running = tasks.create_task(recorder.run(), name="recorder")
            await bus.ready()
            for spec in (GOOD, BARRED):
                topic = StreamTopic("run-a", Verb.SPEC, spec.address)
                await out.publish(str(topic), messages.encode_spec(spec), retain=True)
            yield out, store, Ledger(engine), recorder
            running.cancel()


async def organisations():
    return [spec.address.organisation for spec in (GOOD, BARRED)]


async def simulated(_equipment):
    return EquipmentKind.SIMULATED


async def publish(out, spec, seq, epoch="e1"):
    frame = Wide(np.array([seq or 0], np.int64), {"a": np.array([1.0])})
    batch = Batch(1, (frame,), Source.SIMULATED, CLOCK.now_ns(), epoch if seq else None, seq)
    await out.publish(str(StreamTopic("run-a", Verb.DATA, spec.address)), codec.encode(batch))


async def marked(inbox, upto):
    """Until a mark says that all up to a sequence number is held."""
    async with asyncio.timeout(10):
        async for message in inbox:
            streams = messages.decode_mark(message.payload).streams
            if Held.from_ranges([(1, upto)]) in streams.get(GOOD.address.stream, {}).values():
                return


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
        async with recording(tmp_path, influxd) as (out, store, ledger, recorder):
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
    async with asyncio.timeout(10):
        while recorder.counts.withheld < count:
            await CLOCK.sleep(0.02)
