"""The OPC UA link: reads a server by subscriptions, and states a gap for every sample it misses.

After a break the client is replaced: nodes are resolved anew, and every signal's first sample ends
a gap.  Only what ends the connection is a break; any other refusal takes one thing, see
`acquisition`.  Source: OPC UA Part 4, 5.13 (MonitoredItem) and 5.14 (Subscription).
"""

import asyncio
from pathlib import Path

from asyncua import Client
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

from broker.clock import HOUR_S, Backoff, Clock
from broker.errors import BedError, Refused
from gateway.links.counts import LinkCounts
from gateway.links.opcua import certificate_alarms, refusal_codes, revised_parameters
from gateway.links.opcua.acquisition import Acquisition
from gateway.links.opcua.call_sizes import ServerLimits
from gateway.links.opcua.delivery import NotificationDelivery
from gateway.links.opcua.polling import Poller
from gateway.links.opcua.security import ClientCredentials
from gateway.links.opcua.sequence import PublishLoop
from gateway.links.opcua.server_alarm import ServerAlarm
from gateway.links.opcua.session import SessionRefused, connected
from gateway.links.opcua.unread_signals import UnreadSignals
from gateway.links.opcua.watchdog import Watchdog
from gateway.links.port import Sink
from gateway.links.refusals import SourceRefusals
from gateway.mapping.model import Mapping

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
"""Full jitter up to a pause that doubles: a server is reached within 5 s and one time-out."""
FIRST_STARVED_S, LONGEST_STARVED_S = 1.0, 60.0
"""The pause after a session that broke before any data came, or that the server had no room for: it
doubles, since each session costs a server time."""
REFUSED_PAUSE_S = 30.0
"""The pause after a refusal by either side: a server may count wrong passwords."""
CERTIFICATES_S = float(HOUR_S)
"""The ends of certificates are looked at so often, and at each connection."""
STEADY_S = 5.0
"""After a connection that lasted this long, the next pause is short again."""

BREAKS = (UaError, OSError, TimeoutError, BedError)
"""Errors that end a connection and are no bug."""


