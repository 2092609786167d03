"""Outputs of a prototype: streams whose batches are kept until the recorder confirms them."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import structlog

from broker import codec, messages
from broker.batch import MOST_BYTES, Batch, Gap, Source, Wide
from broker.bus import client
from broker.clock import NS_PER_S, Clock, text_of
from broker.errors import Corrupt, Invalid, Refused, Unavailable
from broker.messages import Held
from broker.namespace import MarkTopic, StreamTopic, Verb
from broker.streams import StreamSpec
from testbed_sdk import columns
from testbed_sdk.program_time import ProgramTime

RESEND_AFTER_S = 10.0
RESEND_MOST_S = 60.0
RESEND_CLOSING_S = 2.0
"""While the output is closed, a batch is sent again after this time without a mark."""
RESEND_CHECK_S = 0.2
RESEND_AT_ONCE = 1_000
STORE_AGAIN_S = 1.0
"""The pause before the store is asked again for the end of the former run."""
STAMP_BYTES = 100
DOWN = "prototype-down"
"""The cause of the gap between the last stored sample of a former run and the first of this one."""

NewestBefore = Callable[[int], Awaitable[int | None]]
"""Finds the time stamp of the newest stored sample before an instant."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Unmarked:
    """A batch that the recorder has not marked yet.

    span_ns: time stamps of its first and last sample.  sent_ns: monotonic time at which it was last
    sent, over the connection of that number; 0 if there was none.  wait_s: time for a mark before
    it goes again.
    """

    body: bytes
    span_ns: tuple[int, int]
    sent_ns: int = 0
    connection: int = 0
    wait_s: float = RESEND_AFTER_S


