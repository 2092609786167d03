"""The port of time-series stores: `SeriesStore`, with the blocks and windows it takes."""

from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from broker.aggregation import Aggregation
from broker.batch import Long, Series, Wide
from broker.errors import Invalid
from broker.namespace import StreamAddress, checked_space
from broker.streams import StreamSpec


@dataclass(frozen=True, slots=True)
class Block:
    """Samples of one stream in one space, to be written, in any order."""

    space: str
    spec: StreamSpec
    frames: tuple[Wide | Long, ...]

    def __len__(self) -> int:
        """The number of samples."""
        return sum(map(len, self.frames))

    def series(self) -> Iterator[tuple[str, Series]]:
        """Pairs (signal name, samples) of each frame; a signal may occur several times."""
        for frame in self.frames:
            yield from frame.series()

    @classmethod
    def of_series(
        cls, space: str, spec: StreamSpec, named_series: Iterable[tuple[str, Series]]
    ) -> Self:
        """Build a block from pairs (signal name, samples)."""
        frames = (
            Wide(series.time_ns, {name: series.values}, {name: series.quality})
            for name, series in named_series
        )
        return cls(space, spec, tuple(frames))


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a stream to read: some signals, from `from_ns` (included) to `to_ns` (excluded).

    spec: the newest spec of the stream, with the dtype of each signal in `signals`.  weight: of
    the largest value in the window, 1 for a number; a store's pages are as many times shorter.
    """

    space: str
    spec: StreamSpec
    signals: tuple[str, ...]
    from_ns: int
    to_ns: int
    weight: int = 1

    def __post_init__(self) -> None:
        checked_space(self.space)
        for name in self.signals:
            self.spec.signal(name)
        if self.from_ns >= self.to_ns:
            raise Invalid(
                f"the span from {self.from_ns} to {self.to_ns} ns is empty or inverted",
                hint="'from' must be earlier than 'to'",
            )


@dataclass(frozen=True, slots=True)
class Position:
    """The last flush of a recorder that wrote samples of an organisation.

    ledger: id of the recorder's ledger.  flush: its number, ascending.  time_ns: of the flush.
    is_apart: whether it is written beside others, and may come after greater ones.
    """

    ledger: str
    flush: int
    time_ns: int
    is_apart: bool = False


class SeriesStore(Protocol):
    """A store of samples with the identity (space, stream, signal, time).

    A sample that is written twice is stored once.  Any number of reads and one write may run at the
    same time.  Every read that begins after a `write` has returned sees its samples, which survive
    a crash of this process.  All methods raise Unavailable if the product is away, its disk is full
    or it does not answer in time; no error of the product's library leaves the adapter.
    """

    async def write(self, blocks: Sequence[Block], position: Position | None = None) -> None:
        """Store all samples; of two with the same identity one remains, the first or the later.

        position: stored with them, as that of each organisation in the blocks, unless a
        greater one is there.
        Raises Partial if only some blocks were stored: `rejected` has the indexes of blocks that
        the store will never accept, `later` those of organisations that it accepts nothing of for
        now, or not while others wait.  All other blocks were stored.
        """

    def read(self, window: Window) -> AsyncIterator[Long]:
        """Stream the samples in the window, at most 10,000 a frame.

        They ascend in (time, signal index of the spec).  Memory does not grow with the window.
        Nothing is read before the first frame is requested.
        """

    def thin(self, window: Window, points: int) -> AsyncIterator[Long]:
        """Stream about `points` samples a signal, at most, chosen so that a plot looks the same.

        The span from the first to the last sample of the stream in the window, of whatever signal,
        is divided into points / 2 equal parts: none is spent on the time before and after.  Each
        part gives the samples with the minimum and the maximum value, with their own time stamps;
        samples that are not GOOD are given only for a part without GOOD samples.  Signals without
        an order (bool, string, arrays) give the first and the last sample of each part.  Order and
        frames as in `read`.  points: 2 or more.  Raises Invalid for so many points of long arrays
        that they would fill the memory.
        """

    def aggregate(self, window: Window, aggregation: Aggregation) -> AsyncIterator[Long]:
        """Stream one sample for each signal and each window of the aggregation with samples of it.

        It has the time at which the aggregation's window begins, which may lie before `from_ns`:
        at the ends of `window` only the samples inside count.  The GOOD samples make its value and
        it is GOOD; without any the UNCERTAIN ones do; of BAD ones alone it is BAD.  No sample is
        made up for a window without any.  Values have the dtypes of `aggregation.spec`; means may
        differ between stores in their last digits.  Order, frames and memory as in `read`.  Raises
        Invalid for what `aggregation.check` refuses.  Where the sum of a window is beyond float64,
        its mean is BAD, or the product has none and Invalid is raised.
        """

    async def delete(self, space: str, stream: StreamAddress, from_ns: int, to_ns: int) -> None:
        """Delete the samples of a stream in a space from `from_ns` (included) to `to_ns`.

        Afterwards no read sees them, not even after a crash.  Samples written meanwhile may be
        deleted or not; those written later are not.  Deleting an empty span is no error.
        """

    async def positions(self, organisations: Collection[str]) -> Mapping[str, Position]:
        """The stored position of each of these organisations that has one."""

    async def extent(self, space: str, stream: StreamAddress) -> tuple[int, int] | None:
        """Times of the first and of the last sample of a stream in a space; None without any."""

    async def ready(self) -> None:
        """Check that the store answers; raises Unavailable with the reason if not."""
