"""What the testbed asks of a time-series store."""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from broker.batch import Long, Series, Wide
from broker.errors import Invalid
from broker.namespace import StreamAddress, checked_space
from broker.streams import StreamSpec


@dataclass(frozen=True, slots=True)
class Block:
    """Samples of one stream in one space, to be stored, in any order."""

    space: str
    spec: StreamSpec
    frames: tuple[Wide | Long, ...]

    def __len__(self) -> int:
        """The number of samples."""
        return sum(map(len, self.frames))

    def series(self) -> Iterator[tuple[str, Series]]:
        """Each signal of each frame with its samples; a signal may come several times."""
        for frame in self.frames:
            yield from frame.series()

    @classmethod
    def of_series(cls, space: str, spec: StreamSpec, named: Iterable[tuple[str, Series]]) -> Self:
        """From signals that come one by one."""
        frames = (Wide(one.time_ns, {name: one.values}, {name: one.quality}) for name, one in named)
        return cls(space, spec, tuple(frames))


@dataclass(frozen=True, slots=True)
class Window:
    """What to read: some signals of one stream, `from_ns` included, `to_ns` not.

    spec: the newest spec of the stream, with the dtype of every signal asked for.
    """

    space: str
    spec: StreamSpec
    signals: tuple[str, ...]
    from_ns: int
    to_ns: int

    def __post_init__(self) -> None:
        checked_space(self.space)
        for name in self.signals:
            self.spec.signal(name)
        if self.from_ns >= self.to_ns:
            raise Invalid(
                f"the span from {self.from_ns} to {self.to_ns} ns is empty or inverted",
                hint="'from' must be earlier than 'to'",
            )


class SeriesStore(Protocol):
    """Samples with the identity (space, stream, signal, time): stored twice is stored once.

    Any number of reads and one write may run at the same time.  What a finished `write` stored,
    every later read sees, and it outlives a crash of this process.  All methods raise Unavailable
    where the product is away, its disk is full or it does not answer in time; no error of the
    product's library leaves the adapter.
    """

    async def write(self, blocks: Sequence[Block]) -> None:
        """Store all samples; of two with one identity the first stays or the later replaces it,
        never both.

        Raises Partial with the indexes of blocks that the store will never take, and of those that
        it takes nothing of for now though it is there: all of some organisations.  The others are
        stored.
        """

    def read(self, window: Window) -> AsyncIterator[Long]:
        """The samples in the window, ascending in (time, signal index of the spec), at most 10,000
        a frame.

        Streams: memory does not grow with the window.  Nothing is read before the first frame is
        asked for.
        """

    def thin(self, window: Window, points: int) -> AsyncIterator[Long]:
        """At most about `points` samples a signal, so that a plot looks the same: order and frames
        as in `read`.

        The window is cut into points / 2 equal spans; of each the samples with the least and the
        greatest value are given, with their own time stamps, and samples that are not GOOD never
        stand for one that is.  Signals without an order (bool, string) give the first and the last
        sample of each span.  points: 2 or more.
        """

    async def delete(self, space: str, stream: StreamAddress, from_ns: int, to_ns: int) -> None:
        """Forget all samples of a stream in a space from `from_ns` on and before `to_ns`.

        Afterwards no read sees one of them, nor after a crash.  What is written meanwhile may stay
        or go; what is written later stays.  Deleting what is not there is done at once.
        """

    async def ready(self) -> None:
        """Return when the store answers; raises Unavailable with what is wrong."""