class OpcUaLink:
    """The link of a mapping whose source is an OPC UA server.

    limits: what the server takes in a request, over all connections.  acquisition: how each signal
    is read in the newest connection; None before the first.
    """

    def __init__(
        self,
        mapping: Mapping,
        sink: Sink,
        clock: Clock,
        credentials: ClientCredentials | None = None,
        unread_file: Path | None = None,
    ) -> None:
        """sink: takes samples in the order of the server.  credentials: where it has security.
        unread_file: keeps the signals that could not be read over restarts.
        """
        self.counts = LinkCounts()
        self._mapping = mapping
        self._sink = sink
        self._clock = clock
        self._credentials = credentials
        self._unread = UnreadSignals(mapping, clock, unread_file)
        self._alarm = ServerAlarm(sink, mapping.server.url, clock)
        self.limits = ServerLimits(mapping.server.items_per_call)
        self.acquisition: Acquisition | None = None
        self._delivery: NotificationDelivery | None = None

    async def run(self) -> None:
        """Read the server until cancelled; reconnects after every break.

        Raises Refused where only a person can help, see `gateway.links.refusals`.
        """
        unanswered = Backoff(self._clock, first_s=FIRST_PAUSE_S, longest_s=LONGEST_PAUSE_S)
        starved = Backoff(
            self._clock, first_s=FIRST_STARVED_S, longest_s=LONGEST_STARVED_S, jitter=False
        )
        refusals = SourceRefusals(self._sink)
        while True:
            since_s = asyncio.get_running_loop().time()
            await self._check_certificates()
            pauses = unanswered
            try:
                await self._connect_and_read()
            except Refused as exc:
                self._alarm.broke(str(exc))
                await self._clock.sleep(refusals.check(exc, pause_s=REFUSED_PAUSE_S))
            except (*BREAKS, ExceptionGroup) as exc:
                refusals.reset()
                self._alarm.broke(_reasons(exc))
                if self._is_starved or isinstance(exc, SessionRefused):
                    pauses = starved
            lasted_s = asyncio.get_running_loop().time() - since_s
            if lasted_s > STEADY_S + self._mapping.server.timeout_s * 3:
                unanswered.reset()
            if self.has_data:
                starved.reset()
            await pauses.pause()

    @property
    def is_reading(self) -> bool:
        """Whether all that the server lets us read is subscribed to, or polled."""
        return self.acquisition is not None and self.acquisition.is_open

    @property
    def has_data(self) -> bool:
        """Whether any data change came in the newest connection."""
        return self._delivery is not None and self._delivery.has_data

    @property
    def _is_starved(self) -> bool:
        return self._delivery is not None and not self._delivery.has_data

    async def _connect_and_read(self) -> None:
        """Open a session, and read in it until it breaks."""
        self._delivery = None
        async with connected(self._mapping.server, self._credentials) as client:
            self.counts.connects += 1
            self._alarm.connected(self.counts.connects)
            self._delivery = NotificationDelivery(
                self._mapping.streams,
                self._sink,
                self._clock,
                counts=self.counts,
                unread=self._unread,
                server_alarm=self._alarm,
            )
            await self._read(client, self._delivery)

    async def _read(self, client: Client, delivery: NotificationDelivery) -> None:
        """Subscribe to all nodes and deliver their samples until the connection breaks."""
        acquisition = await self._open(client)
        publish_loop = PublishLoop(
            client,
            acquisition.subscriptions,
            delivery,
            sink=self._sink,
            counts=self.counts,
            values_per_s=self._mapping.requested_per_s,
        )
        watchdog = Watchdog(
            client, self._mapping, acquisition, clock=self._clock, limits=self.limits
        )
        poller = Poller(
            client, acquisition, delivery, sink=self._sink, clock=self._clock, limits=self.limits
        )
        work = {
            "publishes": self._publish(publish_loop),
            "keep-alives": watchdog.check_keep_alives(publish_loop),
            "heartbeat": watchdog.check_server(publish_loop),
            "silence": watchdog.read_silent(delivery),
            "sample counts": watchdog.count_samples(publish_loop, self._sink),
            "polls": poller.run(),
            "refused items": acquisition.ask_again(publish_loop.add),
            "unread signals": delivery.state_unread(),
            "certificates": self._watch_certificates(client),
        }
        async with asyncio.TaskGroup() as tasks:
            for name, coroutine in work.items():
                tasks.create_task(coroutine, name=f"opcua {name}")
            # Wait inside the group.  A group that fails while it is left counts its task as
            # cancelled from then on, and before Python 3.11.4 a time-out there, such as that of the
            # disconnect, becomes a cancellation: the link would end without an error.
            await asyncio.get_running_loop().create_future()

    async def _open(self, client: Client) -> Acquisition:
        """Subscribe to all nodes, and raise alarms if the server revised what was asked for."""
        acquisition = self.acquisition = Acquisition(
            client,
            self._mapping,
            self.limits,
            sink=self._sink,
            clock=self._clock,
            unread=self._unread,
        )
        await acquisition.open()
        revised = revised_parameters.alarms(self._mapping.streams, acquisition.subscriptions)
        for subject, sentence in revised.items():
            self._sink.alarm(subject, sentence)
        return acquisition

    async def _publish(self, publish_loop: PublishLoop) -> None:
        """Deliver what the server publishes; if it has no such service, it is polled from then."""
        try:
            await publish_loop.run()
        except UaStatusCodeError as exc:
            if exc.code in refusal_codes.UNSUPPORTED:
                self.limits.publishes = False
            raise

    async def _watch_certificates(self, client: Client) -> None:
        """Check the certificates of an open session until cancelled."""
        while True:
            await self._check_certificates(client)
            await self._clock.sleep(CERTIFICATES_S)

    async def _check_certificates(self, client: Client | None = None) -> None:
        """Raise the alarm of certificates that end soon, or clear it."""
        server, credentials = self._mapping.server, self._credentials
        sentence = await asyncio.to_thread(certificate_alarms.alarm, server, credentials, client)
        self._sink.alarm("certificates", sentence)


def _reasons(exc: Exception) -> str:
    """The reasons why a connection ended, as text; raises the bugs in a group."""
    if not isinstance(exc, ExceptionGroup):
        return str(exc) or type(exc).__name__
    breaks, bugs = exc.split(BREAKS)
    if bugs is not None:
        raise bugs
    return "; ".join(sorted({_reasons(cause) for cause in breaks.exceptions})) if breaks else ""
