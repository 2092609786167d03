"""The gateway process: registers its streams, reads its machine and publishes the samples."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from broker.batch import Batch
from broker.bus import client
from broker.clock import NS_PER_S, Clock
from broker.errors import Unavailable
from broker.namespace import StreamAddress
from broker.process import tasks as process_tasks
from broker.settings import BusSettings
from gateway.links.port import SourceLink
from gateway.mapping.model import Mapping, MqttBroker
from gateway.monitoring import health, prometheus, spool_file, stats
from gateway.monitoring.stats import StatsSources
from gateway.pipeline.pipeline import Pipeline
from gateway.settings import GatewaySettings, SourceSettings
from gateway.spool import file, spool
from gateway.spool.file import SpoolUnusable
from gateway.spool.spool import Spool, SpoolSettings
from gateway.state import place, source_password
from gateway.state.layout import StateFolders
from gateway.uplink import audit_anchors
from gateway.uplink import start as gateway_start
from gateway.uplink.admission import Admission
from gateway.uplink.start import GatewayStart
from gateway.uplink.uplink import Uplink

SPOOL_RETRY_S = 0.5
"""The pause after the spool refused batches; meanwhile samples wait in the pipeline's bound."""
SPOOL, SPECS, ANCHORS, UNREAD = ".sqlite", ".specs.jsonl", ".anchors.jsonl", ".unread.json"
"""Endings of a gateway's files in the spool's folder."""
LAST_MARKS_S = 2.0
"""The longest wait for marks while the machine is not read any more."""
REOPEN_S = 1.0
"""The pause before a spool that cannot be used any further is opened again."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """The parts of one gateway process, opened and connected to one another."""

    mapping: Mapping
    admission: Admission
    state: StateFolders
    settings: GatewaySettings
    clock: Clock
    start: GatewayStart
    spool: Spool
    bus: client.Bus
    uplink: Uplink
    pipeline: Pipeline
    link: SourceLink

    @property
    def stats_sources(self) -> StatsSources:
        """The objects whose counters the statistics collect."""
        return StatsSources(
            pipeline=self.pipeline,
            uplink=self.uplink,
            link=self.link.counts,
            spool=self.spool,
            bus=self.bus,
            specs=self.start.specs,
            clock=self.clock,
            spool_limit_bytes=self.settings.spool_bytes,
        )

    async def run(self) -> None:
        """Read and publish until cancelled, then spool the rest and wait for its marks.

        The uplink outlives the link, so that marks for the last samples still arrive.
        """
        async with self._background():
            try:
                await self._read_until_stopped()
            finally:
                drained = await asyncio.shield(self._drain())
                facts = {"equipment": str(self.mapping.equipment), "drained": drained}
                await stats.log_once(self.stats_sources, "gateway ended", **facts)

    @asynccontextmanager
    async def _background(self) -> AsyncIterator[None]:
        """Run the uplink, the anchors and the statistics until the block ends."""
        mapping, settings, sources = self.mapping, self.settings, self.stats_sources
        anchors_path = _file_of(mapping, self.state, settings.space, ANCHORS)
        store_anchors = partial(audit_anchors.store, self.bus, mapping.equipment, anchors_path)
        work = {
            "uplink": self.admission.retried(self.uplink.run),
            "anchors": self.admission.retried(store_anchors),
            "admission": self.admission.check_refusals(self.bus),
            "stats": stats.log_regularly(sources, settings.log_every_s),
            "spool file": spool_file.watch(self.spool, self.pipeline, self.clock),
        }
        if not self.start.is_registered:
            work["registration"] = self._register()
        if port := settings.gateway_metrics_port:
            work["metrics"] = prometheus.serve(port, partial(stats.collect, sources))
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(coroutine, name=name) for name, coroutine in work.items()]
            try:
                yield
            finally:
                for task in running:
                    task.cancel()

    async def _register(self) -> None:
        """Register once the API is back."""
        specs_file = _file_of(self.mapping, self.state, self.settings.space, SPECS)
        alarm = await gateway_start.complete(self.admission, self.spool, specs_file)
        self.pipeline.alarm(spool_file.CONTENT, alarm or None)

    async def _read_until_stopped(self) -> None:
        """Read until cancelled, and on until all that was spooled by then is marked.

        That takes `drain_s` at most, and nothing while the broker is away: the next process sends
        what is spooled, and what nobody reads is a gap.
        """
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(self._read(), name="reading")
            try:
                await asyncio.wait([reading])
            except asyncio.CancelledError:
                if self.bus.is_connected and not reading.done():
                    marks = self.uplink.drained(self.settings.drain_s, with_later=False)
                    waiting = tasks.create_task(marks, name="marks")
                    await asyncio.wait([waiting, reading], return_when=asyncio.FIRST_COMPLETED)
                raise
            finally:
                reading.cancel()

    async def _read(self) -> None:
        """Read the machine, batch its samples and spool the batches until cancelled."""
        pipeline = self.pipeline
        publishing = health.publish(
            self.mapping, pipeline, self.uplink, self.bus, self.clock, self.settings.space
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(without_end(self.link.run(), "the link to the machine"), name="link")
            tasks.create_task(pipeline.cut_aged(), name="batch age")
            tasks.create_task(publishing, name="health")
            while True:
                await self._spool_batches(await pipeline.ready_batches())

    async def _spool_batches(self, ready: Sequence[tuple[StreamAddress, Batch]]) -> None:
        """Spool batches; those that the disk does not take become gaps of the next batch."""
        try:
            await self.uplink.send(ready)
        except Unavailable as exc:
            self.pipeline.alarm("spool", str(exc))
            self.pipeline.state_unspooled(ready)
            await self.clock.sleep(SPOOL_RETRY_S)
        else:
            self.pipeline.alarm("spool", None)

    async def _drain(self) -> bool:
        """Spool and send the rest; True if the recorder marks all of it soon."""
        try:
            await self.uplink.send(self.pipeline.remaining())
            if not self.bus.is_connected:
                return False  # the next process sends it
            return await self.uplink.drained(min(self.settings.drain_s, LAST_MARKS_S))
        except (Unavailable, SpoolUnusable) as exc:
            log.error("last batches were not spooled", reason=str(exc))  # noqa: TRY400 - the reason says it
            return False


async def run(
    mapping: Mapping,
    state: StateFolders,
    *,
    settings: GatewaySettings,
    bus_settings: BusSettings,
    clock: Clock,
    takes_over: bool = False,
) -> None:
    """Run a gateway until cancelled; then spool what is left and wait for its marks.

    Every line that it logs names the equipment.  takes_over: whether a process elsewhere that is
    this gateway loses its connection.  Raises Refused where only a person can help: the API does
    not accept the credential, the equipment or a spec, the source lets nobody in, or this gateway
    runs elsewhere.
    """
    structlog.contextvars.bind_contextvars(equipment=str(mapping.equipment))
    log.info("gateway is starting", space=settings.space, state=_folders_text(state))
    path = _file_of(mapping, state, settings.space, SPOOL)

    async def live(damage: str) -> None:
        async with _open_spool(path, settings, mapping, damage) as store:
            process = place.process_identity(file.lock_of(path), clock, takes_over=takes_over)
            admission = Admission(
                mapping=mapping,
                settings=settings,
                bus_settings=bus_settings,
                clock=clock,
                process=process,
            )
            await _run_on(store, admission, state)

    unusable = await _unusable(live(""))
    while unusable is not None:
        log.error("spool is opened anew", reason=unusable.message)
        await clock.sleep(REOPEN_S)
        unusable = await _unusable(live(unusable.message if unusable.is_damaged else ""))


async def _unusable(life: Coroutine[None, None, None]) -> SpoolUnusable | None:
    """Await a life of a gateway; returns the error if it ended for its spool alone, else None."""
    try:
        await life
    except SpoolUnusable as exc:
        return exc
    except ExceptionGroup as group:
        unusable, others = group.split(SpoolUnusable)
        task = asyncio.current_task()
        is_stopped = task is not None and task.cancelling() > 0
        if unusable is None or others is not None or is_stopped:
            raise
        first = process_tasks.first_failure(unusable)
        return first if isinstance(first, SpoolUnusable) else None
    return None


async def _run_on(store: Spool, admission: Admission, state: StateFolders) -> None:
    """Run a gateway on an open spool until cancelled."""
    specs_file = _file_of(admission.mapping, state, admission.settings.space, SPECS)
    start = await gateway_start.begin(admission, store, specs_file)
    async with AsyncExitStack() as stack:
        gateway = await build_gateway(stack, admission, store, start, state)
        log.info("gateway was started", streams=len(start.specs), registered=start.is_registered)
        await gateway.run()


def _folders_text(state: StateFolders) -> str:
    """The sentence that says where the state of a gateway lies."""
    return f"spool in {state.spool}, identity in {state.identity}, certificates in {state.pki}"


async def build_gateway(
    stack: AsyncExitStack,
    admission: Admission,
    store: Spool,
    start: GatewayStart,
    state: StateFolders,
) -> Gateway:
    """Open the bus, and connect the parts of a gateway.  stack: closes what is opened here."""
    mapping, settings, clock = admission.mapping, admission.settings, admission.clock
    bus = await stack.enter_async_context(_open_bus(admission))
    space, specs = settings.space, start.specs
    uplink = Uplink(
        bus, store, clock, space=space, specs=specs, fresh_batches=settings.fresh_batches
    )
    pipeline = Pipeline(
        mapping,
        specs,
        clock=clock,
        space=space,
        most_waiting=settings.waiting_samples,
        stamps=[await store.stamps(str(spec.address)) for spec in specs],
    )
    pipeline.lost = {at for at, spec in enumerate(specs) if str(spec.address) in start.lost}
    pipeline.alarm(spool_file.CONTENT, start.alarm or None)
    return Gateway(
        mapping=mapping,
        admission=admission,
        state=state,
        settings=settings,
        clock=clock,
        start=start,
        spool=store,
        bus=bus,
        uplink=uplink,
        pipeline=pipeline,
        link=_link_of(admission, pipeline, state),
    )


def _open_bus(admission: Admission) -> AbstractAsyncContextManager[client.Bus]:
    """The connection of a gateway, under the client id of this process."""
    client_id = admission.process.client_id(admission.role)
    return client.open(admission.bus_settings, admission.clock, client_id=client_id)


def _open_spool(
    path: Path, settings: GatewaySettings, mapping: Mapping, damage: str
) -> AbstractAsyncContextManager[Spool]:
    limits = SpoolSettings(
        most_bytes=settings.spool_bytes,
        keep_marked_s=settings.spool_keep_s,
        least_free_bytes=settings.spool_free_bytes,
        ahead_ns=round(mapping.time_stamps.ahead_s * NS_PER_S),
    )
    return spool.open(path, epoch=secrets.token_hex(13), settings=limits, damage=damage)


def _file_of(mapping: Mapping, state: StateFolders, space: str, suffix: str) -> Path:
    """A file of this gateway in the spool's folder."""
    machine = mapping.equipment
    return state.spool / f"{machine.organisation}.{machine.equipment}.{space}{suffix}"


