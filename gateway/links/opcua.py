"""OPC UA: subscriptions that notice what they miss.

Streams of equal publishing interval share one subscription, and a node in several streams is
monitored once.  Sequence numbers are followed, a missing one is asked for again (Republish), the
Overflow bit and every break become gaps.  After a break nothing of the old client is used.
Source: OPC UA Part 4, 5.13 (MonitoredItem) and 5.14 (Subscription).
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import structlog
from asyncua import Client, ua
from asyncua.ua.ua_binary import struct_from_binary
from asyncua.ua.uaerrors import UaError

from broker.batch import BAD, NO_VALUE, Gap
from broker.clock import NS_PER_S, Clock
from broker.errors import BedError, Unavailable
from broker.streams import Trigger
from gateway.arrivals import Arrivals
from gateway.links.conversion import (
    DTYPES,
    Unfit,
    fits,
    instant_of,
    overflowed,
    quality_of,
    value_of,
)
from gateway.links.port import Sink
from gateway.links.resolving import Found, chunks, connected, most_per_call, resolve
from gateway.links.subscribing import Monitored, Subscription, subscribe
from gateway.mapping import Mapping, StreamMapping

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
"""Full jitter up to a pause that doubles: a server is found within 5 s and one time-out."""
STEADY_S = 5.0
"""A connection that stood this long was a good one: the next pause is short again."""
RETRY_MISSING_S = 30.0
LOOK_EVERY_S = 1.0

_BREAKS = (UaError, OSError, TimeoutError, BedError)
"""What ends a connection and is no bug."""

log = structlog.get_logger()


class OpcUaLink:
    """The link of one mapping."""

    def __init__(self, mapping: Mapping, sink: Sink, clock: Clock) -> None:
        """sink: takes what is read, in the order of the server."""
        self._mapping = mapping
        self._sink = sink
        self._clock = clock
        self._handing_on = False
        self.connects = 0
        self.republished = 0
        self.unfit = 0

    async def run(self) -> None:
        """Read until cancelled, over every break."""
        pause_s = FIRST_PAUSE_S
        while True:
            since_s = asyncio.get_running_loop().time()
            try:
                async with connected(self._mapping.server) as client:
                    self.connects += 1
                    self._sink.alarm("server", None)
                    log.info(
                        "server was connected", url=self._mapping.server.url, connects=self.connects
                    )
                    await self._read(client)
            except (*_BREAKS, ExceptionGroup) as exc:
                self._sink.alarm(
                    "server", f"{self._mapping.server.url} is not read: {_reasons(exc)}"
                )
            if (
                asyncio.get_running_loop().time() - since_s
                > STEADY_S + self._mapping.server.timeout_s * 3
            ):
                pause_s = FIRST_PAUSE_S
            await self._clock.sleep(random.uniform(0, pause_s))  # noqa: S311
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _read(self, client: Client) -> None:
        """Subscribe to all, then follow the publishes until something breaks."""
        per_call = await most_per_call(client, self._mapping.server)
        found = await resolve(client, self._names(), per_call=per_call)
        groups = self._grouped(found)
        subscriptions = {}
        for interval_s, items in groups.items():
            one = await self._subscribe(client, interval_s, items, per_call)
            subscriptions[one.id] = one
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(client, subscriptions), name="opcua publishes")
            tasks.create_task(self._watch(subscriptions), name="opcua keep-alives")
            tasks.create_task(
                self._ask_silent(client, subscriptions, per_call), name="opcua silence"
            )
            if any(one.problem for one in found):
                tasks.create_task(
                    self._look_again(client, found, per_call), name="opcua missing nodes"
                )

    def _names(self) -> list[Any]:
        return [item.node for stream in self._mapping.streams for item in stream.items]

    # --- subscribing -----------------------------------------------------------------------------

    def _grouped(self, found: Sequence[Found]) -> dict[float, list[Monitored]]:
        """The items of each publishing interval, a node once; problems become alarms."""
        groups: dict[float, dict[tuple[ua.NodeId, Trigger], Monitored]] = defaultdict(dict)
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
        for item in items:
            item.heard_ns = self._clock.now_ns()
            for stream, signal in item.feeds if item.refused else ():
                name = self._mapping.streams[stream].spec.names[signal]
                self._sink.alarm(
                    f"{stream}/{name}", f"{name!r} cannot be monitored: {item.refused}"
                )
        return made

    # --- following -------------------------------------------------------------------------------

    async def _follow(self, client: Client, subscriptions: dict[int, Subscription]) -> None:
        """One publish request after the other; answers are dealt with in the order they come."""
        acknowledged: list[ua.SubscriptionAcknowledgement] = []
        while True:
            answer = await client.uaclient.publish(acknowledged)
            answer.ResponseHeader.ServiceResult.check()
            result = answer.Parameters
            acknowledged = []
            subscription = subscriptions.get(result.SubscriptionId)
            if subscription is None:
                continue
            subscription.heard_at_s = asyncio.get_running_loop().time()
            self._sink.heard(subscription.streams)
            message = result.NotificationMessage
            if not message.NotificationData:
                continue  # a keep-alive tells the next number and uses none
            self._handing_on = True
            for number in range(subscription.next_sequence, message.SequenceNumber):
                await self._recover(client, subscription, number)
            await self._hand_on(subscription, message)
            for one in subscriptions.values():  # while we were busy nobody could be heard
                one.heard_at_s = asyncio.get_running_loop().time()
            self._handing_on = False
            subscription.next_sequence = message.SequenceNumber + 1
            acknowledged = [ua.SubscriptionAcknowledgement(subscription.id, message.SequenceNumber)]

    async def _recover(self, client: Client, subscription: Subscription, number: int) -> None:
        """A publish was lost: have it sent again, or let each item's next sample end a gap."""
        request = ua.RepublishRequest()
        request.Parameters.SubscriptionId = subscription.id
        request.Parameters.RetransmitSequenceNumber = number
        try:
            data = await client.uaclient._send_request(request)  # noqa: SLF001 - asyncua has no republish of its own
            answer = struct_from_binary(ua.RepublishResponse, data)
            answer.ResponseHeader.ServiceResult.check()
        except UaError:
            log.warning("publish was lost", subscription=subscription.id, sequence=number)
            for item in subscription.items.values():
                item.lost = True
        else:
            self.republished += 1
            await self._hand_on(subscription, answer.NotificationMessage)

    async def _hand_on(self, subscription: Subscription, message: ua.NotificationMessage) -> None:
        """One publish's samples, stream by stream."""
        rows: dict[tuple[int, bool], list[tuple[int, int, Any, int]]] = defaultdict(list)
        for data in message.NotificationData:
            if isinstance(data, ua.StatusChangeNotification):
                raise Unavailable(f"the server ended the subscription: {data.Status.name}")
            for told in getattr(data, "MonitoredItems", ()):
                item = subscription.items.get(told.ClientHandle)
                if item is not None:
                    await self._sort(item, told.Value, rows)
        for (stream, fresh), found in rows.items():
            dtypes = self._mapping.streams[stream].spec.dtypes
            await self._sink.take(stream, Arrivals.of(dtypes, found), fresh=fresh)

    async def _sort(
        self,
        item: Monitored,
        told: ua.DataValue,
        rows: dict[tuple[int, bool], list[tuple[int, int, Any, int]]],
    ) -> None:
        """One notification into the rows of every stream it feeds, with the gap that it ends."""
        item.heard_ns = self._clock.now_ns()
        status = told.StatusCode
        if status is not None and status.value == ua.StatusCodes.BadWaitingForInitialData:
            return  # there is no value yet, so there is no sample
        time_ns = self._time_of(told)
        cause = "server-overflow" if overflowed(status) else None
        if item.lost:
            cause = "lost-notification"
        if item.fresh:
            cause = "gateway-down" if self.connects == 1 else "source-unreachable"
        for stream, signal in item.feeds:
            if cause:
                await self._hole(stream, signal, time_ns, cause)
            value, quality = self._sample(stream, signal, told)
            rows[stream, item.fresh].append((signal, time_ns, value, quality))
        item.fresh = item.lost = False

    def _time_of(self, told: ua.DataValue) -> int:
        moment = told.SourceTimestamp or told.ServerTimestamp
        return self._clock.now_ns() if moment is None else instant_of(moment)

    def _sample(self, stream: int, signal: int, told: ua.DataValue) -> tuple[Any, int]:
        quality = quality_of(told.StatusCode)
        one = self._mapping.streams[stream].spec.signals[signal]
        if quality == BAD:
            return NO_VALUE[one.dtype], BAD
        try:
            return value_of(told.Value.Value if told.Value else None, one.dtype), quality
        except Unfit as exc:
            self.unfit += 1
            name = self._mapping.streams[stream].spec.address.stream
            self._sink.alarm(
                f"{stream}/{one.name}", f"a value of {one.name!r} of {name} is stored as bad: {exc}"
            )
            return NO_VALUE[one.dtype], BAD

    async def _hole(self, stream: int, signal: int, until_ns: int, cause: str) -> None:
        """What lies between the last sample and this one is missing, if anything can."""
        last_ns = self._sink.last_ns(stream, signal)
        spec = self._mapping.streams[stream].spec
        if last_ns is None or until_ns - last_ns <= max(round(spec.period_s * NS_PER_S), 1):
            return
        await self._sink.gap(stream, Gap((spec.names[signal],), last_ns + 1, until_ns - 1, cause))

    # --- watching --------------------------------------------------------------------------------

    async def _watch(self, subscriptions: dict[int, Subscription]) -> None:
        """Give the connection up when a subscription is silent beyond its keep-alives."""
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            if self._handing_on:  # that is our slowness, not the server's silence
                continue
            now_s = asyncio.get_running_loop().time()
            for one in subscriptions.values():
                if now_s - one.heard_at_s > one.quiet_s:
                    raise Unavailable(
                        f"no sign of life from {self._mapping.server.url} for {one.quiet_s:.0f} s"
                    )

    async def _ask_silent(
        self, client: Client, subscriptions: dict[int, Subscription], per_call: int
    ) -> None:
        """Trigger `value`: what says nothing for long is read, and that is a sample."""
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            now_ns = self._clock.now_ns()
            silent = [
                item
                for one in subscriptions.values()
                for item in one.items.values()
                if self._patience_ns(item) <= now_ns - item.heard_ns
            ]
            for chunk in chunks(silent, per_call):
                request = ua.ReadParameters()
                request.TimestampsToReturn = ua.TimestampsToReturn.Both
                request.NodesToRead = [
                    ua.ReadValueId(item.found.node, ua.AttributeIds.Value) for item in chunk
                ]
                answers = await client.uaclient.read(request)
                await self._take_read(chunk, answers)

    def _patience_ns(self, item: Monitored) -> int:
        specs = [self._mapping.streams[stream].spec for stream, _ in item.feeds]
        if any(spec.trigger is Trigger.TIMESTAMP for spec in specs):
            return 2**63
        return round(min(spec.max_silence_s for spec in specs) * NS_PER_S)

    async def _take_read(self, items: Sequence[Monitored], answers: Sequence[ua.DataValue]) -> None:
        for item, answer in zip(items, answers, strict=True):
            item.heard_ns = self._clock.now_ns()
            if (
                answer.StatusCode is not None
                and answer.StatusCode.value == ua.StatusCodes.BadWaitingForInitialData
            ):
                continue
            moment = answer.ServerTimestamp
            time_ns = item.heard_ns if moment is None else instant_of(moment)
            for stream, signal in item.feeds:
                value, quality = self._sample(stream, signal, answer)
                dtypes = self._mapping.streams[stream].spec.dtypes
                row = (signal, time_ns, value, quality)
                await self._sink.take(stream, Arrivals.of(dtypes, [row]), fresh=False)

    async def _look_again(self, client: Client, before: Sequence[Found], per_call: int) -> None:
        """Nodes that were missing: when one turns up, begin anew with all of them."""
        while True:
            await self._clock.sleep(RETRY_MISSING_S)
            found = await resolve(client, self._names(), per_call=per_call)
            if any(old.problem and not new.problem for old, new in zip(before, found, strict=True)):
                raise Unavailable("a node that was missing has turned up")


def _reasons(exc: Exception) -> str:
    """Why a connection ended, in words; raises what is a bug among it."""
    if not isinstance(exc, ExceptionGroup):
        return str(exc) or type(exc).__name__
    breaks, bugs = exc.split(_BREAKS)
    if bugs is not None:
        raise bugs
    return "; ".join(sorted({_reasons(one) for one in breaks.exceptions})) if breaks else ""
