"""The monitored items of a subscription as columns by client handle.

Handles are 1, 2, 3 …; row 0 is unused.  Each item feeds one signal or more; the signals that items
feed are numbered from item to item, and such a number is called a feed.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from broker.batch import column_dtype
from broker.streams import Dtype
from gateway.links.values import ElementOf, Reading

Rows = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]


class ItemColumns:
    """The feeds of each item, and the state of each item.

    By handle: counts, starts: number of its feeds, and the first of them.  fresh: no sample came
    yet.  lost: a message that may hold its samples was lost.  gone: its node is not on the server.
    answered_ns: when its last sample came, or it was read, in monotonic time.
    By feed: stream, signal, dtype, an index into `dtypes`.  dtypes: all that there are.  present:
    those that occur.  stream_dtypes: of each stream.  columns: the numpy dtype of its values.
    """

    def __init__(
        self, feeds: Sequence[Sequence[tuple[int, int]]], dtypes: Sequence[Sequence[Reading]]
    ) -> None:
        """feeds: (stream, signal) pairs of each item, handle 1 first.  dtypes: of each stream."""
        counts = [0, *(len(item_feeds) for item_feeds in feeds)]
        pairs = [pair for item_feeds in feeds for pair in item_feeds]
        self.counts = np.array(counts, np.intp)
        self.starts = np.cumsum(self.counts) - self.counts
        self.stream = np.array([stream for stream, _ in pairs], np.int32)
        self.signal = np.array([signal for _, signal in pairs], np.int32)
        wanted = [dtypes[stream][signal] for stream, signal in pairs]
        occurring = dict.fromkeys(wanted)
        self.dtypes: tuple[Reading, ...] = (
            *Dtype,
            *(each for each in occurring if not isinstance(each, Dtype)),
        )
        place = {dtype: at for at, dtype in enumerate(self.dtypes)}
        self.dtype = np.array([place[dtype] for dtype in wanted], np.int32)
        self.present = [dtype for dtype in self.dtypes if dtype in occurring]
        self.stream_dtypes = dtypes
        self.columns = [
            column_dtype(each.dtype if isinstance(each, ElementOf) else each for each in own)
            for own in dtypes
        ]
        self.fresh = np.ones(len(counts), np.bool_)
        self.lost = np.zeros(len(counts), np.bool_)
        self.gone = np.zeros(len(counts), np.bool_)
        self.answered_ns = np.zeros(len(counts), np.int64)
        self._is_single = all(count == 1 for count in counts[1:])

    def are_known(self, handle: npt.NDArray[np.uint32]) -> Mask:
        """The handles that belong to an item."""
        known: Mask = (handle > 0) & (handle < len(self.counts))
        return known

    def note_answers(self, handle: npt.NDArray[np.uint32], monotonic_ns: int) -> None:
        """Note when samples of items came; unknown handles are ignored."""
        self.answered_ns[handle[handle < len(self.counts)]] = monotonic_ns

    def is_plain(self, stream: int) -> bool:
        """Whether all signals of a stream are float64."""
        return set(self.stream_dtypes[stream]) == {Dtype.FLOAT64}

    def feeds_of(self, handle: npt.NDArray[np.uint32]) -> tuple[Rows | None, Rows]:
        """The row among `handle` and the feed of each sample.

        The rows are None where each item feeds one signal, so that they are 0, 1, 2 ….
        """
        if self._is_single:
            return None, self.starts[handle]
        counts = self.counts[handle]
        rows = np.repeat(np.arange(len(handle)), counts)
        begins = np.cumsum(counts) - counts
        return rows, self.starts[handle][rows] + np.arange(len(rows)) - begins[rows]
