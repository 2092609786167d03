"""The clocks of sources: signals whose time stamps do not move on, or lie far from now.  Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from broker.batch import Times
from broker.clock import DAY_S, HOUR_S, NS_PER_S, text_of
from broker.namespace import LIVE
from gateway.mapping.model import TimeStampLimits
from gateway.samples import Arrival

FAR_ALARM_NS = 60 * NS_PER_S
"""The alarm about time stamps far from now is cleared when the last of them came so long ago."""
MOST_NAMES = 3
"""Signals that an alarm names."""

_UNLIMITED_NS = 2**62
_NEVER = np.iinfo(np.int64).min


class StampLimits(NamedTuple):
    """The limits on the time stamps of a source in ns; see `TimeStampLimits`."""

    ahead_ns: int
    behind_ns: int
    stalled_ns: int

    @classmethod
    def from_mapping(cls, limits: TimeStampLimits, space: str) -> Self:
        """Convert the limits of a mapping; the space of a run has a time of its own, without."""
        stalled_ns = round(limits.stalled_s * NS_PER_S)
        if space != LIVE:
            return cls(_UNLIMITED_NS, _UNLIMITED_NS, stalled_ns)
        return cls(round(limits.ahead_s * NS_PER_S), round(limits.behind_s * NS_PER_S), stalled_ns)


class StalledSignals:
    """Since when the samples of some signals come without a newer time stamp."""

    def __init__(self, signals: int) -> None:
        """signals: number of signals."""
        self._newest_ns = np.full(signals, _NEVER, np.int64)
        """The newest time stamp of each signal when its last samples brought no newer one."""
        self._since_ns = np.zeros(signals, np.int64)

    def note(
        self, signals: npt.NDArray[np.int32], before_ns: Times, after_ns: Times, since_ns: Times
    ) -> None:
        """Note samples that brought no newer time stamp.

        before_ns, after_ns: the newest time stamp of each signal before and after them, which may
        differ by some ns.  since_ns: monotonic time at which the sample before them came.
        """
        begins = self._newest_ns[signals] != before_ns
        self._since_ns[signals[begins]] = since_ns[begins]
        self._newest_ns[signals] = after_ns

    def stalled(self, newest_ns: Times, arrived_ns: Times, least_ns: int) -> npt.NDArray[np.intp]:
        """The signals whose samples came for `least_ns` without a newer time stamp.

        newest_ns: time stamp of each signal's newest sample.  arrived_ns: monotonic time at which
        its last one came.
        """
        lasts = arrived_ns - self._since_ns >= least_ns
        return np.flatnonzero((self._newest_ns == newest_ns) & lasts)

    def is_stalled(self, signal: int, newest_ns: int, arrived_ns: int, least_ns: int) -> bool:
        """Whether `stalled` would name a signal, without looking at the others."""
        lasts = arrived_ns - int(self._since_ns[signal]) >= least_ns
        return lasts and int(self._newest_ns[signal]) == newest_ns


@dataclass(slots=True)
class FarStamps:
    """The samples of a stream whose time stamps were far from now.

    samples: their number.  arrived_ns: monotonic time at which the last one came.  away_ns: how far
    its time stamp was ahead of that, negative for behind.  signals: indexes of those that had any.
    """

    samples: int = 0
    arrived_ns: int = 0
    away_ns: int = 0
    signals: set[int] = field(default_factory=set)

    def note(self, signals: Sequence[int], last_ns: int, arrival: Arrival) -> None:
        """Note samples that come now: the signal of each, and the time stamp of the last."""
        self.samples += len(signals)
        self.arrived_ns, self.away_ns = arrival.monotonic_ns, last_ns - arrival.now_ns
        self.signals.update(signals)


def stalled_sentence(names: Sequence[str], newest_ns: int) -> str:
    """The alarm about signals whose time stamps do not move on."""
    return (
        f"samples of {listed(names)} come, and their time stamps do not pass {text_of(newest_ns)}:"
        " the source's clock stands still or was set back"
    )


def far_sentence(names: Sequence[str], away_ns: int) -> str:
    """The alarm about time stamps that lie far from now."""
    where = "ahead of" if away_ns > 0 else "behind"
    return (
        f"time stamps of {listed(names)} are {_rounded(abs(away_ns))} {where} the gateway's clock:"
        " stored as uncertain; which of the clocks is wrong?"
    )


def listed(names: Sequence[str]) -> str:
    """The first of some names, and how many there are beside them."""
    quoted = ", ".join(map(repr, names[:MOST_NAMES]))
    rest = len(names) - MOST_NAMES
    return f"{quoted} and {rest} more" if rest > 0 else quoted


def _rounded(duration_ns: int) -> str:
    """A duration in the largest unit of which it has two or more, or in seconds."""
    seconds = duration_ns / NS_PER_S
    for unit_s, unit in ((DAY_S, "days"), (HOUR_S, "hours"), (60, "minutes")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds:.0f} seconds"
