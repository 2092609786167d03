"""The uplink: publishes spooled batches on the bus, again and again until the recorder marks them.

Fresh batches are published on `data` in the order of their sequence numbers.  A batch that is not
marked in time is published again on `late`, as is everything unmarked after a reconnect, behind the
fresh batches.  The broker holds most of these already, and what it carries twice delays what is
fresh.  So the time allowed follows how late marks come (`mark_lag`), and the backlog goes in
portions: the next one when marks of the one before have come, and larger then.  While no marks
come, for instance because the store is down, one small portion now and then asks whether they do.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from broker import codec, messages
from broker.batch import Batch
from broker.bus import client
from broker.clock import NS_PER_S, Clock, SteadyTime
from broker.errors import Corrupt, Unavailable
from broker.messages import Held
from broker.namespace import EquipmentAddress, MarkTopic, StreamAddress, StreamTopic, Verb
from broker.streams import StreamSpec
from gateway.spool.lives import StreamLife
from gateway.spool.rows import SpooledBatch
from gateway.spool.spool import Depth, Spool
from gateway.uplink.mark_lag import MarkLag

LOOK_EVERY_S = 1.0
DRAIN_LOOK_S = 0.05
BACKLOG_AT_ONCE, MOST_AT_ONCE = 50, 5_000
"""Batches of a portion of the backlog: of the first, and at most."""
BACKLOG_PAUSE_S = 0.01
"""After so many batches as the first portion has, so that fresh batches keep flowing."""
NOT_ACCEPTED_S = 600.0
MARK_WAIT_S = 10.0
"""The longest wait for the marks of a portion, before a small one goes."""
MARK_LOOK_S = 0.05
MOST_PATIENCE_S = 300.0
"""The longest time that a mark may be on its way, however late marks come."""

log = structlog.get_logger()


@dataclass(slots=True)
class UplinkCounts:
    """Counters of the uplink since it started.

    commits, commit_ns: commits to the spool and the time they took.  batches: sent, those sent
    again too.  resent: sent again.  put_off: left to the backlog because the broker was slow.
    marks: received.  connects: connections on which the specs were announced.
    """

    commits: int = 0
    commit_ns: int = 0
    batches: int = 0
    resent: int = 0
    put_off: int = 0
    marks: int = 0
    connects: int = 0


class Uplink:
    """The uplink of one gateway: one publisher, one spool, one connection to the bus."""

    def __init__(
        self,
        bus: client.Bus,
        spool: Spool,
        clock: Clock,
        *,
        space: str,
        specs: Sequence[StreamSpec],
        fresh_batches: int = 500,
    ) -> None:
        """specs: of all streams, as registered.  fresh_batches: most batches that wait in memory
        for the broker; further ones are sent from the spool, on `late`.
        """
        self.counts = UplinkCounts()
        self.not_accepted = False
        self._bus = bus
        self._spool = spool
        self._clock = clock
        self._spool_time = SteadyTime(clock)
        """The time of the spool: how long its batches wait does not change with the wall time."""
        self._space = space
        self._specs = {str(spec.address): spec for spec in specs}
        self._fresh: asyncio.Queue[SpooledBatch] = asyncio.Queue(fresh_batches)
        self._is_held_up = False
        self._announced = 0
        """The connection on which the specs were announced; 0 for none."""
        self._watched, self._watched_ns = 0, clock.monotonic_ns()
        """The connection on which batches are watched to be accepted, and since when."""
        self._held: dict[StreamLife, Held] = {}
        self._lag = MarkLag()
        self._portion = BACKLOG_AT_ONCE
        """Batches that the next portion of the backlog has."""
        self._topics: dict[tuple[Verb, str], str] = {}

    async def send(self, batches: Sequence[tuple[StreamAddress, Batch]]) -> None:
        """Commit batches to the spool and publish them, without waiting for the broker.

        Raises Unavailable if the spool does not take them.
        """
        named = [(str(address), batch) for address, batch in batches]
        since_ns = self._clock.monotonic_ns()
        committed = await self._spool.commit(named, self._spool_time.now_ns())
        self.counts.commits += 1
        self.counts.commit_ns += self._clock.monotonic_ns() - since_ns
        for batch in committed[self._offer(committed) :]:
            self._queue(batch)

    def _offer(self, committed: Sequence[SpooledBatch]) -> int:
        """Publish as many batches as the broker takes now; returns how many were published.

        None if others wait before them.
        """
        waits = self._is_held_up or not self._fresh.empty()
        if waits or not self._announced or self._bus.connection_number != self._announced:
            return 0
        now_ns = self._clock.now_ns()
        count = self._bus.offer(
            [
                (self._topic(Verb.DATA, batch.stream), codec.stamped(batch.body, now_ns))
                for batch in committed
            ]
        )
        self.counts.batches += count
        if count:
            self._lag.sent(committed[0], self._clock.monotonic_ns())
        return count

    def _queue(self, batch: SpooledBatch) -> None:
        try:
            self._fresh.put_nowait(batch)
        except asyncio.QueueFull:
            self.counts.put_off += 1

    def mark_lag_s(self, depth: Depth) -> float:
        """How long the oldest batch of the spool has waited for its mark; 0 without one."""
        if depth.oldest_ns is None:
            return 0.0
        return max(self._spool_time.now_ns() - depth.oldest_ns, 0) / NS_PER_S

    async def run(self) -> None:
        """Announce specs, take marks and send the backlog, until cancelled."""
        publisher = next(iter(self._specs.values())).address.owner
        topic = str(MarkTopic(self._space, publisher))
        async with (
            self._bus.subscribe([topic], capacity=100, overflow="drop_oldest") as marks,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(self._announce(), name="uplink specs")
            tasks.create_task(self._send_fresh(), name="uplink fresh")
            tasks.create_task(self._send_backlog(), name="uplink backlog")
            await self._take_marks(marks, publisher)

    async def drained(self, timeout_s: float, *, with_later: bool = True) -> bool:
        """Wait until every batch is marked; False if that takes longer than `timeout_s`.

        with_later: whether batches count that are committed from now on.  Real time, the spool's
        answers too: on a busy disk each takes longer than the pause.
        """
        until_ns = None if with_later else self._spool_time.now_ns()
        try:
            async with asyncio.timeout(timeout_s):
                while self._waits(await self._spool.depth(), until_ns):
                    await self._clock.sleep(DRAIN_LOOK_S)
        except TimeoutError:
            return False
        return True

    @staticmethod
    def _waits(depth: Depth, until_ns: int | None) -> bool:
        """Whether a batch that was committed up to an instant waits for its mark."""
        if depth.oldest_ns is None or until_ns is None:
            return depth.unmarked > 0
        return depth.oldest_ns <= until_ns

    async def _announce(self) -> None:
        """Publish the specs, retained, on every new connection, then let the backlog go."""
        number = 0
        while True:
            standing = await self._bus.connection(after=number)
            try:
                for spec in self._specs.values():
                    topic = str(StreamTopic(self._space, Verb.SPEC, spec.address))
                    await self._bus.publish(topic, messages.encode_spec(spec), retain=True)
                while not self._fresh.empty():
                    self._fresh.get_nowait()  # it is in the spool, and all that is there is due now
                self._announced = standing
                self._lag.forget()
                await self._spool.all_due()
            except Unavailable as exc:
                log.warning("specs were not announced", reason=str(exc))
                await self._clock.sleep(LOOK_EVERY_S)
                continue
            number = standing
            self.counts.connects += 1

    async def _take_marks(self, marks: client.Inbox, publisher: EquipmentAddress) -> None:
        async for message in marks:
            try:
                held = _by_life(messages.decode_mark(message.payload), publisher)
                self._spool.mark(held)
                self._held.update(held)
                self._lag.marked(held, self._clock.monotonic_ns())
                self.counts.marks += 1
            except Corrupt as exc:
                log.warning("mark was refused", reason=str(exc))
            marks.ack(message)

    async def _send_fresh(self) -> None:
        """Publish the batches that the broker did not take when they were committed."""
        while True:
            batch = await self._fresh.get()
            self._is_held_up = True
            await self._publish(Verb.DATA, batch)
            self._is_held_up = False

    async def _send_backlog(self) -> None:
        """Publish batches that are due again, portion by portion, as fast as marks come."""
        while True:
            portion: list[SpooledBatch] = []
            try:
                portion = await self._send_portion()
                if portion and await self._wait_for_marks(portion):
                    self._portion = min(2 * self._portion, MOST_AT_ONCE)
                else:
                    self._portion = BACKLOG_AT_ONCE
                    await self._check_accepted()
            except Unavailable as exc:
                log.warning("backlog was not read", reason=str(exc))
            if not portion:
                await self._clock.sleep(LOOK_EVERY_S)

    async def _send_portion(self) -> list[SpooledBatch]:
        """Publish a portion of the batches that are due; returns those that were published."""
        sent: list[SpooledBatch] = []
        while (room := self._portion - len(sent)) > 0 and await self._may_send():
            lag_ns = self._lag.at(self._clock.monotonic_ns())
            patience_ns = min(2 * lag_ns, round(MOST_PATIENCE_S * NS_PER_S))
            now_ns, most = self._spool_time.now_ns(), min(room, BACKLOG_AT_ONCE)
            due = await self._spool.due(now_ns, most, patience_ns)
            for batch in due:
                if not await self._publish(Verb.LATE, batch):
                    return sent
                self.counts.resent += 1
                sent.append(batch)
            if not due:
                break
            await self._clock.sleep(BACKLOG_PAUSE_S)
        return sent

    async def _wait_for_marks(self, portion: Sequence[SpooledBatch]) -> bool:
        """Wait until half of a portion is marked; False if that takes too long.

        Half of it, as a single batch may never be: one that lacks a spec holds up no other.
        """
        waited_s, unmarked = 0.0, list(portion)
        while unmarked := [batch for batch in unmarked if not self._is_marked(batch)]:
            if 2 * len(unmarked) <= len(portion):
                break
            if waited_s >= MARK_WAIT_S or self._bus.connection_number != self._announced:
                return False
            await self._clock.sleep(MARK_LOOK_S)
            waited_s += MARK_LOOK_S
        return True

    def _is_marked(self, batch: SpooledBatch) -> bool:
        held = self._held.get(StreamLife(batch.stream, batch.epoch))
        return held is not None and batch.seq in held

    async def _may_send(self) -> bool:
        """Whether the specs were announced on this connection; waits for a connection."""
        return await self._bus.connection() == self._announced

    async def _check_accepted(self) -> None:
        """Set `not_accepted` if batches were sent in vain for ten minutes of one connection."""
        now_ns = self._clock.monotonic_ns()
        if self._watched != self._announced:
            self._watched, self._watched_ns = self._announced, now_ns
        lag_s = self.mark_lag_s(await self._spool.depth())
        late = min(lag_s, (now_ns - self._watched_ns) / NS_PER_S) > NOT_ACCEPTED_S
        if late and not self.not_accepted:
            log.error(
                "batches were not accepted",
                since_s=NOT_ACCEPTED_S,
                hint="look at the stream's dead letters",
            )
        self.not_accepted = late

    async def _publish(self, verb: Verb, batch: SpooledBatch) -> bool:
        """Publish one batch; False if it cannot go now: it is in the spool and goes later."""
        if self._bus.connection_number != self._announced:
            return False
        try:
            topic = self._topic(verb, batch.stream)
            sent = await self._bus.submit(topic, codec.stamped(batch.body, self._clock.now_ns()))
        except Unavailable:
            return False
        sent.add_done_callback(_ignore_failure)
        self.counts.batches += 1
        if verb is Verb.DATA:
            self._lag.sent(batch, self._clock.monotonic_ns())
        return True

    def _topic(self, verb: Verb, stream: str) -> str:
        """The topic of a stream, cached; the mapping may no longer have the stream."""
        key = (verb, stream)
        if key not in self._topics:
            self._topics[key] = str(StreamTopic(self._space, verb, StreamAddress.parse(stream)))
        return self._topics[key]


def _by_life(mark: messages.Mark, publisher: EquipmentAddress) -> Mapping[StreamLife, Held]:
    """The ranges of a mark, by life of a stream."""
    return {
        StreamLife(f"{publisher}/{stream}", epoch): held
        for stream, epochs in mark.streams.items()
        for epoch, held in epochs.items()
    }


def _ignore_failure(sent: asyncio.Future[None]) -> None:
    """Retrieve the error of a broken connection: the batch goes again from the spool."""
    if not sent.cancelled():
        sent.exception()
