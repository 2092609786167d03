"""Runs the recorder: in the server's process, or in a process of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from broker.backends.nats import storage_limits
from broker.bus import client
from broker.clock import Clock
from broker.process import metrics_server
from broker.settings import BusSettings
from testbed_api import persistence
from testbed_api.persistence import Persistence
from testbed_api.recorder import metrics
from testbed_api.recorder.overdue_specs import RegistryLookups
from testbed_api.recorder.recorder import Disk, Recorder, RecorderPace
from testbed_api.security.system_secrets import RECORDER
from testbed_api.settings import ServerSettings

ALIVE_INTERVAL_S = 5.0
"""Time between two touches of the alive file."""
BROKER = "broker"
"""Folder of an embedded broker within the data folder."""
GATHER_EMBEDDED_S = 0.1
"""Time that batches are gathered before a write to DuckDB."""
GATHER_S = 1.0
"""The same for InfluxDB; longer, because large requests cost less."""


@asynccontextmanager
async def recording(
    settings: ServerSettings, data: Persistence, bus_settings: BusSettings, clock: Clock
) -> AsyncIterator[Recorder]:
    """Run a recorder in this process until the context is left."""
    async with client.open(bus_settings, clock, client_id=RECORDER, durable=True) as bus:
        recorder = _recorder(settings, bus, data, clock)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(recorder.run(), name="recorder")
            try:
                yield recorder
            finally:
                running.cancel()


async def record(settings: ServerSettings, bus_settings: BusSettings, clock: Clock) -> None:
    """Run a recorder in a process of its own until cancelled."""
    async with (
        persistence.open_for_recorder(settings, clock) as data,
        client.open(bus_settings, clock, client_id=RECORDER, durable=True) as bus,
    ):
        recorder = _recorder(settings, bus, data, clock)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(recorder.run(), name="recorder")
            if settings.alive_file is not None:
                touching = _touch_alive_file(settings.alive_file, bus, recorder, clock)
                tasks.create_task(touching, name="alive")
            if port := settings.recorder_metrics_port:
                page = partial(_metrics_page, recorder)
                serving = metrics_server.serve(port, page, setting="TESTBED_RECORDER_METRICS_PORT")
                tasks.create_task(serving, name="metrics")


async def _metrics_page(recorder: Recorder) -> bytes:
    return metrics.page(recorder.figures)


def _recorder(
    settings: ServerSettings, bus: client.Bus, data: Persistence, clock: Clock
) -> Recorder:
    usual_s = GATHER_EMBEDDED_S if settings.influxdb is None else GATHER_S
    pace = RecorderPace(
        gather_s=settings.recorder_gather_s or usual_s,
        gather_bytes=settings.recorder_gather_bytes,
        inbox=settings.recorder_inbox,
        spec_wait_s=settings.recorder_spec_wait_s,
        most_waiting=settings.recorder_most_waiting,
    )
    settings.folder.mkdir(parents=True, exist_ok=True)
    return Recorder(
        bus,
        store=data.store,
        ledger=data.ledger,
        registry=RegistryLookups(data.registry.equipment.kind, data.registry.streams.versions),
        organisations=partial(_organisations, data),
        clock=clock,
        pace=pace,
        disk=disk_of(settings),
        since_ns=data.since_ns,
    )


def disk_of(settings: ServerSettings) -> Disk:
    """The disk of the data folder, with the bytes below which recording waits."""
    return Disk(settings.folder, settings.free_bytes + _broker_bytes(settings))


async def _organisations(data: Persistence) -> list[str]:
    return [organisation.id for organisation in await data.registry.organisations.all()]


def _broker_bytes(settings: ServerSettings) -> int:
    """Bytes of the same disk that the embedded broker may use; recording leaves them free."""
    folder = settings.folder / BROKER
    return storage_limits.cap(folder, settings.broker_bytes) if folder.exists() else 0


async def _touch_alive_file(file: Path, bus: client.Bus, recorder: Recorder, clock: Clock) -> None:
    """Touch the file every 5 s while the recorder records; a health check reads its age."""
    while True:
        if bus.is_connected and not recorder.interrupted:
            await asyncio.to_thread(file.touch)
        await clock.sleep(ALIVE_INTERVAL_S)