def _link_of(admission: Admission, pipeline: Pipeline, state: StateFolders) -> SourceLink:
    """The link of a gateway to its source."""
    mapping, settings = admission.mapping, admission.settings
    return build_link(
        mapping,
        pipeline,
        admission.clock,
        state.pki,
        waiting_messages=settings.waiting_messages,
        unread_file=_file_of(mapping, state, settings.space, UNREAD),
    )


def build_link(
    mapping: Mapping,
    pipeline: Pipeline,
    clock: Clock,
    pki: Path,
    *,
    waiting_messages: int,
    unread_file: Path | None = None,
) -> SourceLink:
    """Build the link that a mapping's source needs; only that protocol's code is imported.

    pki: folder of OPC UA certificates.  unread_file: keeps OPC UA signals that could not be read.
    """
    password = source_password.of_mapping(mapping, SourceSettings())
    if isinstance(mapping.source, MqttBroker):
        from gateway.links.mqtt.link import MqttLink  # noqa: PLC0415 - see the docstring

        return MqttLink(
            mapping, mapping.source, password, pipeline, clock, waiting_messages=waiting_messages
        )
    from gateway.links.opcua.link import OpcUaLink  # noqa: PLC0415 - see the docstring
    from gateway.links.opcua.security import ClientCredentials  # noqa: PLC0415 - see the docstring

    if mapping.source.security is None:
        log.warning("server is read without security", url=mapping.source.url, asked_by="mapping")
    credentials = ClientCredentials.from_folder(pki, password, clock)
    return OpcUaLink(mapping, pipeline, clock, credentials, unread_file)


async def without_end(work: Coroutine[None, None, None], name: str) -> None:
    """Await a coroutine that never returns; raises Unavailable if it does, to end the gateway."""
    await work
    raise Unavailable(
        f"{name} ended by itself", hint="start the gateway again, and report it: that is a defect"
    )
