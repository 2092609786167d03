"""What arrives for a subscription, and the account of who is done with it."""

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Self

from broker.errors import BedError

Overflow = Literal["block", "drop_oldest"]

INBOX_BYTES = 64 * 1024 * 1024
"""Where nothing else is said."""


@dataclass(slots=True)
class Delivery:
    """One arrival: acknowledged to the broker when every inbox that got it is done with it."""

    acknowledge: Callable[[], None]
    readers: int

    def done(self) -> None:
        """One more inbox is done."""
        self.readers -= 1
        if self.readers == 0:
            self.acknowledge()


@dataclass(frozen=True, slots=True)
class Message:
    """What arrived.

    retained: it was kept by the broker from before.  duplicate: it may have been here already.
    """

    topic: str
    payload: bytes
    retained: bool = False
    duplicate: bool = False
    delivery: Delivery | None = field(default=None, repr=False, compare=False)


class Amount(NamedTuple):
    """So many messages, or so many bytes of payloads."""

    messages: int
    bytes: int


_ONE = Amount(1, sys.maxsize)


class Inbox:
    """What arrives for one subscription: iterate, then acknowledge.

    Bounded in messages and bytes.  `block` stops reading from the connection while it is full,
    `drop_oldest` lets go of the oldest and counts it in `dropped`.  While an acknowledgement of the
    broker is awaited, `block` holds to the bytes alone: the acknowledgement lies behind what is not
    read, and who waits for it may be this inbox's reader.
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
        self._wanted = _ONE
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

    async def wait_for(self, wanted: Amount = _ONE) -> None:
        """Return once so much is there to be taken; whoever waits is not woken before.

        Raises Forbidden if the broker refused the subscription and nothing is there.
        """
        self._wanted = wanted
        try:
            while not self._holds():
                if self._refused is not None and not self._waiting:
                    raise self._refused
                self._arrived.clear()
                await self._arrived.wait()
        finally:
            self._wanted = _ONE

    def take(self, most: Amount) -> list[Message]:
        """What is there, the oldest first, until it is `most` of messages or of bytes."""
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

    def _holds(self) -> bool:
        return len(self._waiting) >= self._wanted.messages or self._bytes >= self._wanted.bytes

    def ack(self, message: Message) -> None:
        """Tell the broker that this message is dealt with; after a break it is not told."""
        if message.delivery is not None:
            message.delivery.done()

    @property
    def qos(self) -> int:
        """How the broker is asked: who may let go of messages need not have each acknowledged.

        It costs the broker a consumer with its own bookkeeping to deliver at QoS 1.
        """
        return 1 if self._overflow == "block" else 0

    @property
    def full(self) -> bool:
        """Whether no more fits."""
        return len(self._waiting) >= self._capacity or self._bytes >= self._most_bytes

    def blocks(self, *, stretched: bool) -> bool:
        """Whether the connection must not be read for now; stretched: only bytes count."""
        full = self._bytes >= self._most_bytes if stretched else self.full
        return self._overflow == "block" and full

    def put(self, message: Message) -> None:
        """Take in an arrival."""
        if self._overflow == "drop_oldest":
            while self.full and self._waiting:
                oldest = self._waiting.popleft()
                self._bytes -= len(oldest.payload)
                self.dropped += 1
                self.ack(oldest)
        self._waiting.append(message)
        self._bytes += len(message.payload)
        if self._holds():
            self._arrived.set()

    def attach(self, resume: Callable[[], None]) -> None:
        """Belong to a connection from now on, which goes on reading when told to `resume`."""
        self._resume = resume
        self._refused = None

    def leave(self) -> None:
        """Be done with what is unread, so that other inboxes' acknowledgements of it count."""
        for message in self._waiting:
            self.ack(message)
        self._waiting.clear()

    def refuse(self, error: BedError) -> None:
        """End the iteration with this error."""
        self._refused = error
        self._arrived.set()
