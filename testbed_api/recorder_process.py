"""The recorder at work: in the server's process, or in one of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

from broker.backends.nats import storage_limits
from broker.bus import client
from broker.clock import Clock
from broker.process import metrics_server
from broker.settings import BusSettings
from testbed_api import persistence
from testbed_api.persistence import Data
from testbed_api.recorder import metrics
from testbed_api.recorder.recorder import Disk, Pace, Recorder
from testbed_api.settings import ServerSettings
from testbed_api.system_secrets import RECORDER

BEAT_S = 5.0
BROKER = "broker"
"""Folder of an embedded broker in the data folder."""
GATHER_EMBEDDED_S = 0.1
GATHER_S = 1.0
"""InfluxDB's work for a request is spread over all that is in it."""


@asynccontextmanager
async def recording(
    settings: ServerSettings, kept: Data, bus_settings: BusSettings, clock: Clock
) -> AsyncIterator[Recorder]:
    """A recorder in this process, until left."""
    async with client.open(bus_settings, clock, client_id=RECORDER, durable=True) as bus:
        recorder = _recorder(settings, bus, kept, clock)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(recorder.run(), name="recorder")
            try:
                yield recorder
            finally:
                running.cancel()


async def record(settings: ServerSettings, bus_settings: BusSettings, clock: Clock) -> None:
    """A recorder in a process of its own, until cancelled."""
    async with (
        persistence.shared(settings) as kept,
        client.open(bus_settings, clock, client_id=RECORDER, durable=True) as bus,
    ):
        recorder = _recorder(settings, bus, kept, clock)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(recorder.run(), name="recorder")
            if settings.alive_file is not None:
                beating = _beat(settings.alive_file, bus, recorder, clock)
                tasks.create_task(beating, name="alive")
            if port := settings.recorder_metrics_port:
                page = partial(_page, recorder)
                serving = metrics_server.serve(port, page, setting="TESTBED_RECORDER_METRICS_PORT")
                tasks.create_task(serving, name="metrics")


async def _page(recorder: Recorder) -> bytes:
    told = asdict(recorder.counts) | {"interrupted": int(bool(recorder.interrupted))}
    return metrics.page(told)


def _recorder(settings: ServerSettings, bus: client.Bus, kept: Data, clock: Clock) -> Recorder:
    usual_s = GATHER_EMBEDDED_S if settings.influxdb is None else GATHER_S
    pace = Pace(
        gather_s=settings.recorder_gather_s or usual_s,
        gather_bytes=settings.recorder_gather_bytes,
        inbox=settings.recorder_inbox,
        spec_wait_s=settings.recorder_spec_wait_s,
        most_waiting=settings.recorder_most_waiting,
    )
    settings.folder.mkdir(parents=True, exist_ok=True)
    return Recorder(
        bus,
        store=kept.store,
        ledger=kept.ledger,
        kind_of=kept.registry.kind_of,
        clock=clock,
        pace=pace,
        disk=Disk(settings.folder, settings.free_bytes + _broker_bytes(settings)),
    )


def _broker_bytes(settings: ServerSettings) -> int:
    """What an embedded broker may take of the same disk: recording leaves it that."""
    folder = settings.folder / BROKER
    return storage_limits.cap(folder, settings.broker_bytes) if folder.exists() else 0


async def _beat(file: Path, bus: client.Bus, recorder: Recorder, clock: Clock) -> None:
    """Touch the file while all is well; a health check looks how old it is."""
    while True:
        if bus.is_connected and not recorder.interrupted:
            await asyncio.to_thread(file.touch)
        await clock.sleep(BEAT_S)
