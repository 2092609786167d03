"""Aggregates samples in windows of equal length: their width as text, their edges, their values.

A window begins at a multiple of its width since 1970-01-01T00:00:00Z, which belongs to it, and ends
before the next one.  Pure.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

from broker import time_expressions
from broker.clock import NS_PER_S
from broker.errors import Invalid
from broker.streams import Dtype, StreamSpec

UNITS_NS = {
    unit: round(size_s * NS_PER_S)
    for unit, size_s in time_expressions.UNITS.items()
    if unit != "w"  # windows are counted from 1970-01-01, a Thursday: no week begins then
}
LEAST_NS, MOST_NS = UNITS_NS["ms"], 366 * UNITS_NS["d"]
EARLIEST_NS = -(2**63) + 2
"""The earliest time stamp of a sample; every window begins after it."""
FORM = "write a whole number with ms, s, min or m, h or d, such as 1s or 15min"
PATTERN = r"^[0-9]{1,12}(ms|min|m|s|h|d)$"

_WIDTH = re.compile(PATTERN, re.ASCII)
_NUMBERS = frozenset({Dtype.FLOAT64, Dtype.INT64})
_MOST_NAMED = 5


class Aggregate(StrEnum):
    """The value of a window, made of the samples in it."""

    MEAN = "mean"
    LAST = "last"
    MIN = "min"
    MAX = "max"


@dataclass(frozen=True, slots=True)
class Aggregation:
    """Windows of `every_ns` nanoseconds, with one value for each signal that has samples there."""

    every_ns: int
    how: Aggregate = Aggregate.MEAN

    def __post_init__(self) -> None:
        if not LEAST_NS <= self.every_ns <= MOST_NS:
            raise Invalid(f"a window of {self.every_ns} ns", hint="from 1ms to 366d")

    @classmethod
    def parse(cls, every: str | None, how: str | None) -> Self | None:
        """Read a width such as `1s` and a name of `Aggregate`, by default the mean.

        Returns None if neither is given; raises Invalid for what is neither, and for `how` alone.
        """
        if every is None:
            if how is not None:
                raise Invalid(
                    f"'how' is {how}, and 'every' names no windows",
                    hint="give their width as well: every=1s, or --every 1s",
                )
            return None
        try:
            aggregate = Aggregate(how or Aggregate.MEAN)
        except ValueError as exc:
            raise Invalid(
                f"how={str(how)[:40]!r} is not known", hint=f"one of {', '.join(Aggregate)}"
            ) from exc
        return cls(width_ns(every), aggregate)

    @property
    def every(self) -> str:
        """The width as text, in the largest unit that divides it."""
        unit = next(unit for unit, size_ns in UNITS_NS.items() if not self.every_ns % size_ns)
        return f"{self.every_ns // UNITS_NS[unit]}{unit}"

    def begin_ns(self, time_ns: int) -> int:
        """Return the begin of the window that an instant is in."""
        return time_ns - time_ns % self.every_ns

    def dtype(self, dtype: Dtype) -> Dtype:
        """Return the dtype of the values for signals of `dtype`: a mean of int64 is float64."""
        is_mean = self.how is Aggregate.MEAN
        return Dtype.FLOAT64 if is_mean and dtype is Dtype.INT64 else dtype

    def spec(self, spec: StreamSpec) -> StreamSpec:
        """Return a stream's spec with the dtypes of the aggregated values."""
        signals = (replace(signal, dtype=self.dtype(signal.dtype)) for signal in spec.signals)
        return replace(spec, signals=tuple(signals))

    def check(self, spec: StreamSpec, names: Iterable[str], from_ns: int) -> None:
        """Raise Invalid if a signal has no such value: only `last` takes a bool, text or array.

        from_ns: begin of the span; its window must begin after `EARLIEST_NS`.
        """
        if self.begin_ns(from_ns) <= EARLIEST_NS:
            raise Invalid(
                f"the first window of {self.every} begins before any instant that can be stored",
                hint="from 1679 on every window can be asked for",
            )
        if self.how is Aggregate.LAST:
            return
        signals = [spec.signal(name) for name in names]
        wrong = [signal for signal in signals if signal.type not in _NUMBERS]
        if not wrong:
            return
        numbers = [signal.name for signal in signals if signal.type in _NUMBERS]
        others = f", or name signals that are numbers: {_few(numbers)}" if numbers else ""
        raise Invalid(
            f"how={self.how} needs numbers, and of {spec.address}"
            f" {_few([f'{signal.name!r} is {signal.type}' for signal in wrong])}",
            hint=f"how=last takes every signal{others}",
        )


def width_ns(text: str) -> int:
    """Parse the width of a window, `250ms`, `1s`, `15min`, `6h` or `1d`, in ns; raises Invalid."""
    match = _WIDTH.fullmatch(text)
    if match is None:
        raise Invalid(f"{text[:40]!r} is not the width of a window", hint=FORM)
    size_ns = int(text.removesuffix(match[1])) * UNITS_NS[match[1]]
    if not LEAST_NS <= size_ns <= MOST_NS:
        raise Invalid(f"a window of {text}", hint="from 1ms to 366d")
    return size_ns


def _few(texts: list[str]) -> str:
    """The first of several texts, with the number of the others."""
    more = len(texts) - _MOST_NAMED
    return ", ".join(texts[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
