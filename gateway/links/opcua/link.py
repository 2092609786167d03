"""The OPC UA link: reads a server by subscriptions, and states a gap for every sample it misses.

Streams of equal publishing interval share one subscription, and a node in several streams is
monitored once.  After a break the client is replaced: nodes are resolved anew, and every signal's
first sample ends a gap.  Source: OPC UA Part 4, 5.13 (MonitoredItem) and 5.14
(Subscription).
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog
from asyncua import Client, ua
from asyncua.ua.uaerrors import UaError

from broker.clock import HOUR_S, Backoff, Clock
from broker.errors import BedError, Refused
from gateway.links.counts import LinkCounts
from gateway.links.opcua import certificate_alarms, shapes
from gateway.links.opcua.delivery import NotificationDelivery
from gateway.links.opcua.security import ClientCredentials
from gateway.links.opcua.sequence import PublishLoop
from gateway.links.opcua.session import ResolvedNode, connected, nodes_per_call, resolve
from gateway.links.opcua.subscription import (
    MonitoredItem,
    Subscription,
    samples_a_publish,
    subscribe,
)
from gateway.links.opcua.types import DTYPES, fits
from gateway.links.opcua.unread_signals import Signal, UnreadSignals
from gateway.links.opcua.watchdog import Watchdog
from gateway.links.port import Sink
from gateway.links.refusals import SourceRefusals
from gateway.mapping.model import Mapping, StreamMapping

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
"""Full jitter up to a pause that doubles: a server is reached within 5 s and one time-out."""
REFUSED_PAUSE_S = 30.0
"""The pause after a refusal by either side: a server may count wrong passwords."""
CERTIFICATES_S = float(HOUR_S)
"""The ends of certificates are looked at so often, and at each connection."""
STEADY_S = 5.0
"""After a connection that lasted this long, the next pause is short again."""

_BREAKS = (UaError, OSError, TimeoutError, BedError)
"""Errors that end a connection and are no bug."""

log = structlog.get_logger()


class OpcUaLink:
    """The link of a mapping whose source is an OPC UA server."""

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

    async def run(self) -> None:
        """Read the server until cancelled; reconnects after every break.

        Raises Refused where only a person can help, see `gateway.links.refusals`.
        """
        url = self._mapping.server.url
        backoff = Backoff(self._clock, first_s=FIRST_PAUSE_S, longest_s=LONGEST_PAUSE_S)
        refusals = SourceRefusals(self._sink)
        while True:
            since_s = asyncio.get_running_loop().time()
            await self._check_certificates()
            try:
                async with connected(self._mapping.server, self._credentials) as client:
                    self.counts.connects += 1
                    self._sink.alarm("server", None)
                    log.info("server was connected", url=url, connects=self.counts.connects)
                    await self._read(client)
            except Refused as exc:
                self._sink.alarm("server", f"{url} is not read: {exc}")
                await self._clock.sleep(refusals.check(exc, pause_s=REFUSED_PAUSE_S))
            except (*_BREAKS, ExceptionGroup) as exc:
                refusals.reset()
                self._sink.alarm("server", f"{url} is not read: {_reasons(exc)}")
            lasted_s = asyncio.get_running_loop().time() - since_s
            if lasted_s > STEADY_S + self._mapping.server.timeout_s * 3:
                backoff.reset()
            await backoff.pause()

    async def _read(self, client: Client) -> None:
        """Subscribe to all nodes and deliver their samples until the connection breaks."""
        per_call = await nodes_per_call(client, self._mapping.server)
        names = self._mapping.nodes
        nodes = await resolve(client, names, per_call=per_call)
        subscriptions = [
            await self._subscribe(client, interval_s, items, per_call)
            for interval_s, items in self._grouped(nodes).items()
        ]
        self._check_revised(subscriptions)
        delivery = NotificationDelivery(
            self._mapping.streams, self._sink, self._clock, self.counts, self._unread
        )
        unfed = list(self._unfed(subscriptions))
        publish_loop = PublishLoop(
            client,
            subscriptions,
            delivery,
            sink=self._sink,
            counts=self.counts,
            values_per_s=self._mapping.requested_per_s,
        )
        watchdog = Watchdog(
            client, self._mapping, subscriptions, clock=self._clock, per_call=per_call
        )
        async with asyncio.TaskGroup() as tasks:
            if subscriptions:
                tasks.create_task(publish_loop.run(), name="opcua publishes")
            tasks.create_task(watchdog.check_keep_alives(publish_loop), name="opcua keep-alives")
            tasks.create_task(watchdog.check_server(publish_loop), name="opcua heartbeat")
            tasks.create_task(watchdog.read_silent(delivery), name="opcua silence")
            tasks.create_task(watchdog.resolve_missing(names, nodes), name="opcua missing nodes")
            tasks.create_task(delivery.state_unread(unfed), name="opcua unread signals")
            tasks.create_task(self._watch_certificates(client), name="opcua certificates")
            # Wait inside the group.  A group that fails while it is left counts its task as
            # cancelled from then on, and before Python 3.11.4 a time-out there, such as that of the
            # disconnect, becomes a cancellation: the link would end without an error.
            await asyncio.get_running_loop().create_future()

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

    def _grouped(self, nodes: Sequence[ResolvedNode]) -> dict[float, list[MonitoredItem]]:
        """The items of each publishing interval, one a node; unreadable nodes raise alarms."""
        groups: dict[float, dict[tuple[ua.NodeId, str], MonitoredItem]] = defaultdict(dict)
        remaining = iter(nodes)
        for index, stream in enumerate(self._mapping.streams):
            for signal, name in enumerate(stream.spec.names):
                node = next(remaining)
                self._sink.alarm(f"{index}/{name}", self._problem(stream, signal, node))
                if node.node_id is None or _unreadable(stream, signal, node):
                    continue
                key = (node.node_id, stream.spec.trigger)
                group = groups[stream.publishing_interval_s]
                group.setdefault(key, MonitoredItem(node, [])).feeds.append((index, signal))
        return {interval: list(group.values()) for interval, group in groups.items()}

    def _unfed(self, subscriptions: Sequence[Subscription]) -> Iterator[Signal]:
        """Every (stream, signal) that no item feeds."""
        monitored = [item for sub in subscriptions for item in sub.items.values()]
        fed = {feed for item in monitored if not item.refused for feed in item.feeds}
        for index, stream in enumerate(self._mapping.streams):
            for signal in range(len(stream.spec.names)):
                if (index, signal) not in fed:
                    yield index, signal

    def _problem(self, stream: StreamMapping, signal: int, node: ResolvedNode) -> str | None:
        name, dtype = stream.spec.names[signal], stream.spec.signals[signal].dtype
        if reason := _unreadable(stream, signal, node):
            return f"{name!r} of {stream.spec.address.stream} is not read: {reason}"
        if reason := shapes.misfit(node, stream.spec.signals[signal], stream.items[signal]):
            return f"{name!r} of {stream.spec.address.stream}: {reason}"
        if node.variant is not None and not fits(node.variant, dtype):
            return (
                f"{name!r} of {stream.spec.address.stream} is {node.variant.name} on the"
                f" server, which is {DTYPES[node.variant]}; the mapping says {dtype}"
            )
        return None

    async def _subscribe(
        self, client: Client, interval_s: float, items: Sequence[MonitoredItem], per_call: int
    ) -> Subscription:
        """Create a subscription with its items; items that the server refuses raise alarms."""
        subscription = await subscribe(
            client, self._mapping.streams, items, interval_s=interval_s, per_call=per_call
        )
        subscription.demultiplexer.items.answered_ns[:] = self._clock.monotonic_ns()
        for item in items:
            for stream, signal in item.feeds if item.refused else ():
                name = self._mapping.streams[stream].spec.names[signal]
                self._sink.alarm(
                    f"{stream}/{name}", f"{name!r} cannot be monitored: {item.refused}"
                )
        return subscription

    def _check_revised(self, subscriptions: Sequence[Subscription]) -> None:
        """Raise alarms if the server revised queues or sampling below what the periods need."""
        streams = self._mapping.streams
        short = slow = None
        for subscription in subscriptions:
            interval_s = subscription.interval_s
            for item in subscription.items.values():
                due = samples_a_publish(streams, item, interval_s)
                if item.refused:
                    continue
                name = streams[item.feeds[0][0]].spec.names[item.feeds[0][1]]
                if not due:
                    if item.queue <= 1:
                        short = short or (
                            f"the server keeps one value of {name!r} between publishes: if it"
                            " changes twice meanwhile, the first is lost unseen; state a period_s"
                        )
                    continue
                if item.queue < due:
                    short = short or (
                        f"the server keeps {item.queue} samples of {name!r} between publishes, and"
                        f" {due:.0f} come: use a shorter publishing_interval_s"
                    )
                # asyncua's server answers the publishing interval, and samples at every write
                if item.sampling_s > interval_s / due and item.sampling_s != interval_s:
                    slow = slow or (
                        f"the server looks at {name!r} every {item.sampling_s:g} s, and its period"
                        f" is {interval_s / due:g} s: values in between never come"
                    )
        self._sink.alarm("queues", short)
        self._sink.alarm("sampling", slow)


def _unreadable(stream: StreamMapping, signal: int, node: ResolvedNode) -> str:
    """Why a signal cannot be read of its node; empty if it can."""
    spec = stream.spec.signals[signal]
    return node.problem or shapes.misread(node, spec, stream.items[signal])


def _reasons(exc: Exception) -> str:
    """The reasons why a connection ended, as text; raises the bugs in a group."""
    if not isinstance(exc, ExceptionGroup):
        return str(exc) or type(exc).__name__
    breaks, bugs = exc.split(_BREAKS)
    if bugs is not None:
        raise bugs
    return "; ".join(sorted({_reasons(cause) for cause in breaks.exceptions})) if breaks else ""
