"""Outputs of a prototype: streams whose batches are kept until the recorder confirms them."""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import structlog

from broker import codec, messages
from broker.batch import MOST_BYTES, Batch, Source, Wide
from broker.bus import client
from broker.clock import NS_PER_S, Clock
from broker.errors import Corrupt, Invalid, Unavailable
from broker.messages import Held
from broker.namespace import MarkTopic, StreamTopic, Verb
from broker.streams import StreamSpec
from testbed_sdk import columns

RESEND_AFTER_S = 10.0
RESEND_MOST_S = 60.0
RESEND_CHECK_S = 1.0
STAMP_BYTES = 100

log = structlog.get_logger()


@dataclass(slots=True)
class _Unmarked:
    """A batch that the recorder has not marked yet.

    due_ns: instant of its next sending.
    """

    body: bytes
    due_ns: int
    wait_s: float = RESEND_AFTER_S


class Output:
    """A named output of a prototype.

    A published batch stays in a ring, bounded in bytes, until the recorder marks it; while the ring
    is full `publish` waits.  The four counters of the delivery contract hold while the prototype's
    process lives.
    """

    def __init__(
        self,
        space: str,
        spec: StreamSpec,
        *,
        bus: client.Bus,
        clock: Clock,
        source: Source,
        ring_bytes: int,
    ) -> None:
        """spec: as registered.  source: stated by every batch.  ring_bytes: bound of the ring."""
        self.spec = spec
        self._space = space
        self._bus = bus
        self._clock = clock
        self._source = source
        self._ring_bytes = ring_bytes
        self._epoch = secrets.token_hex(13)
        self._seq = 0
        self._ring: dict[int, _Unmarked] = {}
        self._ring_used = 0
        self._room = asyncio.Condition()

    async def publish(
        self,
        time_ns: int | Sequence[int] | npt.NDArray[np.int64],
        values: Mapping[str, object],
        *,
        input_ns: int | None = None,
        quality: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        """Publish samples that share their time stamps.

        time_ns: one instant or n of them.  values: signal -> one value or n of them, in the spec's
        dtype.  input_ns: time of the input data that this answers.  quality: signal -> n codes,
        where not all is good.  Raises Invalid if the samples do not fit the spec; returns once the
        batch is in the ring and, if the broker is there, sent.
        """
        frame = columns.frame_of(self.spec, time_ns, values, quality or {})
        body = self._numbered(frame, input_ns)
        async with self._room:
            await self._room.wait_for(
                lambda: self._ring_used + len(body) <= self._ring_bytes or not self._ring
            )
            due_ns = self._clock.now_ns() + round(RESEND_AFTER_S * NS_PER_S)
            self._ring[self._seq] = _Unmarked(body, due_ns)
            self._ring_used += len(body)
        await self._send(Verb.DATA, body)

    def _numbered(self, frame: Wide, input_ns: int | None) -> bytes:
        """Encode the next batch; its sequence number is used only if it fits a message."""
        batch = Batch(
            self.spec.version,
            (frame,),
            self._source,
            epoch=self._epoch,
            seq=self._seq + 1,
            input_ns=input_ns,
        )
        body = codec.body(batch)
        if len(body) > MOST_BYTES - STAMP_BYTES:
            raise Invalid(
                f"{len(body)} bytes in one batch of {self.spec.address}",
                hint="publish fewer samples at once",
            )
        self._seq += 1
        return body

    async def publish_spec(self) -> None:
        """Publish the spec, retained, for readers to decode the batches with."""
        topic = StreamTopic(self._space, Verb.SPEC, self.spec.address)
        await self._bus.publish(str(topic), messages.encode_spec(self.spec), retain=True)

    async def run(self) -> None:
        """Remove marked batches from the ring and send the others again, until cancelled."""
        mark = str(MarkTopic(self._space, self.spec.address.owner))
        async with (
            self._bus.subscribe([mark], capacity=100, overflow="drop_oldest") as marks,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(self._resend(), name=f"output {self.spec.address} re-sends")
            async for message in marks:
                try:
                    await self._remove_marked(messages.decode_mark(message.payload))
                except Corrupt as exc:
                    log.warning("mark was not understood", reason=str(exc))
                marks.ack(message)

    async def wait_drained(self) -> None:
        """Return once the recorder has marked every batch."""
        async with self._room:
            await self._room.wait_for(lambda: not self._ring)

    @property
    def unmarked(self) -> int:
        """Batches that the recorder has not confirmed yet."""
        return len(self._ring)

    async def _remove_marked(self, mark: messages.Mark) -> None:
        held = mark.streams.get(self.spec.address.stream, {}).get(self._epoch, Held(0))
        async with self._room:
            for seq in [seq for seq in self._ring if seq in held]:
                self._ring_used -= len(self._ring.pop(seq).body)
            self._room.notify_all()

    async def _resend(self) -> None:
        while True:
            await self._clock.sleep(RESEND_CHECK_S)
            now_ns = self._clock.now_ns()
            for batch in [batch for batch in self._ring.values() if batch.due_ns <= now_ns]:
                batch.wait_s = min(batch.wait_s * 2, RESEND_MOST_S)
                batch.due_ns = now_ns + round(batch.wait_s * NS_PER_S)
                if not await self._send(Verb.LATE, batch.body):
                    break

    async def _send(self, verb: Verb, body: bytes) -> bool:
        """Send a batch; returns whether the broker acknowledged it."""
        topic = StreamTopic(self._space, verb, self.spec.address)
        try:
            await self._bus.publish(str(topic), codec.stamped(body, self._clock.now_ns()))
        except Unavailable:
            return False
        return True
