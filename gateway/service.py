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
from broker.clock import Clock
from broker.credential import Credential
from broker.errors import Unavailable
from broker.namespace import StreamAddress
from broker.settings import BusSettings
from broker.streams import StreamSpec
from gateway.links.port import SourceLink
from gateway.mapping.model import Mapping, MqttBroker
from gateway.monitoring import health, prometheus, stats
from gateway.monitoring.stats import StatsSources
from gateway.pipeline.pipeline import Pipeline
from gateway.settings import GatewaySettings, SourceSettings
from gateway.spool import spool
from gateway.spool.spool import Spool, SpoolSettings
from gateway.state import source_password
from gateway.state.layout import StateFolders
from gateway.uplink import audit_anchors
from gateway.uplink.admission import Admission
from gateway.uplink.uplink import Uplink

SPOOL_RETRY_S = 0.5
"""The pause after the spool refused batches; meanwhile samples wait in the pipeline's bound."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """The parts of one gateway process, opened and connected to one another."""

    mapping: Mapping
    admission: Admission
    state: StateFolders
    settings: GatewaySettings
    clock: Clock
    specs: Sequence[StreamSpec]
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
            specs=self.specs,
            clock=self.clock,
            spool_limit_bytes=self.settings.spool_bytes,
        )

    async def run(self) -> None:
        """Read and publish until cancelled, then spool the rest and wait for its marks.

        The uplink outlives the link, so that marks for the last samples still arrive.
        """
        async with self._background():
            try:
                await self._read()
            finally:
                drained = await asyncio.shield(self._drain())
                facts = {"equipment": str(self.mapping.equipment), "drained": drained}
                await stats.log_once(self.stats_sources, "gateway ended", **facts)

    @asynccontextmanager
    async def _background(self) -> AsyncIterator[None]:
        """Run the uplink, the anchors and the statistics until the block ends."""
        mapping, settings, sources = self.mapping, self.settings, self.stats_sources
        anchors_path = _file_of(mapping, self.state, settings.space, ".anchors.jsonl")
        store_anchors = partial(audit_anchors.store, self.bus, mapping.equipment, anchors_path)
        work = {
            "uplink": self.admission.retried(self.uplink.run),
            "anchors": self.admission.retried(store_anchors),
            "admission": self.admission.check_refusals(self.bus),
            "stats": stats.log_regularly(sources, settings.log_every_s),
        }
        if port := settings.gateway_metrics_port:
            work["metrics"] = prometheus.serve(port, partial(stats.collect, sources))
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(coroutine, name=name) for name, coroutine in work.items()]
            try:
                yield
            finally:
                for task in running:
                    task.cancel()

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
        """Spool and send the rest; True if the recorder marked all of it in `drain_s`."""
        try:
            await self.uplink.send(self.pipeline.remaining())
            return await self.uplink.drained(self.settings.drain_s)
        except Unavailable as exc:
            log.error("last batches were not spooled", reason=str(exc))  # noqa: TRY400 - the reason says it
            return False


async def run(
    mapping: Mapping,
    state: StateFolders,
    *,
    settings: GatewaySettings,
    bus_settings: BusSettings,
    clock: Clock,
) -> None:
    """Run a gateway until cancelled; then spool what is left and wait for its marks.

    Every line that it logs names the equipment.  Raises Refused where only a person can help: the
    API does not accept the credential, the equipment or a spec, or the source lets nobody in.
    """
    structlog.contextvars.bind_contextvars(equipment=str(mapping.equipment))
    log.info("gateway is starting", space=settings.space, state=_folders_text(state))
    admission = Admission(
        mapping=mapping, settings=settings, bus_settings=bus_settings, clock=clock
    )
    specs = await admission.register()
    async with AsyncExitStack() as stack:
        gateway = await build_gateway(stack, admission, specs, state)
        log.info("gateway was started", streams=len(specs))
        await gateway.run()


def _folders_text(state: StateFolders) -> str:
    """The sentence that says where the state of a gateway lies."""
    return f"spool in {state.spool}, identity in {state.identity}, certificates in {state.pki}"


async def build_gateway(
    stack: AsyncExitStack,
    admission: Admission,
    specs: Sequence[StreamSpec],
    state: StateFolders,
) -> Gateway:
    """Open the spool and the bus, and connect the parts of a gateway.

    stack: closes what is opened here.  specs: of the mapping's streams, as registered.
    """
    mapping, settings, clock = admission.mapping, admission.settings, admission.clock
    store = await stack.enter_async_context(_open_spool(mapping, state, settings))
    bus = await stack.enter_async_context(_open_bus(admission))
    space, fresh_batches = settings.space, settings.fresh_batches
    uplink = Uplink(bus, store, clock, space=space, specs=specs, fresh_batches=fresh_batches)
    pipeline = Pipeline(
        mapping,
        specs,
        clock=clock,
        space=space,
        most_waiting=settings.waiting_samples,
        last_ns=[await store.last_ns(str(spec.address)) for spec in specs],
    )
    return Gateway(
        mapping=mapping,
        admission=admission,
        state=state,
        settings=settings,
        clock=clock,
        specs=specs,
        spool=store,
        bus=bus,
        uplink=uplink,
        pipeline=pipeline,
        link=build_link(
            mapping, pipeline, clock, state.pki, waiting_messages=settings.waiting_messages
        ),
    )


def _open_bus(admission: Admission) -> AbstractAsyncContextManager[client.Bus]:
    """The connection of a gateway, under an id of its own: several may share a credential."""
    settings, equipment = admission.bus_settings, admission.mapping.equipment
    principal = Credential.parse(settings.credential.get_secret_value()).principal
    client_id = f"{principal}--gateway-{equipment.organisation}-{equipment.equipment}"
    return client.open(settings, admission.clock, client_id=client_id)


def _open_spool(
    mapping: Mapping, state: StateFolders, settings: GatewaySettings
) -> AbstractAsyncContextManager[Spool]:
    limits = SpoolSettings(
        most_bytes=settings.spool_bytes,
        keep_marked_s=settings.spool_keep_s,
        least_free_bytes=settings.spool_free_bytes,
    )
    path = _file_of(mapping, state, settings.space, ".sqlite")
    return spool.open(path, epoch=secrets.token_hex(13), settings=limits)


def _file_of(mapping: Mapping, state: StateFolders, space: str, suffix: str) -> Path:
    """A file of this gateway in the spool's folder."""
    machine = mapping.equipment
    return state.spool / f"{machine.organisation}.{machine.equipment}.{space}{suffix}"


def build_link(
    mapping: Mapping, pipeline: Pipeline, clock: Clock, pki: Path, *, waiting_messages: int
) -> SourceLink:
    """Build the link that a mapping's source needs; only that protocol's code is imported.

    pki: folder of OPC UA certificates.
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
    return OpcUaLink(mapping, pipeline, clock, ClientCredentials.from_folder(pki, password, clock))


async def without_end(work: Coroutine[None, None, None], name: str) -> None:
    """Await a coroutine that never returns; raises Unavailable if it does, to end the gateway."""
    await work
    raise Unavailable(
        f"{name} ended by itself", hint="start the gateway again, and report it: that is a defect"
    )
