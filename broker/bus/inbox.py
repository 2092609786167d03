"""Inboxes of subscriptions, with the acknowledgement of what their readers have processed."""

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Self

from broker.errors import BedError

Overflow = Literal["block", "drop_oldest"]

INBOX_BYTES = 64 * 1024 * 1024
"""Default limit of the payloads in an inbox."""


@dataclass(slots=True)
class Delivery:
    """A message's acknowledgement, sent once every inbox that got the message is done with it."""

    acknowledge: Callable[[], None]
    readers: int

    def done(self) -> None:
        """Count an inbox that is done; the last one acknowledges the message."""
        self.readers -= 1
        if self.readers == 0:
            self.acknowledge()


@dataclass(frozen=True, slots=True)
class Message:
    """A message that arrived.

    retained: the broker kept it from before the subscription.  duplicate: it may have been
    delivered before.
    """

    topic: str
    payload: bytes
    retained: bool = False
    duplicate: bool = False
    delivery: Delivery | None = field(default=None, repr=False, compare=False)


class Amount(NamedTuple):
    """A number of messages, or of bytes of payloads, whichever is reached first."""

    messages: int
    bytes: int


_ONE_MESSAGE = Amount(1, sys.maxsize)


class Inbox:
    """Messages of one subscription: iterate over it, and acknowledge each message.

    Bounded in messages and bytes.  `block` stops reading from the connection while it is full,
    `drop_oldest` drops the oldest message and counts it in `dropped`.  While an acknowledgement of
    the broker is awaited, `block` obeys the bytes alone: the acknowledgement lies behind unread
    messages, and this inbox's reader may be waiting for it.
    """

    def __init__(
        self,
        filters: Sequence[str],
        capacity: int,
        overflow: Overflow,
        *,
        most_bytes: int = INBOX_BYTES,
    ) -> None:
        """Made by `Bus.subscribe`.  capacity: messages.  most_bytes: of their payloads."""
        self.filters = tuple(filters)
        self.dropped = 0
        self._most_bytes = most_bytes
        self._capacity = capacity
        self._overflow = overflow
        self._waiting: deque[Message] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._awaited = _ONE_MESSAGE
        self._refused: BedError | None = None
        self._resume: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        """The next message; raises Forbidden if the broker refused the subscription."""
        if not self._waiting:
            await self.wait_for()
        message = self._waiting.popleft()
        self._bytes -= len(message.payload)
        if self._resume is not None:
            self._resume()
        return message

    async def wait_for(self, amount: Amount = _ONE_MESSAGE) -> None:
        """Return once this amount waits to be read; the reader is not woken before.

        Raises Forbidden if the broker refused the subscription and no message waits.
        """
        self._awaited = amount
        try:
            while not self._has_amount():
                if self._refused is not None and not self._waiting:
                    raise self._refused
                self._arrived.clear()
                await self._arrived.wait()
        finally:
            self._awaited = _ONE_MESSAGE

    def take(self, most: Amount) -> list[Message]:
        """Remove and return waiting messages, oldest first, up to `most` messages or bytes."""
        taken: list[Message] = []
        size = 0
        while self._waiting and len(taken) < most.messages and size < most.bytes:
            message = self._waiting.popleft()
            taken.append(message)
            size += len(message.payload)
        self._bytes -= size
        if taken and self._resume is not None:
            self._resume()
        return taken

    def _has_amount(self) -> bool:
        return len(self._waiting) >= self._awaited.messages or self._bytes >= self._awaited.bytes

    def ack(self, message: Message) -> None:
        """Acknowledge a message to the broker; without effect once its connection is over."""
        if message.delivery is not None:
            message.delivery.done()

    @property
    def qos(self) -> int:
        """QoS of the subscription: 0 where messages may be dropped, as QoS 1 costs the broker more.

        NATS keeps a consumer with its own bookkeeping for each subscription at QoS 1.
        """
        return 1 if self._overflow == "block" else 0

    @property
    def is_refused(self) -> bool:
        """Whether the broker refused the subscription of the connection of now."""
        return self._refused is not None

    @property
    def full(self) -> bool:
        """Whether no more message fits."""
        return len(self._waiting) >= self._capacity or self._bytes >= self._most_bytes

    def blocks(self, *, stretched: bool) -> bool:
        """Return whether the connection must not be read for now; stretched: only bytes count."""
        full = self._bytes >= self._most_bytes if stretched else self.full
        return self._overflow == "block" and full

    def put(self, message: Message) -> None:
        """Add a message that arrived."""
        if self._overflow == "drop_oldest":
            while self.full and self._waiting:
                oldest = self._waiting.popleft()
                self._bytes -= len(oldest.payload)
                self.dropped += 1
                self.ack(oldest)
        self._waiting.append(message)
        self._bytes += len(message.payload)
        if self._has_amount():
            self._arrived.set()

    def attach(self, resume: Callable[[], None]) -> None:
        """Attach to a connection; `resume` is called once messages were taken, to read on."""
        self._resume = resume
        self._refused = None

    def leave(self) -> None:
        """Drop unread messages, so that the acknowledgements of other inboxes take effect."""
        for message in self._waiting:
            self.ack(message)
        self._waiting.clear()

    def refuse(self, error: BedError) -> None:
        """End the iteration with this error."""
        self._refused = error
        self._arrived.set()
