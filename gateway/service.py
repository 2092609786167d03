"""The gateway process: everything wired together, and the streams' health."""

import asyncio
import secrets
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

import structlog

from broker import api, client, messages
from broker.batch import Batch, Gap, source_of
from broker.clock import NS_PER_S, Clock
from broker.credential import Credential
from broker.errors import Unavailable
from broker.messages import Freshness, Health
from broker.namespace import StreamAddress, StreamTopic, Verb
from broker.settings import BusSettings
from broker.streams import StreamSpec, Trigger
from gateway import holes, spool
from gateway.arrivals import Arrivals
from gateway.links.opcua import OpcUaLink
from gateway.mapping import Mapping
from gateway.settings import GatewaySettings
from gateway.shaping import Shaper
from gateway.spool import Depth, Spool, SpoolSettings
from gateway.uplink import Uplink

TICK_S = 0.02
SPOOL_PAUSE_S = 0.5
"""After the spool did not take something; what comes meanwhile waits, within its bound."""
HEALTH_LOOK_S = 0.5
HEALTH_EVERY_NS = 3 * NS_PER_S
HEALTH_VALID_S = 5.0
"""What changes in a health is told when it is seen; the rest so often, well before it runs out."""
LEAST_FRESH_S = 5.0
REGISTER_PAUSE_S = 2.0

log = structlog.get_logger()


@dataclass(slots=True)
class _Freshness:
    """When a stream was last heard of, by our clock."""

    sample_ns: int = 0
    alive_ns: int = 0
    newest_ns: int | None = None


