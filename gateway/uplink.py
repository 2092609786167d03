"""The uplink: from the spool to the recorder, until it says that it has it.

Fresh batches go on `data` in the order of their numbers.  What is not marked in time goes again on
`late`, as does everything unmarked after a break, behind what is fresh.  While nobody marks
anything, as with the store away, one portion now and then is enough to ask: the broker has it all
already, and what it carries twice stands before what is fresh.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from broker import codec, messages
from broker.batch import Batch
from broker.bus import client
from broker.clock import NS_PER_S, Clock
from broker.errors import Corrupt, Unavailable
from broker.messages import Held
from broker.namespace import EquipmentAddress, MarkTopic, StreamAddress, StreamTopic, Verb
from broker.streams import StreamSpec
from gateway.spool.rows import Kept
from gateway.spool.spool import Spool

LOOK_EVERY_S = 1.0
BACKLOG_AT_ONCE = 50
BACKLOG_PAUSE_S = 0.01
"""Between portions of the backlog, so that fresh batches keep flowing: at most 5,000 a second."""
NOT_ACCEPTED_S = 600.0
UNHEARD_S = 10.0
"""Nothing was marked for so long: nobody records, or not what we send."""
ASK_EVERY_S = 10.0

log = structlog.get_logger()


@dataclass(slots=True)
class Sent:
    """What the uplink has done since it started."""

    commits: int = 0
    commit_ns: int = 0
    batches: int = 0
    again: int = 0
    put_off: int = 0
    marks: int = 0
    connects: int = 0


class Uplink:
    """One gateway's way out."""

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
        """specs: of all streams, as registered.  fresh_batches: that wait for the broker; one more
        and it goes later, as `late`.
        """
        self.sent = Sent()
        self.not_accepted = False
        self._bus = bus
        self._spool = spool
        self._clock = clock
        self._space = space
        self._specs = {str(spec.address): spec for spec in specs}
        self._fresh: asyncio.Queue[Kept] = asyncio.Queue(fresh_batches)
        self._is_held_up = False
        self._announced = 0
        self._told: dict[str, Held] = {}
        self._news_ns = clock.now_ns()
        """When a mark last said something new, or the connection was made."""
        self._topics: dict[tuple[Verb, str], str] = {}

    async def send(self, batches: Sequence[tuple[StreamAddress, Batch]]) -> None:
        """Commit batches to the spool and have them published, without waiting for the broker.

        Raises Unavailable if the spool does not take them.
        """
        named = [(str(address), batch) for address, batch in batches]
        since_ns = self._clock.now_ns()
        committed = await self._spool.commit(named, since_ns)
        self.sent.commits += 1
        self.sent.commit_ns += self._clock.now_ns() - since_ns
        for kept in committed[self._offered(committed) :]:
            self._put_by(kept)

    def _offered(self, committed: Sequence[Kept]) -> int:
        """Send batches without waiting; how many went: none if others wait before them."""
        waits = self._is_held_up or not self._fresh.empty()
        if waits or not self._announced or self._bus.standing != self._announced:
            return 0
        now_ns = self._clock.now_ns()
        went = self._bus.offer(
            [
                (self._topic(Verb.DATA, kept.stream), codec.stamped(kept.body, now_ns))
                for kept in committed
            ]
        )
        self.sent.batches += went
        return went

    def _put_by(self, kept: Kept) -> None:
        try:
            self._fresh.put_nowait(kept)
        except asyncio.QueueFull:
            self.sent.put_off += 1

    async def run(self) -> None:
        """Announce, take marks and send again, until cancelled."""
        publisher = next(iter(self._specs.values())).address.owner
        topic = str(MarkTopic(self._space, publisher))
        async with (
            self._bus.subscribe([topic], capacity=100, overflow="drop_oldest") as marks,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(self._announce(), name="uplink specs")
            tasks.create_task(self._send_fresh(), name="uplink fresh")
            tasks.create_task(self._send_again(), name="uplink backlog")
            await self._take_marks(marks, publisher)

    async def drained(self, patience_s: float) -> bool:
        """Whether all that was sent was marked within this time."""
        waited_s = 0.0
        while (await self._spool.depth()).unmarked:
            if waited_s >= patience_s:
                return False
            await self._clock.sleep(0.05)
            waited_s += 0.05
        return True

    async def _announce(self) -> None:
        """On every connection: the specs first, retained, then samples; the backlog is due."""
        number = 0
        while True:
            standing = await self._bus.connection(after=number)
            try:
                for spec in self._specs.values():
                    topic = str(StreamTopic(self._space, Verb.SPEC, spec.address))
                    await self._bus.publish(topic, messages.encode_spec(spec), retain=True)
                while not self._fresh.empty():
                    self._fresh.get_nowait()  # it is in the spool, and all that is there is due now
                self._announced, self._news_ns = standing, self._clock.now_ns()
                await self._spool.all_due()
            except Unavailable as exc:
                log.warning("specs were not announced", reason=str(exc))
                await self._clock.sleep(LOOK_EVERY_S)
                continue
            number = standing
            self.sent.connects += 1

    async def _take_marks(self, marks: client.Inbox, publisher: EquipmentAddress) -> None:
        async for message in marks:
            try:
                held = self._ours(messages.decode_mark(message.payload), publisher)
                self._spool.mark(held)
                self._notice(held)
                self.sent.marks += 1
            except Corrupt as exc:
                log.warning("mark was not taken", reason=str(exc))
            marks.ack(message)

    def _notice(self, held: Mapping[str, Held]) -> None:
        """Somebody records, if this is news."""
        if any(self._told.get(stream) != one for stream, one in held.items()):
            self._told.update(held)
            self._news_ns = self._clock.now_ns()

    def _ours(self, mark: messages.Mark, publisher: EquipmentAddress) -> Mapping[str, Held]:
        """What the mark says of the present epoch."""
        return {
            f"{publisher}/{stream}": epochs[self._spool.epoch]
            for stream, epochs in mark.streams.items()
            if self._spool.epoch in epochs
        }

    async def _send_fresh(self) -> None:
        """What could not go as soon as it was committed."""
        while True:
            kept = await self._fresh.get()
            self._is_held_up = True
            await self._publish(Verb.DATA, kept)
            self._is_held_up = False

    async def _send_again(self) -> None:
        while True:
            asked = False
            try:
                while not asked and await self._may_send() and await self._send_due():
                    asked = self._is_unheard()
                    await self._clock.sleep(BACKLOG_PAUSE_S)
                await self._judge()
            except Unavailable as exc:
                log.warning("backlog was not read", reason=str(exc))
            await self._rest(asked=asked)

    def _is_unheard(self) -> bool:
        return self._clock.now_ns() - self._news_ns > round(UNHEARD_S * NS_PER_S)

    async def _rest(self, *, asked: bool) -> None:
        """Until it is time to look again; having asked, until there is news or time to ask."""
        await self._clock.sleep(LOOK_EVERY_S)
        waited_s = LOOK_EVERY_S
        while asked and self._is_unheard() and waited_s < ASK_EVERY_S:
            await self._clock.sleep(LOOK_EVERY_S)
            waited_s += LOOK_EVERY_S

    async def _send_due(self) -> bool:
        """One portion of the backlog; whether there may be more to send now."""
        due = await self._spool.due(self._clock.now_ns(), BACKLOG_AT_ONCE)
        for kept in due:
            if not await self._publish(Verb.LATE, kept):
                return False
            self.sent.again += 1
        return bool(due)

    async def _may_send(self) -> bool:
        """Whether this connection has announced the specs; waits for a connection."""
        return await self._bus.connection() == self._announced

    async def _judge(self) -> None:
        """Raise `not accepted` where something was sent and sent again for ten minutes in vain."""
        oldest_ns = (await self._spool.depth()).oldest_ns
        late = oldest_ns is not None and self._clock.now_ns() - oldest_ns > round(
            NOT_ACCEPTED_S * NS_PER_S
        )
        if late and not self.not_accepted:
            log.error(
                "batches were not accepted",
                since_s=NOT_ACCEPTED_S,
                hint="look at the stream's dead letters",
            )
        self.not_accepted = late

    async def _publish(self, verb: Verb, kept: Kept) -> bool:
        """Send one batch; False if it cannot go now: it is in the spool and goes later."""
        if self._bus.standing != self._announced:
            return False
        try:
            topic = self._topic(verb, kept.stream)
            sent = await self._bus.submit(topic, codec.stamped(kept.body, self._clock.now_ns()))
        except Unavailable:
            return False
        sent.add_done_callback(_noticed)
        self.sent.batches += 1
        return True

    def _topic(self, verb: Verb, stream: str) -> str:
        """Made once for each; a stream may be one that the mapping no longer has."""
        key = (verb, stream)
        if key not in self._topics:
            self._topics[key] = str(StreamTopic(self._space, verb, StreamAddress.parse(stream)))
        return self._topics[key]


def _noticed(sent: asyncio.Future[None]) -> None:
    """What a broken connection took with it goes again from the spool: nothing to do."""
    if not sent.cancelled():
        sent.exception()
