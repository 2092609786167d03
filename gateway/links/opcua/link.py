"""OPC UA: subscriptions that notice what they miss.

Streams of equal publishing interval share one subscription, and a node in several streams is
monitored once.  After a break nothing of the old client is used: nodes are found anew, and every
signal's first sample ends a gap.  Source: OPC UA Part 4, 5.13 (MonitoredItem) and 5.14
(Subscription).
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence

import structlog
from asyncua import Client, ua
from asyncua.ua.uaerrors import UaError

from broker.clock import Clock
from broker.errors import BedError, Refused
from gateway.links.opcua.delivery import Counts, Outlet
from gateway.links.opcua.security import Proof
from gateway.links.opcua.sequence import Follower
from gateway.links.opcua.session import Found, connected, most_per_call, resolve
from gateway.links.opcua.subscription import Monitored, Subscription, due_a_publish, subscribe
from gateway.links.opcua.types import DTYPES, fits
from gateway.links.opcua.watchdog import Watcher
from gateway.links.port import Sink
from gateway.mapping.model import Mapping, StreamMapping

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
"""Full jitter up to a pause that doubles: a server is found within 5 s and one time-out."""
REFUSED_PAUSE_S = 30.0
"""A server that is refused, or refuses us, is asked seldom: it may count wrong passwords."""
STEADY_S = 5.0
"""A connection that stood this long was a good one: the next pause is short again."""

_BREAKS = (UaError, OSError, TimeoutError, BedError)
"""What ends a connection and is no bug."""

log = structlog.get_logger()


class OpcUaLink:
    """The link of one mapping."""

    def __init__(
        self, mapping: Mapping, sink: Sink, clock: Clock, proof: Proof | None = None
    ) -> None:
        """sink: takes what is read, in the order of the server.  proof: where it is secured."""
        self.counts = Counts()
        self._mapping = mapping
        self._sink = sink
        self._clock = clock
        self._proof = proof

    async def run(self) -> None:
        """Read until cancelled, over every break."""
        pause_s, url = FIRST_PAUSE_S, self._mapping.server.url
        while True:
            since_s = asyncio.get_running_loop().time()
            try:
                async with connected(self._mapping.server, self._proof) as client:
                    self.counts.connects += 1
                    self._sink.alarm("server", None)
                    log.info("server was connected", url=url, connects=self.counts.connects)
                    await self._read(client)
            except Refused as exc:
                self._sink.alarm("server", f"{url} is not read: {exc}")
                await self._clock.sleep(REFUSED_PAUSE_S)
            except (*_BREAKS, ExceptionGroup) as exc:
                self._sink.alarm("server", f"{url} is not read: {_reasons(exc)}")
            stood_s = asyncio.get_running_loop().time() - since_s
            if stood_s > STEADY_S + self._mapping.server.timeout_s * 3:
                pause_s = FIRST_PAUSE_S
            await self._clock.sleep(random.uniform(0, pause_s))  # noqa: S311
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _read(self, client: Client) -> None:
        """Subscribe to all, then follow and watch until something breaks."""
        per_call = await most_per_call(client, self._mapping.server)
        names = self._mapping.nodes
        found = await resolve(client, names, per_call=per_call)
        subscriptions = [
            await self._subscribe(client, interval_s, items, per_call)
            for interval_s, items in self._grouped(found).items()
        ]
        self._judge(subscriptions)
        outlet = Outlet(self._mapping.streams, self._sink, self._clock, self.counts)
        for stream, signal in self._unread(subscriptions):
            await outlet.absent(stream, signal)
        follower = Follower(
            client,
            subscriptions,
            outlet,
            sink=self._sink,
            counts=self.counts,
            values_per_s=self._mapping.asked_per_s,
        )
        watcher = Watcher(
            client, self._mapping, subscriptions, clock=self._clock, per_call=per_call
        )
        async with asyncio.TaskGroup() as tasks:
            if subscriptions:
                tasks.create_task(follower.run(), name="opcua publishes")
            tasks.create_task(watcher.keep_alives(follower), name="opcua keep-alives")
            tasks.create_task(watcher.beat(follower), name="opcua heartbeat")
            tasks.create_task(watcher.ask_silent(outlet), name="opcua silence")
            tasks.create_task(watcher.look_again(names, found), name="opcua missing nodes")
            # Waiting inside: a group that breaks while it is left has its task counted as cancelled
            # from then on, and before Python 3.11.4 a time-out there, as that of the goodbye, is
            # a cancellation: the link would be over without a word.
            await asyncio.get_running_loop().create_future()

    def _grouped(self, found: Sequence[Found]) -> dict[float, list[Monitored]]:
        """The items of each publishing interval, a node once; problems become alarms."""
        groups: dict[float, dict[tuple[ua.NodeId, str], Monitored]] = defaultdict(dict)
        answers = iter(found)
        for index, stream in enumerate(self._mapping.streams):
            for signal, name in enumerate(stream.spec.names):
                answer = next(answers)
                self._sink.alarm(f"{index}/{name}", self._problem(stream, signal, answer))
                if answer.node is None or answer.problem:
                    continue
                key = (answer.node, stream.spec.trigger)
                group = groups[stream.publishing_interval_s]
                group.setdefault(key, Monitored(answer, [])).feeds.append((index, signal))
        return {interval: list(group.values()) for interval, group in groups.items()}

    def _unread(self, subscriptions: Sequence[Subscription]) -> Iterator[tuple[int, int]]:
        """Every (stream, signal) that no item feeds."""
        monitored = [item for one in subscriptions for item in one.items.values()]
        fed = {feed for item in monitored if not item.refused for feed in item.feeds}
        for index, stream in enumerate(self._mapping.streams):
            for signal in range(len(stream.spec.names)):
                if (index, signal) not in fed:
                    yield index, signal

    def _problem(self, stream: StreamMapping, signal: int, found: Found) -> str | None:
        one = stream.spec.signals[signal]
        if found.problem:
            return f"{one.name!r} of {stream.spec.address.stream} is not read: {found.problem}"
        if found.variant is not None and not fits(found.variant, one.dtype):
            return (
                f"{one.name!r} of {stream.spec.address.stream} is {found.variant.name} on the"
                f" server, which is {DTYPES[found.variant]}; the mapping says {one.dtype}"
            )
        return None

    async def _subscribe(
        self, client: Client, interval_s: float, items: Sequence[Monitored], per_call: int
    ) -> Subscription:
        """One subscription with its items; what the server refuses to monitor becomes an alarm."""
        made = await subscribe(
            client, self._mapping.streams, items, interval_s=interval_s, per_call=per_call
        )
        made.sorter.heard_ns[:] = self._clock.now_ns()
        for item in items:
            for stream, signal in item.feeds if item.refused else ():
                name = self._mapping.streams[stream].spec.names[signal]
                self._sink.alarm(
                    f"{stream}/{name}", f"{name!r} cannot be monitored: {item.refused}"
                )
        return made

    def _judge(self, subscriptions: Sequence[Subscription]) -> None:
        """Say so if the server granted less than the mapping's periods need."""
        streams = self._mapping.streams
        short = slow = None
        for one in subscriptions:
            for item in one.items.values():
                due = due_a_publish(streams, item, one.interval_s)
                if not due or item.refused:
                    continue
                name = streams[item.feeds[0][0]].spec.names[item.feeds[0][1]]
                if item.queue < due:
                    short = short or (
                        f"the server keeps {item.queue} samples of {name!r} between publishes, and"
                        f" {due:.0f} come: use a shorter publishing_interval_s"
                    )
                # asyncua's server tells the publishing interval, and samples at every write
                if item.sampling_s > one.interval_s / due and item.sampling_s != one.interval_s:
                    slow = slow or (
                        f"the server looks at {name!r} every {item.sampling_s:g} s, and its period"
                        f" is {one.interval_s / due:g} s: values in between never come"
                    )
        self._sink.alarm("queues", short)
        self._sink.alarm("sampling", slow)


def _reasons(exc: Exception) -> str:
    """Why a connection ended, in words; raises what is a bug among it."""
    if not isinstance(exc, ExceptionGroup):
        return str(exc) or type(exc).__name__
    breaks, bugs = exc.split(_BREAKS)
    if bugs is not None:
        raise bugs
    return "; ".join(sorted({_reasons(one) for one in breaks.exceptions})) if breaks else ""
