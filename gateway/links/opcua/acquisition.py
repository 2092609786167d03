"""Acquisition: how each signal of a connection is read, by a subscription or by polling.

Streams of equal publishing interval share a subscription, and a node in several streams is
monitored once.  Each refusal of the server takes one thing: a node that is missing, an item, a
filter, a subscription or the whole service.  What the server does not publish is polled.  All of it
is asked for again with back-off, in the same connection.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import structlog
from asyncua import Client, ua

from broker.clock import Backoff, Clock
from broker.streams import Trigger
from gateway.links.opcua import read_values, refusal_codes, resolution, shapes, subscription
from gateway.links.opcua.call_sizes import ServerLimits
from gateway.links.opcua.resolution import ResolvedNode
from gateway.links.opcua.subscription import MonitoredItem, Subscription
from gateway.links.opcua.types import DTYPES, fits
from gateway.links.opcua.unread_signals import Signal, UnreadSignals
from gateway.links.port import Sink
from gateway.mapping.model import Mapping, StreamMapping

FIRST_RETRY_S, LONGEST_RETRY_S = 1.0, 30.0
"""The pauses before a server is asked again for what it refused double from first to longest."""
MOST_SUBSCRIPTIONS = 20
"""Subscriptions that the items of one publishing interval are divided among."""

OnOpened = Callable[[Subscription], None]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalRead:
    """How a signal is read.

    variant: its type on the server, None if that does not say it.  polled_s: seconds between two
    reads, 0 if it is not polled.  refused: the status with which the server refused to publish it.
    """

    variant: ua.VariantType | None
    is_published: bool
    polled_s: float
    refused: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueRead:
    """The answer to the read of a value.

    time_ns: source time stamp, NO_TIME for none.  bad: name of a bad status, then there is no
    value; empty for any other.
    """

    time_ns: int
    value: Any
    bad: str = ""

    @classmethod
    def from_answer(cls, answer: ua.DataValue) -> Self:
        """The value in an answer of the server."""
        is_bad = read_values.is_bad(answer)
        return cls(
            time_ns=read_values.source_ns(answer),
            value=None if is_bad else read_values.value_of(answer),
            bad=refusal_codes.name_of(read_values.status_of(answer)) if is_bad else "",
        )


class Acquisition:
    """The subscriptions of one connection, with all items of the mapping.

    is_open: whether the server was asked for everything.  subscriptions: those that the server has
    none for have the id 0, and their items are polled.  changes: grows with each change of what is
    polled.
    """

    def __init__(
        self,
        client: Client,
        mapping: Mapping,
        limits: ServerLimits,
        *,
        sink: Sink,
        clock: Clock,
        unread: UnreadSignals,
    ) -> None:
        """limits: of the server, over all connections.  unread: of all connections, likewise."""
        self.is_open = False
        self.subscriptions: list[Subscription] = []
        self.changes = 0
        self._client = client
        self._mapping = mapping
        self._limits = limits
        self._sink = sink
        self._clock = clock
        self._unread = unread
        self._opened: OnOpened = _ignore

    # --- at the connect --------------------------------------------------------------------------

    async def open(self) -> None:
        """Resolve all nodes, and subscribe to them as far as the server lets us."""
        await resolution.read_limits(self._client, self._limits)
        nodes = await resolution.resolve(self._client, self._mapping.nodes, self._limits)
        for prepared in await self._created(self._grouped(nodes)):
            self.subscriptions.append(prepared)
            await self._monitor(prepared, _readable(prepared))
        self._unread.current = {feed for item in await self._unreadable() for feed in item.feeds}
        self._log_polled()
        self.is_open = True

    def _grouped(self, nodes: Sequence[ResolvedNode]) -> dict[float, list[MonitoredItem]]:
        """The items of each publishing interval, one a node; unreadable nodes raise alarms."""
        groups: dict[float, dict[object, MonitoredItem]] = defaultdict(dict)
        remaining, names = iter(nodes), iter(self._mapping.nodes)
        for index, stream in enumerate(self._mapping.streams):
            for signal in range(len(stream.spec.names)):
                node, name = next(remaining), next(names)
                problem = _problem(stream, signal, node)
                self._alarm_of_node(index, signal, node, problem)
                key = (name if node.node_id is None else node.node_id, stream.spec.trigger, problem)
                group = groups[stream.publishing_interval_s]
                new = MonitoredItem(name=name, node=node, feeds=[], problem=problem)
                group.setdefault(key, new).feeds.append((index, signal))
        return {interval_s: list(group.values()) for interval_s, group in groups.items()}

    def _alarm_of_node(self, index: int, signal: int, node: ResolvedNode, problem: str) -> None:
        """Raise or clear the alarms of a signal: it is not read, or has another type or length."""
        stream = self._mapping.streams[index]
        name, address = stream.spec.names[signal], stream.spec.address.stream
        sentence = f"{name!r} of {address} is not read: {problem}" if problem else None
        self._sink.alarm(f"{index}/{name}", sentence)
        misfit = None if problem else _misfit(stream, signal, node)
        sentence = f"{name!r} of {address} {misfit}" if misfit else None
        self._sink.alarm(f"{index}/{name}:type", sentence)

    async def _created(self, groups: dict[float, list[MonitoredItem]]) -> list[Subscription]:
        """The subscriptions of the items of each publishing interval.

        Where the server has one, but not another, its items join that one.
        """
        created: list[Subscription] = []
        for interval_s, items in sorted(groups.items()):
            new = subscription.prepare(self._mapping.streams, items, interval_s)
            await subscription.create(self._client, new, self._limits)
            last = created[-1] if created else None
            if new.id or last is None or not last.id:
                created.append(new)
                continue
            joined = subscription.prepare(
                self._mapping.streams, [*last.items.values(), *items], last.interval_s
            )
            joined.id, joined.timeout_s = last.id, last.timeout_s
            joined.answered_at_s = last.answered_at_s
            created[-1] = joined
        return created

    async def _monitor(self, group: Subscription, handles: Sequence[int]) -> None:
        """Monitor items of a subscription; divides it if the server takes no more in it."""
        self.changes += 1
        if not group.id or not handles:
            return
        columns = group.demultiplexer.items
        await subscription.monitor(
            self._client, group, self._mapping.streams, self._limits, handles
        )
        # the first sample of each repeats the server's last value
        columns.fresh[[handle for handle in handles if group.items[handle].id]] = True
        columns.answered_ns[handles] = self._clock.monotonic_ns()
        rest = [h for h in handles if group.items[h].refusal in refusal_codes.FULL]
        if rest and len(rest) < len(group.items) and len(self.subscriptions) < MOST_SUBSCRIPTIONS:
            await self._divide(group, rest)

    async def _divide(self, full: Subscription, rest: Sequence[int]) -> None:
        """Move items that a full subscription does not take into one of their own."""
        items = [full.items.pop(handle) for handle in rest]
        full.demultiplexer.items.fresh[rest] = False  # nothing comes for them any more
        new = subscription.prepare(self._mapping.streams, items, full.interval_s)
        new.refusal = items[0].refusal
        self.subscriptions.append(new)
        await self._open_again(new)

    async def _open_again(self, closed: Subscription) -> None:
        """Create a subscription that the server had refused; delete it if it takes no item."""
        await subscription.create(self._client, closed, self._limits)
        if not closed.id:
            return
        self._opened(closed)
        readable = _readable(closed)
        await self._monitor(closed, readable)
        if readable and not any(item.id for item in closed.items.values()):
            closed.refusal = closed.items[readable[0]].refusal
            await subscription.delete(self._client, closed)

    async def _unreadable(self) -> list[MonitoredItem]:
        """The items that are not read at all: polled ones are read once to know."""
        items = [item for each in self.subscriptions for item in each.items.values()]
        polled = [item for item in items if item.is_polled]
        answers = await read_values.read(
            self._client, [item.node_id for item in polled], self._limits
        )
        unread = [item for item in items if item.problem]
        for item, answer in zip(polled, answers, strict=True):
            if read_values.is_bad(answer):
                unread.append(item)
        return unread

    # --- while it is read ------------------------------------------------------------------------

    def polled(self) -> Iterator[tuple[Subscription, int, float]]:
        """The items that are polled: subscription, handle, and seconds between two reads."""
        for each in self.subscriptions:
            for handle, item in each.items.items():
                if item.is_polled:
                    streams = [self._mapping.streams[stream] for stream, _ in item.feeds]
                    yield each, handle, min(stream.polling_s for stream in streams)

    def reads(self) -> dict[Signal, SignalRead]:
        """How each signal is read that has a node."""
        polled = {(id(each), handle): polling_s for each, handle, polling_s in self.polled()}
        reads: dict[Signal, SignalRead] = {}
        for each in self.subscriptions:
            for handle, item in each.items.items():
                if item.problem:
                    continue
                refusal = item.refusal or each.refusal
                read = SignalRead(
                    variant=item.node.variant,
                    is_published=bool(item.id),
                    polled_s=polled.get((id(each), handle), 0.0),
                    refused=refusal_codes.name_of(refusal) if refusal else "",
                )
                reads.update(dict.fromkeys(item.feeds, read))
        return reads

    async def read_now(self, most: int) -> dict[Signal, ValueRead]:
        """The values of signals as they are now, `most` at most, without making samples."""
        fed = [
            item for each in self.subscriptions for item in each.items.values() if not item.problem
        ][:most]
        nodes = [item.node_id for item in fed]
        answers = await read_values.read(self._client, nodes, self._limits)
        return {
            signal: ValueRead.from_answer(answer)
            for item, answer in zip(fed, answers, strict=True)
            for signal in item.feeds
        }

    def trigger_of(self, item: MonitoredItem) -> Trigger:
        """The trigger of an item's signals, which all have the same."""
        return self._mapping.streams[item.feeds[0][0]].spec.trigger

    def note_unreadable(self, item: MonitoredItem, answer: ua.DataValue) -> None:
        """Raise the alarm of signals whose item is neither published nor read."""
        self._unread.current.update(item.feeds)
        read = refusal_codes.name_of(read_values.status_of(answer))
        for stream, signal in item.feeds:
            spec = self._mapping.streams[stream].spec
            name = spec.names[signal]
            refused = item.refused or "there is no subscription"
            self._sink.alarm(
                f"{stream}/{name}",
                f"{name!r} of {spec.address.stream} cannot be monitored: {refused}; and to read it"
                f" the server says {read}",
            )

    async def ask_again(self, opened: OnOpened) -> None:
        """Ask again with back-off for what the server refused, or does not have, until cancelled.

        opened: is called with each subscription that the server has now, before it has items.
        """
        self._opened = opened
        pauses = Backoff(
            self._clock, first_s=FIRST_RETRY_S, longest_s=LONGEST_RETRY_S, jitter=False
        )
        before: set[tuple[int, int]] = set()
        while True:
            await pauses.pause()
            refused = set(self._refused())
            if refused - before or not refused:
                pauses.reset()
            before = refused
            if refused:
                await self._ask_again()

    def _refused(self) -> Iterator[tuple[int, int]]:
        """The items that are to be asked for again, by the number of their subscription."""
        for number, each in enumerate(self.subscriptions):
            gone = each.demultiplexer.items.gone
            for handle, item in each.items.items():
                if not item.id or gone[handle]:
                    yield number, handle

    async def _ask_again(self) -> None:
        """Resolve again the nodes that are missing, and ask for what the server refused."""
        for each in list(self.subscriptions):
            await self._resolve_again(each)
            if not each.id:
                await self._open_again(each)
                continue
            again = [h for h, item in each.items.items() if item.is_polled]
            if again:
                await self._monitor(each, again)

    async def _resolve_again(self, group: Subscription) -> None:
        """Look for the nodes that were missing, or are gone; those that are there are asked for."""
        gone = group.demultiplexer.items.gone
        handles = [h for h, item in group.items.items() if item.problem or gone[h]]
        if not handles:
            return
        names = [group.items[handle].name for handle in handles]
        nodes = await resolution.resolve(self._client, names, self._limits)
        there: list[int] = []
        for handle, node in zip(handles, nodes, strict=True):
            item = group.items[handle]
            if self._take_node(item, node):
                there.append(handle)
        monitored = [handle for handle in there if group.items[handle].id]
        if monitored:
            await subscription.delete_items(self._client, group, monitored)
        self.changes += 1

    def _take_node(self, item: MonitoredItem, node: ResolvedNode) -> bool:
        """Note a node that was looked for again; True if it can be read now."""
        problems = [
            (stream, signal, _problem(self._mapping.streams[stream], signal, node))
            for stream, signal in item.feeds
        ]
        problem = next((each for *_, each in problems if each), "")
        if problem and item.id:
            return False  # its alarm stands since it is gone
        if problem != item.problem:
            for stream, signal, each in problems:
                self._alarm_of_node(stream, signal, node, each)
        item.problem = problem
        if not problem:
            item.node = node
        return not problem

    def _log_polled(self) -> None:
        """Say once how many items are polled, and why the server does not publish them."""
        refusals = {
            (each.refusal or each.items[handle].refusal) for each, handle, _ in self.polled()
        }
        names = sorted(refusal_codes.name_of(code) for code in refusals)
        count = sum(1 for _ in self.polled())
        if count and self._limits.is_new(f"polled {count} {names}"):
            log.warning("items are polled", items=count, server_says=names)


def _ignore(_subscription: Subscription) -> None:
    """Do nothing: no publish is awaited yet."""


def _readable(group: Subscription) -> list[int]:
    """The handles of the items whose node can be read."""
    return [handle for handle, item in group.items.items() if not item.problem]


def _problem(stream: StreamMapping, signal: int, node: ResolvedNode) -> str:
    """Why a signal cannot be read of its node; empty if it can."""
    spec = stream.spec.signals[signal]
    return node.problem or shapes.misread(node, spec, stream.items[signal])


def _misfit(stream: StreamMapping, signal: int, node: ResolvedNode) -> str:
    """How the type or length of a node differs from its signal; empty if it does not."""
    spec = stream.spec.signals[signal]
    if reason := shapes.misfit(node, spec, stream.items[signal]):
        return f"may be bad: {reason}"
    if node.variant is not None and not fits(node.variant, spec.dtype):
        own = DTYPES[node.variant]
        named = f"{node.variant.name} on the server, which is {own}"
        return f"is {named}; the mapping says {spec.dtype}"
    return ""
