"""Connect requests are answered in time, while samples flow and others read what is stored."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import numpy as np
import pytest

from broker import codec
from broker.batch import Batch, EquipmentKind, Source, Wide
from broker.clock import NS_PER_S
from broker.namespace import EquipmentAddress, StreamAddress
from broker.streams import Signal, StreamSpec
from tests.probes import live as living
from tests.probes import results, wire
from tests.probes.backends import BACKENDS
from tests.probes.live import CLOCK, GUESTS, Live
from tests.probes.test_silence import CROWDED

LINE = EquipmentAddress("factory", "line")
STREAMS = [StreamAddress("factory", "line", f"s{at}") for at in range(100)]
RATE_HZ = 10
EVERY_S = 0.5
"""A batch of each stream, as a gateway sends them unless told otherwise."""
TOGETHER = 10
"""Streams whose batches are sent at once."""
READERS = 10
WARM_S = 2.0
PAUSE_S = 0.1
CALLOUT_S = 0.2


@dataclass
class Load:
    """The reference load, and what came of it: samples sent, and reads by each reader."""

    live: Live
    began_s: float = 0.0
    sent: int = 0
    reads: list[int] = field(default_factory=lambda: [0] * READERS)

    @property
    def kept_up(self) -> float:
        """The share of the samples that were due which was sent."""
        return self.sent / (len(STREAMS) * RATE_HZ * (living.now_s() - self.began_s))

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """While this lasts, from when samples are sent and each reader has been answered once."""
        door = self.live.owner
        await door.register_equipment(LINE, name="line", kind=EquipmentKind.SIMULATED)
        await door.register_specs([StreamSpec(stream, (Signal("p"),)) for stream in STREAMS])
        body = {"principal": "line-gateway", "equipment": str(LINE)}
        gateway = (await door.request("POST", "/credentials", json=body))["credential"]
        reader = await personal(self.live)
        self.began_s = living.now_s()
        async with asyncio.TaskGroup() as tasks:
            jobs = [self._publish(gateway), *(self._read(reader, at) for at in range(READERS))]
            working = [tasks.create_task(each, name=f"load {at}") for at, each in enumerate(jobs)]
            try:
                while not (self.sent and all(self.reads)):
                    await CLOCK.sleep(PAUSE_S)
                yield
            finally:
                for task in working:
                    task.cancel()

    async def _publish(self, gateway: str) -> None:
        parts = len(STREAMS) // TOGETHER
        async with wire.opened(self.live.broker, gateway) as line:
            tick = 0
            while True:
                due_s = self.began_s + tick * EVERY_S / parts
                await CLOCK.sleep(due_s - living.now_s())
                seq, part = divmod(tick, parts)
                these = STREAMS[part * TOGETHER : (part + 1) * TOGETHER]
                await line.publish(
                    [(f"tb1/live/data/{each}", _batch(seq + 1), False) for each in these]
                )
                self.sent += round(len(these) * RATE_HZ * EVERY_S)
                tick += 1

    async def _read(self, credential: str, reader: int) -> None:
        """The last hour of one stream after the other, as a plot asks for it."""
        url, headers = self.live.server.url, {"Authorization": f"Bearer {credential}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as http:
            while True:
                at = (self.reads[reader] * READERS + reader) % len(STREAMS)
                path = f"/api/v1/streams/{STREAMS[at]}/history"
                answer = await http.get(path, params={"points": 1_000})
                assert answer.status_code == 200, answer.text
                self.reads[reader] += 1


def _batch(seq: int) -> bytes:
    """The samples since the one before."""
    now_ns = CLOCK.now_ns()
    count = round(RATE_HZ * EVERY_S)
    times = now_ns - np.arange(count, dtype=np.int64)[::-1] * (NS_PER_S // RATE_HZ)
    frame = Wide(times, {"p": np.arange(count) + float(seq * count)})
    return codec.encode(Batch(1, (frame,), Source.SIMULATED, now_ns, "reference-load", seq))


async def personal(live: Live) -> str:
    """Another token of the owner, whose rights are the most to be loaded: all streams."""
    created = await live.owner.request("POST", "/tokens", json={"label": "under load"})
    return str(created["credential"])


@pytest.mark.alone
@pytest.mark.timeout(3_600)
async def test_the_door_is_answered_in_time_under_the_reference_load(tmp_path, request):
    """A company's machine and the owner of all streams connect in turn, from CONNECT to CONNACK."""
    trials = int(request.config.getoption("--trials"))
    keep = request.config.getoption("--keep-results")
    found_ms = []
    async with BACKENDS["nats"](tmp_path, request) as server, living.playing(server) as live:
        load = Load(live)
        await live.grant(GUESTS[0])
        knockers = (live.readers[GUESTS[0]], await personal(live))
        async with load.flowing():
            await CLOCK.sleep(WARM_S)
            before = sum(load.reads)
            for at in range(trials):
                async with wire.opened(live.broker, knockers[at % len(knockers)]) as line:
                    found_ms.append(line.let_in_s * 1_000)
                await CLOCK.sleep(PAUSE_S)
            kept_up, reads = load.kept_up, sum(load.reads) - before
    percentiles = living.percentiles(found_ms)
    percentiles |= {"most": round(max(found_ms), 1), "trials": len(found_ms)}
    if keep:
        results.keep({"callout_ms": percentiles})
    assert kept_up > 0.9
    assert reads
    assert percentiles["p99"] <= CALLOUT_S * 1_000 * (1 if keep else CROWDED), percentiles
