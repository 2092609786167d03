"""Outputs: a prototype's results as a stream, kept until the recorder says it has them."""

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
LOOK_EVERY_S = 1.0
STAMP_BYTES = 100

log = structlog.get_logger()


@dataclass(slots=True)
class _Kept:
    """A batch that the recorder has not marked yet."""

    body: bytes
    due_ns: int
    wait_s: float = RESEND_AFTER_S


class Output:
    """One named output of a prototype.

    What is published waits in a ring bounded in bytes until the recorder's mark; when the ring is
    full `publish` waits. The four counters of the delivery contract hold while the prototype's
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
        """spec: as registered.  source: what every batch must state.  ring_bytes: most that waits
        for marks.
        """
        self.spec = spec
        self._space = space
        self._bus = bus
        self._clock = clock
        self._source = source
        self._ring_bytes = ring_bytes
        self._epoch = secrets.token_hex(13)
        self._seq = 0
        self._kept: dict[int, _Kept] = {}
        self._kept_bytes = 0
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
        dtype.  input_ns: the time of the data that this answers.  quality: signal -> n codes, where
        not all is good. Raises Invalid if something does not fit the spec; returns when the batch
        is kept and, if the broker is there, sent.
        """
        frame = columns.frame_of(self.spec, time_ns, values, quality or {})
        body = self._numbered(frame, input_ns)
        async with self._room:
            await self._room.wait_for(
                lambda: self._kept_bytes + len(body) <= self._ring_bytes or not self._kept
            )
            due_ns = self._clock.now_ns() + round(RESEND_AFTER_S * NS_PER_S)
            self._kept[self._seq] = _Kept(body, due_ns)
            self._kept_bytes += len(body)
        await self._send(Verb.DATA, body)

    def _numbered(self, frame: Wide, input_ns: int | None) -> bytes:
        """The next batch's body; its number is used up only if it fits."""
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

    async def announce(self) -> None:
        """Publish the spec, retained, so that readers know what the columns mean."""
        topic = StreamTopic(self._space, Verb.SPEC, self.spec.address)
        await self._bus.publish(str(topic), messages.encode_spec(self.spec), retain=True)

    async def run(self) -> None:
        """Let go of what is marked and send again what is not, until cancelled."""
        mark = str(MarkTopic(self._space, self.spec.address.owner))
        async with (
            self._bus.subscribe([mark], capacity=100, overflow="drop_oldest") as marks,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(self._send_again(), name=f"output {self.spec.address} re-sends")
            async for message in marks:
                try:
                    await self._let_go(messages.decode_mark(message.payload))
                except Corrupt as exc:
                    log.warning("mark was not understood", reason=str(exc))
                marks.ack(message)

    async def wait_drained(self) -> None:
        """Return when the recorder has marked everything."""
        async with self._room:
            await self._room.wait_for(lambda: not self._kept)

    @property
    def unmarked(self) -> int:
        """Batches that the recorder has not confirmed yet."""
        return len(self._kept)

    async def _let_go(self, mark: messages.Mark) -> None:
        held = mark.streams.get(self.spec.address.stream, {}).get(self._epoch, Held(0))
        async with self._room:
            for seq in [seq for seq in self._kept if seq in held]:
                self._kept_bytes -= len(self._kept.pop(seq).body)
            self._room.notify_all()

    async def _send_again(self) -> None:
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            now_ns = self._clock.now_ns()
            for kept in [kept for kept in self._kept.values() if kept.due_ns <= now_ns]:
                kept.wait_s = min(kept.wait_s * 2, RESEND_MOST_S)
                kept.due_ns = now_ns + round(kept.wait_s * NS_PER_S)
                if not await self._send(Verb.LATE, kept.body):
                    break

    async def _send(self, verb: Verb, body: bytes) -> bool:
        """Send once; what does not get through stays in the ring and is sent again."""
        topic = StreamTopic(self._space, verb, self.spec.address)
        try:
            await self._bus.publish(str(topic), codec.stamped(body, self._clock.now_ns()))
        except Unavailable:
            return False
        return True
