"""The reconciler: keeps the rights in Mosquitto equal to those in the registry.

It runs as a process of its own and is the only writer of rights in Mosquitto.  It polls the
registry for changes, checks at once on a notice, and ends rights that expire, also while the API is
away.  It also writes connections from Mosquitto's log to the access log.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from broker import policy
from broker.backends.mosquitto import dynamic_security, log_parser
from broker.backends.mosquitto.dynamic_security import ClientAccess, Projection
from broker.bus import client
from broker.bus.inbox import Inbox
from broker.clock import NS_PER_S, Clock, ForwardClock
from broker.errors import Corrupt, Unavailable
from broker.rights import Entry, Grant, Pause, Rights, Span
from broker.settings import BusSettings
from testbed_api.broker_auth.mosquitto_notifier import APPLIED, CHANGED
from testbed_api.broker_auth.mosquitto_sessions import LINES, Overhearing
from testbed_api.registry.engine import open_engine
from testbed_api.registry.registry import Registry
from testbed_api.registry.rights_snapshot import RightsSnapshot
from testbed_api.security.system_secrets import RECONCILER
from testbed_api.settings import ServerSettings

POLL_S = 0.2
"""A change that nobody tells of is seen within this; it is silent within half a second."""
AFRESH_S = 10.0
"""All is computed anew this often, whether anything seems to have changed or not."""
PAUSE_S = 0.2

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Decided:
    """The access of all clients at one moment, and the next moment at which time changes it."""

    admitted: Mapping[str, ClientAccess]
    next_ns: int | None


def decide(everything: RightsSnapshot, at_ns: int) -> Decided:
    """The access that a broker must hold at this instant: of all with a valid token.

    Of several tokens of one principal the newest counts: Mosquitto knows one secret a name.  One
    whose roles its person has no more counts no more.
    """
    rights = everything.rights
    parts = _Parts(rights)
    admitted = {}
    for principal in rights.principals:
        if not principal.span.covers(at_ns):
            continue
        valid = [
            token for token in everything.tokens.get(principal.id, ()) if token.span.covers(at_ns)
        ]
        for token in reversed(valid):
            held = parts.of(principal.organisation, rights, at_ns).with_roles(
                principal.id, token.roles
            )
            if held.principal(principal.id, at_ns) is not None:
                admitted[principal.id] = ClientAccess(
                    policy.topics(held, principal.id, at_ns), token.verifier
                )
                break
    return Decided(admitted, min(_moments(everything, at_ns), default=None))


class _Parts:
    """Rights by organisation, so that each principal is decided over its own rights only."""

    def __init__(self, rights: Rights) -> None:
        self._grants: dict[str, list[Grant]] = defaultdict(list)
        self._pauses: dict[str, list[Pause]] = defaultdict(list)
        self._known: dict[str, set[Entry]] = defaultdict(set)
        self._done: dict[str, Rights] = {}
        for grant in rights.grants:
            self._grants[grant.company].append(grant)
        for pause in rights.pauses:
            self._pauses[pause.owner].append(pause)
        for entry in rights.known:
            self._known[entry.address.organisation].add(entry)

    def of(self, organisation: str, rights: Rights, at_ns: int) -> Rights:
        """The rights that concern the people and machines of one organisation."""
        if organisation not in self._done:
            grants = self._grants[organisation]
            owners = {each.entry.address.organisation for each in grants}
            self._done[organisation] = replace(
                rights,
                principals=tuple(
                    each
                    for each in rights.principals
                    if each.organisation == organisation and each.span.covers(at_ns)
                ),
                grants=tuple(grants),
                pauses=tuple(each for owner in sorted(owners) for each in self._pauses[owner]),
                listings=(),
                known=frozenset(self._known[organisation]),
            )
        return self._done[organisation]


def _moments(everything: RightsSnapshot, at_ns: int) -> Iterator[int]:
    """All future instants at which the span of a right or token begins or ends."""
    for span in _spans(everything):
        for moment in (span.from_ns, span.until_ns):
            if moment is not None and moment > at_ns:
                yield moment


def _spans(everything: RightsSnapshot) -> Iterable[Span]:
    rights = everything.rights
    yield from (each.span for each in rights.principals)
    yield from (each.span for each in rights.grants)
    yield from (each.span for each in rights.pauses)
    yield from (each.span for tokens in everything.tokens.values() for each in tokens)


class Reconciler:
    """Writes the registry's rights to Mosquitto whenever they differ."""

    def __init__(
        self,
        registry: Registry,
        bus: client.Bus,
        projection: Projection,
        heard: Overhearing,
        clock: Clock,
    ) -> None:
        """bus: connected as the reconciler.  heard: gets `changing` and `changed` at each write."""
        self._registry = registry
        self._bus = bus
        self._projection = projection
        self._heard = heard
        self._clock = clock
        self._known: tuple[int, RightsSnapshot] | None = None

    async def run(self, notices: Inbox) -> None:
        """Reconcile until cancelled; broker and registry may be away meanwhile.

        A reconnection reads what the broker holds before anything else: if its state was wiped,
        all of it is written anew.
        """
        while True:
            ordinal = await self._bus.connection()
            try:
                await self._stand(ordinal, notices)
            except (Unavailable, Corrupt) as exc:
                log.warning("rights were not written", reason=str(exc))
                await self._clock.sleep(PAUSE_S)

    async def _stand(self, ordinal: int, notices: Inbox) -> None:
        """Reconcile until the connection to the broker ends."""
        self._heard.begin()
        held: Mapping[str, ClientAccess] = await self._projection.read()
        await self._heard.resume(held)
        decided = await self._look()
        if held != decided.admitted:
            log.info("rights are written anew", held=len(held), wanted=len(decided.admitted))
        seen_ns = self._clock.monotonic_ns()
        held = await self._write(held, decided.admitted)
        while self._bus.connection_number == ordinal:
            payloads = await _notices(notices)
            changed = await self._changed()
            due = decided.next_ns is not None and self._clock.now_ns() >= decided.next_ns
            monotonic_ns = self._clock.monotonic_ns()
            if changed or due or monotonic_ns - seen_ns >= AFRESH_S * NS_PER_S:
                decided = await self._look()
                seen_ns = monotonic_ns
                held = await self._write(held, decided.admitted)
            for payload in payloads:
                await self._bus.publish(APPLIED, payload)
            await self._heard.look(held)

    async def _write(
        self, held: Mapping[str, ClientAccess], wanted: Mapping[str, ClientAccess]
    ) -> Mapping[str, ClientAccess]:
        """Change the broker's rights from `held` to `wanted`, and return them."""
        self._heard.changing(held, wanted)
        await self._projection.write(held, wanted)
        self._heard.changed()
        return wanted

    async def _changed(self) -> bool:
        """Whether the registry has changed since the last look; False while it is away."""
        try:
            version = await self._registry.rights_snapshot.version()
        except Unavailable:
            return False
        return self._known is None or version != self._known[0]

    async def _look(self) -> Decided:
        """Decide over the registry's rights, while it is away over those read last.

        So rights expire even then.  Raises Unavailable if none were ever read.
        """
        now_ns = self._clock.now_ns()
        try:
            # before the rest: a change between is seen again
            version = await self._registry.rights_snapshot.version()
            self._known = (version, await self._registry.rights_snapshot.load(now_ns))
        except Unavailable:
            if self._known is None:
                raise
        return decide(self._known[1], now_ns)


