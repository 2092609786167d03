"""The gateway process: everything wired together."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial

import structlog

from broker import api_client
from broker.batch import Batch
from broker.bus import client
from broker.clock import Clock
from broker.credential import Credential
from broker.errors import Unavailable
from broker.namespace import StreamAddress
from broker.settings import BusSettings
from broker.streams import StreamSpec
from gateway import audit_anchors
from gateway.links.mqtt.link import MqttLink
from gateway.links.opcua.link import OpcUaLink
from gateway.links.opcua.security import Proof
from gateway.mapping.model import Broker, Mapping
from gateway.monitoring import health, prometheus, stats
from gateway.monitoring.stats import Sources
from gateway.pipeline.pipeline import Feed
from gateway.settings import GatewaySettings, SourceSettings
from gateway.spool import spool
from gateway.spool.spool import SpoolSettings
from gateway.uplink import Uplink

SPOOL_PAUSE_S = 0.5
"""After the spool did not take something; what comes meanwhile waits, within its bound."""
REGISTER_PAUSE_S = 2.0

Link = OpcUaLink | MqttLink

log = structlog.get_logger()


async def run(
    mapping: Mapping, settings: GatewaySettings, bus_settings: BusSettings, clock: Clock
) -> None:
    """Carry samples up until cancelled; then spool what is left and wait for its marks.

    Raises Refused where the API does not take the equipment or a spec, Forbidden for a wrong
    credential.
    """
    credential = bus_settings.credential.get_secret_value()
    principal = Credential.parse(credential).principal
    specs = await _register(mapping, settings, bus_settings, clock)
    space, machine = settings.space, mapping.equipment
    path = settings.spool / f"{machine.organisation}.{machine.equipment}.{space}.sqlite"
    anchored = path.with_suffix(".anchors.jsonl")
    kept_settings = SpoolSettings(
        settings.spool_bytes, settings.spool_keep_s, settings.spool_free_bytes
    )
    async with (
        spool.open(path, epoch=secrets.token_hex(13), settings=kept_settings) as kept,
        client.open(bus_settings, clock, client_id=f"{principal}--gateway") as bus,
    ):
        uplink = Uplink(
            bus, kept, clock, space=space, specs=specs, fresh_batches=settings.fresh_batches
        )
        most = settings.waiting_samples
        feed = Feed(mapping, specs, clock=clock, space=space, most_waiting=most)
        await feed.remember(kept)
        link = _link(mapping, feed, clock, settings.waiting_messages)
        sources = Sources(feed, uplink, link.counts, kept, bus, specs, clock, settings.spool_bytes)
        telling = health.tell(mapping, feed, uplink, bus, clock, space)
        keeping = audit_anchors.keep(bus, machine, anchored)
        async with _running(uplink, keeping), _showing(sources, settings):
            try:
                await _carry(link, feed, telling, uplink, clock)
            finally:
                drained = await asyncio.shield(_finish(feed, uplink, settings.drain_s))
                facts = {"equipment": str(machine), "drained": drained}
                await stats.log_line(sources, "gateway ended", **facts)


def _link(mapping: Mapping, feed: Feed, clock: Clock, waiting_messages: int) -> Link:
    settings = SourceSettings()
    if isinstance(mapping.source, Broker):
        password = settings.source_password.get_secret_value()
        return MqttLink(
            mapping, mapping.source, password, feed, clock, waiting_messages=waiting_messages
        )
    if mapping.source.security is None:
        log.warning("server is read without security", url=mapping.source.url, asked_by="mapping")
    return OpcUaLink(mapping, feed, clock, Proof.of(settings, clock))


async def _register(
    mapping: Mapping, settings: GatewaySettings, bus_settings: BusSettings, clock: Clock
) -> list[StreamSpec]:
    """Make the equipment and its specs known, however long the API is away."""
    credential, ca = bus_settings.credential.get_secret_value(), bus_settings.ca
    said = False
    while True:
        try:
            async with api_client.connect(settings.api, credential, ca=ca) as door:
                await door.register_equipment(
                    mapping.equipment,
                    name=mapping.name,
                    kind=mapping.kind,
                    site=mapping.site,
                    description=mapping.description,
                )
                return await door.register_specs([one.spec for one in mapping.streams])
        except Unavailable as exc:
            if not said:
                log.warning("registration waits for the API", api=settings.api, reason=str(exc))
            said = True
            await clock.sleep(REGISTER_PAUSE_S)


@asynccontextmanager
async def _running(uplink: Uplink, keeping: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """The uplink outlives the link, so that what was read last is marked too."""
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(uplink.run(), name="uplink")
        kept = tasks.create_task(keeping, name="anchors")
        try:
            yield
        finally:
            running.cancel()
            kept.cancel()


@asynccontextmanager
async def _showing(sources: Sources, settings: GatewaySettings) -> AsyncIterator[None]:
    """The figures for the operator: in the log, and for Prometheus if it is asked for."""
    async with asyncio.TaskGroup() as tasks:
        shown = [tasks.create_task(stats.log_lines(sources, settings.log_every_s), name="figures")]
        if port := settings.gateway_metrics_port:
            serving = prometheus.serve(port, partial(stats.gathered, sources))
            shown.append(tasks.create_task(serving, name="metrics"))
        try:
            yield
        finally:
            for one in shown:
                one.cancel()


async def _carry(
    link: OpcUaLink | MqttLink,
    feed: Feed,
    telling: Coroutine[None, None, None],
    uplink: Uplink,
    clock: Clock,
) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(without_end(link.run(), "the link to the machine"), name="link")
        tasks.create_task(feed.age(), name="batch age")
        tasks.create_task(telling, name="health")
        while True:
            await _spooled(feed, uplink, await feed.batches(), clock)


async def without_end(doing: Coroutine[None, None, None], what: str) -> None:
    """Do what never returns; raises Unavailable where it does, so that the gateway ends with it."""
    await doing
    raise Unavailable(
        f"{what} ended by itself", hint="start the gateway again, and report it: that is a defect"
    )


async def _spooled(
    feed: Feed, uplink: Uplink, ready: Sequence[tuple[StreamAddress, Batch]], clock: Clock
) -> None:
    """Into the spool; what its disk does not take is a stated gap of the next batch."""
    try:
        await uplink.send(ready)
    except Unavailable as exc:
        feed.alarm("spool", str(exc))
        feed.not_kept(ready)
        await clock.sleep(SPOOL_PAUSE_S)
    else:
        feed.alarm("spool", None)


async def _finish(feed: Feed, uplink: Uplink, drain_s: float) -> bool:
    """What was read and not yet sent goes out; True if the recorder has it all."""
    try:
        await uplink.send(feed.rest())
        return await uplink.drained(drain_s)
    except Unavailable as exc:
        log.error("last batches were not spooled", reason=str(exc))  # noqa: TRY400 - the reason says it
        return False