class Feed:
    """What the link fills and the uplink empties: one shaper a stream, bounded in samples."""

    def __init__(
        self,
        mapping: Mapping,
        specs: Sequence[StreamSpec],
        *,
        clock: Clock,
        space: str,
        most_waiting: int,
    ) -> None:
        """specs: as registered, of its streams.  most_waiting: samples not yet spooled.

        causes: how many holes were stated for each cause, counted for each signal.
        """
        self.alarms: dict[str, str] = {}
        self.causes: Counter[str] = Counter()
        self.freshness = [_Freshness() for _ in mapping.streams]
        self.shapers = [Shaper(one, source_of(mapping.kind, space)) for one in mapping.streams]
        self._mapping = mapping
        self._specs = specs
        self._clock = clock
        self._most_waiting = most_waiting
        self._waiting = 0
        self._aging: set[int] = set()
        self._ready: list[tuple[StreamAddress, Batch]] = []
        self._changed = asyncio.Condition()
        self._before: list[int | None] = [None] * len(mapping.streams)

    async def remember(self, kept: Spool) -> None:
        """Where each stream ended in an earlier life of this gateway."""
        self._before = [await kept.last_ns(str(spec.address)) for spec in self._specs]

    async def take(self, stream: int, arrivals: Arrivals, *, fresh: bool) -> None:
        """Samples from the link; waits while too many are not spooled yet."""
        now_ns = self._clock.now_ns()
        self.freshness[stream].sample_ns = now_ns
        known = self.freshness[stream]
        newest_ns = int(arrivals.time_ns.max())
        known.newest_ns = max(newest_ns, known.newest_ns or newest_ns)
        shaper = self.shapers[stream]
        async with self._changed:
            await self._changed.wait_for(lambda: self._waiting < self._most_waiting)
            for batch in (*shaper.take(arrivals, now_ns, fresh=fresh), *shaper.due(now_ns)):
                self._put(stream, batch)
            if shaper.waits:
                self._aging.add(stream)
            if self._ready:
                self._changed.notify_all()

    async def gap(self, stream: int, gap: Gap) -> None:
        """A hole from the link."""
        self.causes[gap.cause] += len(gap.signals or self._specs[stream].names)
        self._state(stream, [gap])

    def not_kept(self, batches: Sequence[tuple[StreamAddress, Batch]]) -> None:
        """What the spool did not take: gaps in the place of its samples, beside those it held."""
        at = {spec.address: index for index, spec in enumerate(self._specs)}
        stated: dict[int, list[Gap]] = defaultdict(list)
        for address, batch in batches:
            found = holes.holes_of(batch, holes.FAILED)
            self.causes[holes.FAILED] += sum(len(one.signals) for one in found)
            stated[at[address]] += [*batch.gaps, *found]
        for stream, gaps in stated.items():
            self._state(stream, holes.joined(gaps, self._specs[stream].names))

    def _state(self, stream: int, gaps: Sequence[Gap]) -> None:
        for gap in gaps:
            self.shapers[stream].gap(gap)
        self._aging.add(stream)

    def heard(self, streams: Sequence[int]) -> None:
        """The server is alive for these streams."""
        for stream in streams:
            self.freshness[stream].alive_ns = self._clock.now_ns()

    def alarm(self, subject: str, sentence: str | None) -> None:
        """An alarm that comes or goes; said once each way."""
        before = self.alarms.pop(subject, None)
        if sentence is not None:
            self.alarms[subject] = sentence
        if sentence != before:
            log.warning(
                "alarm was raised" if sentence else "alarm was cleared",
                subject=subject,
                reason=sentence or before,
            )

    def last_ns(self, stream: int, signal: int) -> int | None:
        """The newest time stamp of a signal; of an earlier life only the stream's is known."""
        now = self.shapers[stream].last_ns(signal)
        return self._before[stream] if now is None else now

    async def batches(self) -> list[tuple[StreamAddress, Batch]]:
        """What is ready to be spooled, as soon as there is something."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._ready)
            ready = self._emptied()
            self._changed.notify_all()
            return ready

    async def age(self) -> None:
        """Cut what has waited for its batch age, until cancelled."""
        while True:
            await self._clock.sleep(TICK_S)
            if not self._aging:
                continue
            async with self._changed:
                for stream in list(self._aging):
                    shaper = self.shapers[stream]
                    for batch in shaper.due(self._clock.now_ns()):
                        self._put(stream, batch)
                    if not shaper.waits:
                        self._aging.discard(stream)
                self._changed.notify_all()

    def rest(self) -> list[tuple[StreamAddress, Batch]]:
        """Everything, at the end."""
        for stream, shaper in enumerate(self.shapers):
            if shaper.waits:
                for batch in shaper.cut():
                    self._put(stream, batch)
        return self._emptied()

    def _put(self, stream: int, batch: Batch) -> None:
        spec = self._specs[stream]
        if found := [one for one in batch.gaps if one.cause != holes.FAILED]:  # the alarm says it
            signals = sum(len(one.signals or spec.names) for one in found)
            causes = sorted({one.cause for one in found})
            log.warning("gaps were found", stream=str(spec.address), signals=signals, causes=causes)
        self._ready.append((spec.address, _numbered(batch, spec)))
        self._waiting += len(batch)

    def _emptied(self) -> list[tuple[StreamAddress, Batch]]:
        ready, self._ready, self._waiting = self._ready, [], 0
        return ready


async def run(
    mapping: Mapping, settings: GatewaySettings, bus_settings: BusSettings, clock: Clock
) -> None:
    """Carry samples up until cancelled; then spool what is left and wait for its marks.

    Raises Refused where the API does not take the equipment or a spec, Forbidden for a wrong
    credential.
    """
    credential = bus_settings.credential.get_secret_value()
    principal = Credential.parse(credential).principal
    specs = await _register(mapping, settings, credential, clock)
    space, machine = settings.space, mapping.equipment
    path = settings.spool / f"{machine.organisation}.{machine.equipment}.{space}.sqlite"
    kept_settings = SpoolSettings(
        settings.spool_bytes, settings.spool_keep_s, settings.spool_free_bytes
    )
    async with (
        spool.open(path, epoch=secrets.token_hex(13), settings=kept_settings) as kept,
        client.open(bus_settings, clock, client_id=f"{principal}--gateway") as bus,
    ):
        uplink = Uplink(bus, kept, clock, space=space, specs=specs)
        most = settings.waiting_samples
        feed = Feed(mapping, specs, clock=clock, space=space, most_waiting=most)
        await feed.remember(kept)
        link = OpcUaLink(mapping, feed, clock)
        health = _tell_health(mapping, feed, uplink, bus, clock, space)
        async with _running(uplink):
            try:
                await _carry(link, feed, health, uplink, clock)
            finally:
                drained = await asyncio.shield(_finish(feed, uplink, settings.drain_s))
                totals = asdict(uplink.sent) | _totals(feed, link, await kept.depth())
                log.info("gateway ended", equipment=str(machine), drained=drained, **totals)


async def _register(
    mapping: Mapping, settings: GatewaySettings, credential: str, clock: Clock
) -> list[StreamSpec]:
    """Make the equipment and its specs known, however long the API is away."""
    said = False
    while True:
        try:
            async with api.connect(settings.api, credential) as door:
                await door.register_equipment(
                    mapping.equipment,
                    name=mapping.name,
                    kind=mapping.kind,
                    site=mapping.site,
                    description=mapping.description,
                )
                return [await door.register_spec(one.spec) for one in mapping.streams]
        except Unavailable as exc:
            if not said:
                log.warning("registration waits for the API", api=settings.api, reason=str(exc))
            said = True
            await clock.sleep(REGISTER_PAUSE_S)


@asynccontextmanager
async def _running(uplink: Uplink) -> AsyncIterator[None]:
    """The uplink outlives the link, so that what was read last is marked too."""
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(uplink.run(), name="uplink")
        try:
            yield
        finally:
            running.cancel()


async def _carry(
    link: OpcUaLink, feed: Feed, health: Coroutine[None, None, None], uplink: Uplink, clock: Clock
) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(link.run(), name="link")
        tasks.create_task(feed.age(), name="batch age")
        tasks.create_task(health, name="health")
        while True:
            await _spooled(feed, uplink, await feed.batches(), clock)


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


async def _tell_health(
    mapping: Mapping, feed: Feed, uplink: Uplink, bus: client.Bus, clock: Clock, space: str
) -> None:
    """Say how fresh each stream is, retained: what changed at once, all before it runs out."""
    told: dict[int, Health] = {}
    while True:
        for index, stream in enumerate(mapping.streams):
            health = _health(mapping, feed, uplink, index, clock)
            if index in told and not _is_news(health, told[index]):
                continue
            topic = str(StreamTopic(space, Verb.HEALTH, stream.spec.address))
            try:
                await bus.submit(topic, messages.encode_health(health), retain=True)
            except Unavailable:
                break  # said by the bus itself; valid_until tells the readers
            told[index] = health
        await clock.sleep(HEALTH_LOOK_S)


def _is_news(health: Health, told: Health) -> bool:
    """Whether it differs from what was told, or that will run out before long."""
    return (health.state, health.alarms) != (
        told.state,
        told.alarms,
    ) or health.valid_until_ns - told.valid_until_ns >= HEALTH_EVERY_NS


def _health(mapping: Mapping, feed: Feed, uplink: Uplink, index: int, clock: Clock) -> Health:
    spec = mapping.streams[index].spec
    known = feed.freshness[index]
    heard_ns = known.sample_ns if spec.trigger is Trigger.TIMESTAMP else known.alive_ns
    patience_s = max(3 * spec.period_s, LEAST_FRESH_S)
    fresh = clock.now_ns() - heard_ns <= round(patience_s * NS_PER_S)
    general = [sentence for subject, sentence in feed.alarms.items() if "/" not in subject]
    own = [sentence for subject, sentence in feed.alarms.items() if subject.startswith(f"{index}/")]
    if uplink.not_accepted:
        general.append(
            "batches were not accepted by the recorder for ten minutes: look at the dead letters"
        )
    return Health(
        Freshness.FRESH if fresh else Freshness.STALE,
        valid_until_ns=clock.now_ns() + round(HEALTH_VALID_S * NS_PER_S),
        last_ns=known.newest_ns,
        alarms=(*general, *own),
    )


def _numbered(batch: Batch, spec: StreamSpec) -> Batch:
    return Batch(spec.version, batch.frames, batch.source, gaps=batch.gaps)


def _totals(feed: Feed, link: OpcUaLink, depth: Depth) -> dict[str, int]:
    """What became of everything, for the last line of the log."""
    names = ("offered", "dead_banded", "moved", "repeated")
    return {name: sum(getattr(one.shaped, name) for one in feed.shapers) for name in names} | {
        "gaps": feed.causes.total(),
        "unmarked": depth.unmarked,
        "dropped": depth.dropped,
        "spool_bytes": depth.bytes,
        "republished": link.republished,
        "unfit": link.unfit,
        "server_connects": link.connects,
        "alarms": len(feed.alarms),
    }
