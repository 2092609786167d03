"""Connections to Mosquitto, from its log and its sockets, for the audit and the access log.

Mosquitto asks no other process at a connect, and lists no connections.  But it publishes its log,
with each connect and disconnect, and the kernel of the machine that we share knows its open
sockets.  So log lines are written down as the events of NATS are.  After a time without the log
three things are done: sessions whose socket is gone are ended; principals that may be connected
without a session are disconnected once, so that their new connect is logged; and the audit gets an
event with the beginning and the end of that time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import structlog

from broker.backends.mosquitto import log_parser
from broker.backends.mosquitto.config_files import is_system
from broker.backends.mosquitto.dynamic_security import ClientAccess, Projection
from broker.backends.mosquitto.log_parser import (
    ClientConnected,
    ClientDisconnected,
    ConnectionOpened,
    LogLine,
    PendingConnections,
    UnauthenticatedClosed,
    UnknownLine,
)
from broker.bus.inbox import Inbox
from broker.clock import NS_PER_S, Clock, ns_of, text_of
from broker.errors import Forbidden, Invalid, Unavailable
from testbed_api.audit.journal import Journal
from testbed_api.broker_auth.mosquitto_topics import Reach
from testbed_api.broker_auth.refusals import BusJournal
from testbed_api.broker_auth.sessions import LOOK_EVERY_S, NOT_THERE, heard_streams
from testbed_api.domain import bus_refusals
from testbed_api.domain.audit import AuditContext, AuditEntry, AuditOutcome
from testbed_api.domain.bus_refusals import BusAct, BusRefusal
from testbed_api.registry import access_log
from testbed_api.registry.registry import Registry

RENEW = "run `testbed broker-config` again and restart Mosquitto: it must publish its log"
LINES = 10_000
"""That wait to be written down; beyond them the oldest go, and that is made up for."""
TICK_S = 1.0
KEEP_EVERY_S = 5.0
PATIENCE_S = 10.0
FINISH_S = 2.0
HEARD = "heard"
TAKEN_OVER = "taken over"
UNHEARD = "connections were not seen, nobody listened"
DEAF = "connections are not seen, the broker tells of none"

log = structlog.get_logger()


class Overhearing:
    """Writes the connections in Mosquitto's log to the access log and the audit.

    One task runs `follow`; the reconciler calls `changing` and `changed` at each write of rights.
    """

    def __init__(
        self, registry: Registry, projection: Projection, inbox: Inbox, folder: Path, clock: Clock
    ) -> None:
        """inbox: of `log_parser.TOPICS`.  folder: of the file with the time of the last line."""
        self._registry = registry
        self._projection = projection
        self._inbox = inbox
        self._file = folder / HEARD
        self._clock = clock
        self._journal = Journal(registry)
        self.refusals = BusJournal(registry=registry, journal=self._journal, clock=clock)
        """Counts the connects that were refused; its `run` writes them."""
        self._pending = PendingConnections()
        self._reach = Reach()
        self._knows = asyncio.Event()
        self._taken = 0
        self._settled_at: int | None = 0
        self._is_busy = False
        self._is_told = self._is_deaf = False
        self._said: set[str] = set()
        self._heard_ns = _read(self._file)
        self._kept_ns = 0
        self._dropped = 0
        self._missed_until_ns: int | None = None
        self._missed_since_ns = 0
        """The monotonic time of `_missed_until_ns`."""
        self._look_s = 0.0

    # --- what is said -----------------------------------------------------------------------------

    async def follow(self) -> None:
        """Process the lines of the log until cancelled."""
        while True:
            try:
                async with asyncio.timeout(TICK_S):
                    message = await anext(self._inbox)
            except TimeoutError:
                self._is_busy = True
                await self._journal.settle(self._clock.now_ns())
                self._is_busy = False
            except Forbidden:  # who looks finds that nothing is told
                await self._clock.sleep(TICK_S)
            else:
                self._inbox.ack(message)
                await self._hear(message.payload)

    async def finish(self) -> None:
        """Return once all received lines are written, or after FINISH_S, and counted refusals."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FINISH_S):
                while not self._is_up_to_date():
                    await self._clock.sleep(0.01)
        await self.refusals.finish()

    async def _hear(self, payload: bytes) -> None:
        self._is_busy = self._is_told = True
        if self._settled_at is not None and self._at() >= self._settled_at:
            self._reach.settle()
        self._taken += 1
        line = log_parser.read(payload)
        if line is not None:
            await self._take(line)
        self._is_busy = False

    async def _take(self, line: LogLine) -> None:
        """Write the event of a line, at the time of now or the past end of the line's second."""
        at_ns = min(self._clock.now_ns(), (line.at_s + 1) * NS_PER_S)
        match line.event:
            case ConnectionOpened(peer):
                self._pending.opened(peer)
            case ClientConnected(principal, peer) as came:
                self._pending.authenticated(peer)
                if not is_system(principal):
                    await self._surely(partial(self._came, came, line.at_s, at_ns))
            case ClientDisconnected(principal, how) if not is_system(principal):
                self._reach.went(principal)
                ended = partial(self._registry.sessions.end_of_principal, principal, how, at_ns)
                await self._surely(ended)
            case UnauthenticatedClosed() as left:
                self._left(left, at_ns)
            case UnknownLine(text):
                self._say("line of mosquitto's log was not understood", line=text[:200])

    async def _came(self, came: ClientConnected, at_s: int, at_ns: int) -> None:
        await self._knows.wait()  # what whoever came may hear
        principal, host = came.principal, came.peer.host
        connection = f"{principal}/{came.peer}/{at_s}"
        entries = frozenset(heard_streams(self._reach.of(principal)))
        admitted = access_log.AdmittedConnection(principal, connection, principal, entries)
        facts = {"client_id": principal, "connection": connection}
        known = await self._registry.principals.find(principal, at_ns)
        context = _context(facts, host).by(principal, known.organisation if known else None)
        await self._registry.sessions.end_of_principal(principal, TAKEN_OVER, at_ns)
        await self._registry.sessions.begin(admitted, at_ns, context.event(at_ns))

    def _left(self, left: UnauthenticatedClosed, at_ns: int) -> None:
        hosts = self._pending.closed()
        if not left.refused:
            return
        facts: dict[str, object] = {"client_id": left.client_id} if left.client_id else {}
        if len(hosts) > 1:
            facts["one_of"] = hosts[:20]
        reason = bus_refusals.NO_CREDENTIAL if left.client_id else bus_refusals.WRONG_CREDENTIAL
        refusal = BusRefusal(
            act=BusAct.CONNECT,
            principal="",  # the log does not say it
            reason=reason,
            time_ns=at_ns,
            source=hosts[0] if len(hosts) == 1 else "",
            facts=facts,
        )
        self.refusals.note(refusal)

    async def _surely(self, write: Callable[[], Awaitable[None]]) -> None:
        """Repeat a write until the registry accepts it; lines wait in the inbox meanwhile."""
        is_away = False
        while True:
            try:
                await write()
            except Unavailable as exc:
                if not is_away:
                    log.warning("connections wait to be noted", reason=str(exc))
                is_away = True
                await self._clock.sleep(TICK_S)
            else:
                if is_away:
                    log.warning("connections are noted again")
                return

    def _at(self) -> int:
        """Number of lines that were processed or dropped."""
        return self._taken + self._inbox.dropped

    # --- what it is told --------------------------------------------------------------------------

    def changing(
        self, held: Mapping[str, ClientAccess], wanted: Mapping[str, ClientAccess]
    ) -> None:
        """Note that the rights in Mosquitto are about to change from `held` to `wanted`."""
        self._reach.change(held, wanted)
        self._settled_at = None

    def changed(self) -> None:
        """Note that the rights are written, and that lines logged meanwhile are in the inbox."""
        self._settled_at = self._at() + len(self._inbox)

    def begin(self) -> None:
        """Note a new connection to Mosquitto: lines logged before it were missed."""
        self._is_told = False
        self._knows.clear()
        self._note_missed()

    def _note_missed(self) -> None:
        self._missed_until_ns = self._clock.now_ns()
        self._missed_since_ns = self._clock.monotonic_ns()

    async def resume(self, held: Mapping[str, ClientAccess]) -> None:
        """Start from the rights that Mosquitto holds, as read from it; raises as `look`."""
        self._reach.begin(held)
        self.changed()
        self._knows.set()
        self._look_s = 0.0
        await self.look(held)

    # --- who stands -------------------------------------------------------------------------------

    async def look(self, held: Mapping[str, ClientAccess]) -> None:
        """Compare open sessions with open sockets at intervals, and handle missed lines.

        held: who is admitted now.  Raises Unavailable if Mosquitto does not obey.
        """
        now_ns, now_s = self._clock.now_ns(), asyncio.get_running_loop().time()
        if self._inbox.dropped != self._dropped:
            self._dropped = self._inbox.dropped
            self._note_missed()
            self._look_s = now_s
        if now_s >= self._look_s:
            self._look_s = now_s + LOOK_EVERY_S
            standing = await self._compare(now_ns)
            if self._missed_until_ns is not None:
                await self._make_up(held, standing, self._missed_until_ns)
        if self._missed_until_ns is None and self._is_up_to_date():
            self._keep(now_ns - NS_PER_S)  # a line may be under way

    def _is_up_to_date(self) -> bool:
        return not self._is_busy and not len(self._inbox)

    async def _compare(self, now_ns: int) -> set[str] | None:
        """The principals whose logged connection is open; None where that cannot be seen now."""
        try:
            book = await self._registry.sessions.open()
            peers = {str(peer) for peer in self._projection.peers()}
            standing = {
                connection: who for connection, who in book.items() if _peer_of(connection) in peers
            }
            gone = await self._registry.sessions.end_others(standing, NOT_THERE, now_ns)
        except Unavailable as exc:
            log.info("it was not seen who is connected", reason=str(exc))
            return None
        if gone:
            log.info("connections were found gone", count=gone)
        return set(standing.values())

    async def _make_up(
        self, held: Mapping[str, ClientAccess], standing: set[str] | None, until_ns: int
    ) -> None:
        """Disconnect principals whose connection was missed, and write the gap to the audit."""
        if not self._tells():
            await self._tell_deaf()
            return
        waited_ns = self._clock.monotonic_ns() - self._missed_since_ns
        waited = waited_ns >= PATIENCE_S * NS_PER_S  # a flood does not put it off for ever
        if standing is None or not (self._is_up_to_date() or waited):
            self._look_s = 0.0  # what was said first may say who came
            return
        if self._is_deaf:
            self._is_deaf, until_ns = False, self._clock.now_ns()
            log.warning("mosquitto tells of connections")
        if held.keys() - standing:
            await self._projection.disconnect_others(held, standing)
        if held or self._heard_ns is not None:  # else there was nobody who could have come
            began = None if self._heard_ns is None else text_of(self._heard_ns)
            await self._missed(UNHEARD, **{"from": began, "until": text_of(until_ns)})
        self._heard_ns, self._missed_until_ns = until_ns, None

    def _tells(self) -> bool:
        """Whether a line came since `begin`: the reload of the rights logs one at least."""
        return self._is_told or len(self._inbox) > 0

    async def _tell_deaf(self) -> None:
        if self._is_deaf:
            return
        self._is_deaf = True
        log.error("mosquitto tells of no connection", hint=RENEW)
        await self._missed(DEAF)

    async def _missed(self, why: str, **facts: object) -> None:
        log.warning("connections were not seen", reason=why, **facts)
        await self._journal.tell(
            _context(facts).event(self._clock.now_ns(), AuditOutcome.FAILED, why)
        )

    def _keep(self, heard_ns: int) -> None:
        """Store the time until which all lines are written, at most every KEEP_EVERY_S."""
        self._heard_ns = heard_ns
        if abs(heard_ns - self._kept_ns) < KEEP_EVERY_S * NS_PER_S:
            return
        self._kept_ns = heard_ns
        try:
            self._file.write_text(f"{text_of(heard_ns)}\n")
        except OSError as exc:
            self._say("until when all was heard was not kept", reason=exc.strerror)

    def _say(self, event: str, **facts: object) -> None:
        """Log a warning once in the life of this process."""
        if event not in self._said:
            self._said.add(event)
            log.warning(event, **facts)


def _context(facts: Mapping[str, object], source: str = "") -> AuditContext:
    return AuditContext(
        action=BusAct.CONNECT, target="the broker", source=source, entry=AuditEntry(dict(facts))
    )


def _peer_of(connection: str) -> str:
    """The peer address in a connection's name; empty for a connection to another broker."""
    parts = connection.split("/")
    return parts[1] if len(parts) == 3 else ""


def _read(file: Path) -> int | None:
    """Read the stored time of the last line; None without a file, or if it cannot be read."""
    try:
        return ns_of(file.read_text().strip())
    except (OSError, UnicodeDecodeError, Invalid):
        return None
