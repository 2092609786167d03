"""Batches of one input in a run, which wait until the run's clock has reached them."""

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from broker.batch import Batch
from broker.namespace import StreamAddress
from broker.run_clock import Positions
from broker.streams import StreamSpec
from testbed_sdk.workers import Worker


@dataclass(frozen=True, slots=True, eq=False)
class Waiter:
    """Somebody who waits in the SDK until it is woken."""

    worker: Worker | None
    woken: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class ArrivedBatch:
    """A batch that arrived, with the numbers of its message; content: None if nobody can read it.

    epoch, seq: None where its publisher does not number.
    """

    epoch: str | None
    seq: int | None
    content: tuple[Batch, StreamSpec] | None

    @property
    def newest_ns(self) -> int | None:
        """The newest time stamp of the batch, None if it has no samples."""
        frames = () if self.content is None else self.content[0].frames
        return max((int(each.time_ns.max()) for each in frames if len(each)), default=None)


class Feed:
    """The batches of one input: those that arrived, and those that the program may read now.

    capacity: batches that may wait to be read; beyond them the oldest are dropped.  since: quantum
    in which the input was opened.
    """

    def __init__(self, address: StreamAddress, capacity: int, *, since: int) -> None:
        self.address = address
        self.since = since
        self.waiters: deque[Waiter] = deque()
        self.failure: Exception | None = None
        self._capacity = capacity
        self._arrived: deque[ArrivedBatch] = deque()
        self._newest: dict[str, int] = {}
        """The greatest number that arrived, by epoch."""
        self._lost: dict[str, int] = {}
        """The last number that was left out, by epoch."""
        self._named: dict[str, int] = {}
        """The last number that a tick has named, by epoch."""
        self._readable: deque[ArrivedBatch] = deque()

    def arrive(self, arrival: ArrivedBatch) -> None:
        """Add a batch that arrived; it waits for its tick."""
        self._arrived.append(arrival)
        if arrival.epoch is not None and arrival.seq is not None:
            newest = self._newest.get(arrival.epoch, arrival.seq - 1)
            if arrival.seq > newest + 1:
                self._lost[arrival.epoch] = arrival.seq - 1
            self._newest[arrival.epoch] = max(arrival.seq, newest)

    def name(self, last: Positions) -> bool:
        """Note the last batches of a quantum, and return whether there are any for this input."""
        self._named |= last.get(self.address, {})
        return self.address in last

    def awaited(self) -> dict[str, int]:
        """The named batches that may arrive still: epoch -> the last of them."""
        return {
            epoch: seq for epoch, seq in self._named.items() if self._newest.get(epoch, 0) < seq
        }

    def missing(self) -> dict[str, int]:
        """The batches that did not arrive, once nobody waits for them any more."""
        lost, self._lost = self._lost, {}
        return lost | self.awaited()

    def due(self) -> Iterator[ArrivedBatch]:
        """Take the batches that arrived and were named, in order; those without a number too."""
        later: deque[ArrivedBatch] = deque()
        while self._arrived:
            arrival = self._arrived.popleft()
            if arrival.seq is None or arrival.seq <= self._named.get(arrival.epoch or "", 0):
                yield arrival
            else:
                later.append(arrival)
        self._arrived = later

    def release(self, arrival: ArrivedBatch) -> Waiter | None:
        """Let the program read a batch; returns the waiting reader, which is to be woken."""
        while len(self._readable) >= self._capacity:
            self._readable.popleft()
        self._readable.append(arrival)
        return self._reader()

    def fail(self, failure: Exception) -> Waiter | None:
        """End the input with an error; returns the waiting reader, which is to be woken."""
        self.failure = failure
        return self._reader()

    def take(self) -> ArrivedBatch | None:
        """The next batch that may be read, None if there is none; raises the input's error."""
        if self._readable:
            return self._readable.popleft()
        if self.failure is not None:
            raise self.failure
        return None

    def _reader(self) -> Waiter | None:
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.woken.done():
                return waiter
        return None
