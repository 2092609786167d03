"""What the load source offers: every sample a function of (signal, sequence number).  Pure.

So source and checker agree on each sample without a ledger of millions of rows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from broker.clock import NS_PER_S

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

NAMESPACE = "urn:connected-testbed:benchmarks"
MICROSECOND_NS = 1_000
STEPS = 100_000
"""Values are thousandths from 0 to 99.999, as a sensor with five digits gives them."""


@dataclass(frozen=True, slots=True)
class Load:
    """streams x signals, each sampled `rate_hz` times a second.

    own: every sample has a time stamp of its own; otherwise those of a stream share theirs.  The
    period is a whole number of microseconds, and so is every time stamp: all clients keep that.
    """

    streams: int
    signals: int
    rate_hz: float = 10.0
    own: bool = False
    seed: int = 1

    @property
    def items(self) -> int:
        """Signals of all streams."""
        return self.streams * self.signals

    @property
    def period_ns(self) -> int:
        """Between two samples of a signal."""
        return round(NS_PER_S / self.rate_hz / MICROSECOND_NS) * MICROSECOND_NS

    @property
    def values_per_s(self) -> float:
        """What the source offers in all."""
        return self.items * self.rate_hz

    def before(self, time_ns: int) -> int:
        """The first sequence number that is not wholly past at this moment."""
        return time_ns // self.period_ns

    def times_ns(self, items: Ints, seqs: Ints) -> Ints:
        """When each sample was taken, within the period that its number names; arrays of one
        shape, or such that numpy makes them so.
        """
        group = items if self.own else items // self.signals
        late_us = _mixed(group, seqs, self.seed) % (self.period_ns // MICROSECOND_NS)
        return seqs * self.period_ns + late_us.astype(np.int64) * MICROSECOND_NS

    def values(self, items: Ints, seqs: Ints) -> Floats:
        """What each sample holds; shapes as in `times_ns`."""
        return (_mixed(items, seqs, self.seed + 1) % STEPS).astype(np.float64) / 1000.0


def stream_name(stream: int) -> str:
    """The id of a stream."""
    return f"s{stream:04d}"


def signal_name(signal: int) -> str:
    """The name of a signal within its stream."""
    return f"x{signal:03d}"


def node_name(item: int) -> str:
    """The string identifier of an item's node."""
    return f"Load.{item}"


def item_of(identifier: Any) -> int:
    """The item of a node's identifier; raises ValueError if it is none of ours."""
    head, _, number = str(identifier).partition("Load.")
    if head or not number.isdecimal():
        raise ValueError(f"{identifier!r} is no node of the load source")
    return int(number)


def _mixed(items: Ints, seqs: Ints, seed: int) -> npt.NDArray[np.uint64]:
    """A hash of each pair; splitmix64's finaliser (Steele et al., 2014)."""
    left = items.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    right = seqs.astype(np.uint64) * np.uint64(0xD1B54A32D192ED03) + np.uint64(seed)
    mixed = left ^ right
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    return mixed