class Output:
    """A named output of a prototype.

    A published batch stays in a ring, bounded in bytes, until the recorder marks it; while the ring
    is full `publish` waits.  The four counters of the delivery contract hold while the prototype's
    process lives.  What a process did not get confirmed before its end lies in a gap, which the
    next run of the output states: from the newest stored sample to the first of its own.
    """

    def __init__(  # noqa: PLR0913 - the parts that an output is made of, by name
        self,
        space: str,
        spec: StreamSpec,
        *,
        bus: client.Bus,
        clock: Clock,
        source: Source,
        ring_bytes: int,
        newest_before: NewestBefore,
        time: ProgramTime,
    ) -> None:
        """spec: as registered.  source: stated by every batch.  ring_bytes: bound of the ring.
        time: held while the program publishes.
        """
        self.spec = spec
        self._space = space
        self._bus = bus
        self._clock = clock
        self._source = source
        self._ring_bytes = ring_bytes
        self._newest_before = newest_before
        self._time = time
        self._epoch = secrets.token_hex(13)
        self._seq = 0
        self._first_ns: int | None = None
        self._ring: dict[int, _Unmarked] = {}
        self._ring_used = 0
        self._room = asyncio.Condition()
        self._confirmed = asyncio.Event()
        """The recorder has marked a batch, so it has stored what came before."""
        self._is_former_gap_stated = asyncio.Event()
        self._is_closing = False

    async def publish(
        self,
        time_ns: int | Sequence[int] | npt.NDArray[np.int64] | npt.NDArray[np.datetime64],
        values: Mapping[str, object],
        *,
        input_ns: int | None = None,
        quality: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        """Publish samples that share their time stamps.

        time_ns: one instant or n of them, in ns since 1970, or as datetime64[ns].  values: signal
        -> one value for all of them, or n, in the spec's dtype.  input_ns: time of the input data
        that this answers.  quality: signal -> n codes, where not all is good.  Without a time
        nothing is published.  Raises Invalid if the samples do not fit the spec, and for a time
        before 2000, which was given in seconds or ms; returns once the batch is in the ring and,
        if the broker is there, sent.

        A batch in the ring is sent again until the recorder confirms that it is stored: at each new
        connection, after 10 s and then up to 60 s, and when the output is closed.  `wait_drained`
        returns once all are confirmed.  If the process ends before, the samples may be lost, and
        the next run of the output states a gap over them.
        """
        frame = columns.frame_of(self.spec, time_ns, values, quality or {})
        if not len(frame.time_ns):
            return
        if self._first_ns is None:
            self._first_ns = int(frame.time_ns.min())
        with self._time.call("publish"):
            await self._put((frame,), _span_of(frame), input_ns=input_ns)

    async def state_gap(self, from_ns: int, to_ns: int, cause: str) -> None:
        """State that no signal has a sample between two instants, both included.

        from_ns, to_ns: ns since 1970.  cause: a word or two, such as "calibration".  Readers of
        what is stored see it as a hole with this cause, and not as silence that nobody explains.
        Raises Invalid if it ends before it begins.
        """
        if to_ns < from_ns:
            raise Invalid(
                f"a gap of {self.spec.address} ends {from_ns - to_ns} ns before it begins",
                hint="give its first instant, then its last",
            )
        with self._time.call("state_gap"):
            await self._put((), (to_ns, to_ns), gaps=(Gap((), from_ns, to_ns, cause),))

    async def _put(
        self,
        frames: tuple[Wide, ...],
        span_ns: tuple[int, int],
        *,
        gaps: tuple[Gap, ...] = (),
        input_ns: int | None = None,
    ) -> None:
        """Put the next batch into the ring, and send it."""
        body = self._numbered(frames, gaps, input_ns)
        batch, seq = _Unmarked(body, span_ns), self._seq
        async with self._room:
            await self._room.wait_for(
                lambda: self._ring_used + len(body) <= self._ring_bytes or not self._ring
            )
            self._ring[seq] = batch
            self._ring_used += len(body)
        await self._send(batch)

    def _numbered(
        self, frames: tuple[Wide, ...], gaps: tuple[Gap, ...], input_ns: int | None
    ) -> bytes:
        """Encode the next batch; its sequence number is used only if it fits a message."""
        batch = Batch(
            self.spec.version,
            frames,
            self._source,
            epoch=self._epoch,
            seq=self._seq + 1,
            gaps=gaps,
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
            tasks.create_task(self._state_former_gap(), name=f"output {self.spec.address} gap")
            async for message in marks:
                try:
                    await self._remove_marked(messages.decode_mark(message.payload))
                except Corrupt as exc:
                    log.warning("mark was not understood", reason=str(exc))
                marks.ack(message)

    async def wait_drained(self) -> None:
        """Return once the recorder has marked every batch."""
        with self._time.call("wait_drained"):
            await self._drained()

    def begin_closing(self) -> None:
        """Send what is not marked again soon: its process is about to end."""
        self._is_closing = True

    async def wait_closed(self) -> None:
        """Return once the recorder has marked everything, a gap since a former run as well."""
        if self._first_ns is not None:
            await self._is_former_gap_stated.wait()
        await self._drained()

    async def _drained(self) -> None:
        async with self._room:
            await self._room.wait_for(lambda: not self._ring)

    @property
    def position(self) -> dict[str, int]:
        """The last batch: epoch -> seq; empty before the first."""
        return {self._epoch: self._seq} if self._seq else {}

    @property
    def unmarked(self) -> int:
        """Batches that the recorder has not confirmed yet."""
        return len(self._ring)

    @property
    def unmarked_sentence(self) -> str:
        """The batches that the recorder has not confirmed, with their span; empty without any."""
        spans = [batch.span_ns for batch in self._ring.values()]
        if not spans:
            return ""
        begin_ns, end_ns = min(begin for begin, _ in spans), max(end for _, end in spans)
        span = f"{text_of(begin_ns)} to {text_of(end_ns)}"
        return f"{len(spans)} batches of {self.spec.address} with samples from {span}"

    async def _remove_marked(self, mark: messages.Mark) -> None:
        held = mark.streams.get(self.spec.address.stream, {}).get(self._epoch, Held(0))
        async with self._room:
            marked = [seq for seq in self._ring if seq in held]
            for seq in marked:
                self._ring_used -= len(self._ring.pop(seq).body)
            self._room.notify_all()
        if marked:
            self._confirmed.set()

    async def _resend(self) -> None:
        topic = str(StreamTopic(self._space, Verb.LATE, self.spec.address))
        while True:
            await self._clock.sleep(RESEND_CHECK_S)
            if not self._bus.is_connected:
                continue
            monotonic_ns, connection = self._clock.monotonic_ns(), self._bus.connection_number
            due = [batch for batch in self._ring.values() if self._is_due(batch, monotonic_ns)]
            stamp_ns = self._clock.now_ns()
            sent = [(topic, codec.stamped(each.body, stamp_ns)) for each in due[:RESEND_AT_ONCE]]
            for batch in due[: self._bus.offer(sent)]:
                batch.sent_ns, batch.connection = monotonic_ns, connection
                batch.wait_s = min(batch.wait_s * 2, RESEND_MOST_S)

    def _is_due(self, batch: _Unmarked, monotonic_ns: int) -> bool:
        """Whether a batch is to be sent again: over a new connection, or after its time."""
        wait_s = min(batch.wait_s, RESEND_CLOSING_S) if self._is_closing else batch.wait_s
        is_new = self._bus.connection_number > batch.connection
        return is_new or monotonic_ns - batch.sent_ns >= round(wait_s * NS_PER_S)

    async def _send(self, batch: _Unmarked) -> None:
        """Send a new batch, if the broker is there."""
        topic = StreamTopic(self._space, Verb.DATA, self.spec.address)
        batch.sent_ns, batch.connection = self._clock.monotonic_ns(), self._bus.connection_number
        with suppress(Unavailable):
            await self._bus.publish(str(topic), codec.stamped(batch.body, self._clock.now_ns()))

    async def _state_former_gap(self) -> None:
        """State the gap from the newest sample of a former run to the first of this one.

        Once the recorder has marked a batch of this run: what was sent before is stored by then.
        """
        await self._confirmed.wait()
        first_ns = self._first_ns
        while first_ns is not None:
            try:
                last_ns = await self._newest_before(first_ns)
            except (Unavailable, Corrupt):
                await self._clock.sleep(STORE_AGAIN_S)
            except Refused as exc:
                log.warning("gap since the former run was not stated", reason=str(exc))
                break
            else:
                if last_ns is not None and first_ns - last_ns > 1:
                    gap = Gap((), last_ns + 1, first_ns - 1, DOWN)
                    await self._put((), (first_ns, first_ns), gaps=(gap,))
                break
        self._is_former_gap_stated.set()


def _span_of(frame: Wide) -> tuple[int, int]:
    """Time stamps of the first and last sample of a frame, which has some."""
    return int(frame.time_ns.min()), int(frame.time_ns.max())
