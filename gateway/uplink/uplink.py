"""The uplink: publishes spooled batches on the bus, again and again until the recorder marks them.

Fresh batches are published on `data` in the order of their sequence numbers.  A batch that is not
marked in time is published again on `late`, as is everything unmarked after a reconnect, behind the
fresh batches.  While no marks come, for instance because the store is down, one portion of the
backlog now and then is enough to learn whether they come again: the broker holds every batch
already, and what it carries twice delays what is fresh.
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

LOOK_EVERY_S = 1.0
DRAIN_LOOK_S = 0.05
BACKLOG_AT_ONCE = 50
BACKLOG_PAUSE_S = 0.01
"""Between portions of the backlog, so that fresh batches keep flowing: at most 5,000 a second."""
NOT_ACCEPTED_S = 600.0
UNMARKED_S = 10.0
"""After so long without a new mark, no recorder is running, or it does not store our batches."""
PROBE_EVERY_S = 10.0
"""The pause between two portions of the backlog while no marks come."""

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
        self._progress_ns = clock.monotonic_ns()
        """The monotonic time of the last mark that held something new, or of the last connect."""
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

    async def drained(self, timeout_s: float, *, until_ns: int | None = None) -> bool:
        """Wait until every batch is marked; False if that takes longer than `timeout_s`.

        until_ns: batches committed later do not count.  Real time, the spool's answers too: on a
        busy disk each takes longer than the pause.
        """
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
                self._announced, self._progress_ns = standing, self._clock.monotonic_ns()
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
                self._note_progress(held)
                self.counts.marks += 1
            except Corrupt as exc:
                log.warning("mark was refused", reason=str(exc))
            marks.ack(message)

    def _note_progress(self, held: Mapping[StreamLife, Held]) -> None:
        """Note the time if a mark holds anything new: a recorder is storing our batches."""
        if any(self._held.get(life) != ranges for life, ranges in held.items()):
            self._held.update(held)
            self._progress_ns = self._clock.monotonic_ns()

    async def _send_fresh(self) -> None:
        """Publish the batches that the broker did not take when they were committed."""
        while True:
            batch = await self._fresh.get()
            self._is_held_up = True
            await self._publish(Verb.DATA, batch)
            self._is_held_up = False

    async def _send_backlog(self) -> None:
        """Publish batches that are due again: all of them, or one portion while no marks come."""
        while True:
            probed = False
            try:
                while not probed and await self._may_send() and await self._send_due():
                    probed = self._is_unmarked()
                    await self._clock.sleep(BACKLOG_PAUSE_S)
                await self._check_accepted()
            except Unavailable as exc:
                log.warning("backlog was not read", reason=str(exc))
            await self._pause(probed=probed)

    def _is_unmarked(self) -> bool:
        return self._clock.monotonic_ns() - self._progress_ns > round(UNMARKED_S * NS_PER_S)

    async def _pause(self, *, probed: bool) -> None:
        """Sleep before the next look; after a probe, until a mark comes or a probe is due again."""
        await self._clock.sleep(LOOK_EVERY_S)
        waited_s = LOOK_EVERY_S
        while probed and self._is_unmarked() and waited_s < PROBE_EVERY_S:
            await self._clock.sleep(LOOK_EVERY_S)
            waited_s += LOOK_EVERY_S

    async def _send_due(self) -> bool:
        """Publish one portion of the backlog; True if there may be more to publish now."""
        due = await self._spool.due(self._spool_time.now_ns(), BACKLOG_AT_ONCE)
        for batch in due:
            if not await self._publish(Verb.LATE, batch):
                return False
            self.counts.resent += 1
        return bool(due)

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
