"""The last sample of each signal: a new subscription repeats it, and a gap begins there.  Pure."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from broker.batch import BAD, GOOD, column_dtype, no_value
from broker.streams import ValueType
from gateway.pipeline.unique_timestamps import NEVER, SignalOrder
from gateway.samples import Arrival, Lot, Samples
from gateway.spool.stamps import StreamStamps


class LatestSample(NamedTuple):
    """The last samples of a signal, or of its stream before this process began.

    time_ns: source time of the one that came last.  arrived_ns: monotonic time at which it came,
    negative before this process.  newest_ns: the newest time stamp that was not far ahead, or
    `time_ns` if all were.  run_first_ns: all time stamps from this one to the newest are used;
    after the newest if that is not known.  stands: samples came for long without a newer time
    stamp.
    """

    time_ns: int
    arrived_ns: int
    newest_ns: int
    run_first_ns: int
    stands: bool = False

    @classmethod
    def from_past(cls, stamps: StreamStamps, began: Arrival) -> Self | None:
        """The last sample that a spool knows of a stream; None if it knows none.

        began: the begin of this process.
        """
        if stamps.last_ns is None:
            return None
        newest_ns = stamps.last_ns if stamps.greatest_ns is None else stamps.greatest_ns
        before_ns = max(began.now_ns - stamps.committed_ns, 0)
        return cls(stamps.last_ns, began.monotonic_ns - before_ns, newest_ns, newest_ns + 1)


class LatestSamples:
    """The last sample of some signals, before its time stamp was made unique.

    time_ns: its source time.  arrived_ns: monotonic time at which it came, NEVER before the first.
    """

    def __init__(self, dtypes: Sequence[ValueType]) -> None:
        """dtypes: of the signals."""
        self.time_ns = np.full(len(dtypes), NEVER, np.int64)
        self.arrived_ns = np.full(len(dtypes), NEVER, np.int64)
        self._values = np.empty(len(dtypes), column_dtype(dtypes))
        for at, dtype in enumerate(dtypes):
            self._values[at] = no_value(dtype)
        self._quality = np.zeros(len(dtypes), np.uint8)

    def equals(self, samples: Samples) -> npt.NDArray[np.bool_]:
        """The samples that equal the last one of their signal in time, value and quality."""
        at = samples.signal
        same: npt.NDArray[np.bool_] = self.time_ns[at] == samples.time_ns
        same &= self._quality[at] == samples.quality
        same &= (self._values[at] == samples.values).astype(np.bool_) | (samples.quality == BAD)
        return same

    def remember(self, samples: Samples, monotonic_ns: int) -> None:
        """Note samples that come now; of several of one signal the last counts."""
        self.time_ns[samples.signal] = samples.time_ns
        self.arrived_ns[samples.signal] = monotonic_ns
        self._values[samples.signal] = samples.values
        self._quality[samples.signal] = samples.quality

    def remember_lot(self, order: SignalOrder, lot: Lot, monotonic_ns: int) -> None:
        """Note the samples of a lot that comes now."""
        last = order.last
        self.time_ns[order.signals] = lot.time_ns if last is None else lot.time_ns[last]
        self.arrived_ns[order.signals] = monotonic_ns
        self._values[order.signals] = lot.values if last is None else lot.values[last]
        self._quality[order.signals] = GOOD