async def _notices(notices: Inbox) -> list[bytes]:
    """Receive the notices of changes that are in the inbox, or arrive within POLL_S."""
    try:
        async with asyncio.timeout(POLL_S):
            message = await anext(notices)
    except TimeoutError:
        return []
    payloads = [message.payload]
    notices.ack(message)
    while len(notices):
        message = await anext(notices)
        notices.ack(message)
        payloads.append(message.payload)
    return payloads


async def run(settings: ServerSettings, bus: BusSettings, clock: Clock) -> None:
    """Run the reconciler as a process of its own until cancelled."""
    async with open_engine(settings.tables) as engine:
        await reconcile(Registry(engine), bus, settings.broker_folder, clock)


async def reconcile(registry: Registry, settings: BusSettings, folder: Path, clock: Clock) -> None:
    """Run a reconciler over an open registry until cancelled.

    folder: as in `dynamic_security.project`.
    """
    async with (
        client.open(settings, clock, client_id=RECONCILER) as bus,
        dynamic_security.project(bus, folder) as projection,
        bus.subscribe([CHANGED], capacity=10_000, overflow="drop_oldest") as notices,
        bus.subscribe(log_parser.TOPICS, capacity=LINES, overflow="drop_oldest") as lines,
        asyncio.TaskGroup() as tasks,
    ):
        server_time = ForwardClock(clock, await registry.audit.newest_ns())
        heard = Overhearing(registry, projection, lines, folder, server_time)
        tasks.create_task(heard.follow(), name="overhearing")
        tasks.create_task(heard.refusals.run(), name="refusals")
        try:
            await Reconciler(registry, bus, projection, heard, server_time).run(notices)
        finally:
            await heard.finish()
