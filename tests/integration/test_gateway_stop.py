"""A gateway that is stopped: it reads on while it waits, and does not wait in vain."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr

from broker.bus import client
from broker.clock import HOUR_S, NS_PER_S, Clock, WallClock
from broker.process_identity import ProcessIdentity
from broker.settings import BusSettings
from gateway.links.counts import LinkCounts
from gateway.links.port import Sink
from gateway.mapping import file as mapping_file
from gateway.pipeline.pipeline import Pipeline
from gateway.samples import Samples, StreamSamples
from gateway.service import Gateway
from gateway.settings import GatewaySettings
from gateway.spool.spool import Spool
from gateway.state.layout import StateFolders
from gateway.uplink.admission import Admission
from gateway.uplink.start import GatewayStart
from gateway.uplink.uplink import Uplink
from tests.integration.test_gateway_uplink import opened

CLOCK = WallClock()


class SetClock(WallClock):
    """A machine's clock whose wall time can be set.  ahead_s: of the real one."""

    ahead_s = 0

    def now_ns(self) -> int:
        return super().now_ns() + self.ahead_s * NS_PER_S


MAPPING = mapping_file.read(
    """\
organisation: o
equipment: e
kind: real
mqtt: {url: "mqtt://127.0.0.1:1"}
streams:
  s:
    batch: {age_s: 0}
    signals:
      a: {topic: t/a}
""",
    "m.yaml",
)


class TickingLink:
    """A link to a machine that gives a sample every 20 ms."""

    def __init__(self, sink: Sink) -> None:
        self.counts = LinkCounts()
        self._sink = sink

    async def run(self) -> None:
        while True:
            now = np.array([CLOCK.now_ns()])
            samples = Samples(np.zeros(1, np.int32), now, np.ones(1), np.zeros(1, np.uint8))
            await self._sink.take([StreamSamples(0, samples, fresh=False)])
            await CLOCK.sleep(0.02)


def running(
    folder: Path, disk_spool: Spool, bus: client.Bus, drain_s: float, clock: Clock = CLOCK
) -> Gateway:
    """A gateway on a real spool and bus."""
    settings = GatewaySettings(drain_s=drain_s)
    specs = [stream.spec.numbered(1) for stream in MAPPING.streams]
    pipeline = Pipeline(MAPPING, specs, clock=clock, space="live", most_waiting=10_000)
    return Gateway(
        mapping=MAPPING,
        admission=Admission(
            mapping=MAPPING,
            settings=settings,
            bus_settings=BusSettings(credential=SecretStr("ada.x")),
            clock=clock,
            process=ProcessIdentity(host="here", place="0" * 12, started_ms=1),
        ),
        state=StateFolders(spool=folder, identity=folder, pki=folder),
        settings=settings,
        clock=clock,
        start=GatewayStart(specs=specs, lost=(), is_registered=True),
        spool=disk_spool,
        bus=bus,
        uplink=Uplink(bus, disk_spool, clock, space="live", specs=specs),
        pipeline=pipeline,
        link=TickingLink(pipeline),
    )


async def stopped(gateway: Gateway, *, after_s: float, step_s: int = 0) -> tuple[int, float]:
    """Run a gateway, and stop it: (instant of the stop, how long it took in s).

    step_s: by which its clock is set before.
    """
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(gateway.run(), name="gateway")
        await CLOCK.sleep(after_s)
        if isinstance(gateway.clock, SetClock):
            gateway.clock.ahead_s = step_s
        since_ns = CLOCK.now_ns()
        reading.cancel()
    return since_ns, (CLOCK.now_ns() - since_ns) / NS_PER_S


@pytest.mark.parametrize("step_s", [0, -HOUR_S])
async def test_a_gateway_that_is_stopped_reads_on_while_it_waits_for_marks(
    tmp_path: Path, step_s: int
) -> None:
    async with asyncio.timeout(15), opened(tmp_path) as (bus, disk_spool, _):
        await bus.ready()
        gateway = running(tmp_path, disk_spool, bus, drain_s=1.0, clock=SetClock())
        since_ns, took_s = await stopped(gateway, after_s=0.5, step_s=step_s)
        assert 1.0 <= took_s < 5.0  # nobody marks anything here
        last_ns = (await disk_spool.stamps("o/e/s")).last_ns
        assert last_ns is not None
        assert last_ns > since_ns + 0.8 * NS_PER_S


async def test_a_gateway_whose_broker_is_away_stops_at_once(tmp_path: Path) -> None:
    async with asyncio.timeout(15), opened(tmp_path) as (_, disk_spool, _):
        nowhere = BusSettings(broker="mqtt://127.0.0.1:9", credential=SecretStr(f"ada.{'A' * 43}"))
        async with client.open(nowhere, CLOCK, client_id="ada") as bus:
            gateway = running(tmp_path, disk_spool, bus, drain_s=10.0)
            since_ns, took_s = await stopped(gateway, after_s=0.5)
        assert took_s < 5.0
        last_ns = (await disk_spool.stamps("o/e/s")).last_ns
        assert last_ns is not None
        assert abs(last_ns - since_ns) < NS_PER_S
