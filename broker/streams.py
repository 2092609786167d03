"""Specs of streams: the schema of their samples."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Self

from broker.clock import DAY_S
from broker.errors import Invalid
from broker.namespace import StreamAddress

_SIGNAL_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 _.-]{0,62}[A-Za-z0-9])?", re.ASCII)

MOST_SIGNALS = 1_000
MOST_SPECS = 500
"""Most specs that are registered at once."""
MOST_VALUES = 10_000
"""Most values of a batch; an array counts as many as it has elements."""
MOST_ELEMENTS = MOST_VALUES
"""Most elements of an array, so that one sample always fits a batch."""
MOST_TEXT = 400
PAST_LIMIT_S = 30.0 * DAY_S
FUTURE_LIMIT_S = 1.0 * DAY_S
"""Usual limits of how far from its arrival a sample may lie."""
MOST_LIMIT_S = 10.0 * 366 * DAY_S
"""Greatest such limit: stores keep a file for each week in which samples lie."""


class Dtype(StrEnum):
    """Data type of a signal's values; it never changes within a stream."""

    FLOAT64 = "float64"
    INT64 = "int64"
    BOOL = "bool"
    STRING = "string"


@dataclass(frozen=True, slots=True)
class ArrayOf:
    """Type of a value that is an array of `size` elements, such as a spectrum or a waveform."""

    dtype: Dtype
    size: int

    def __str__(self) -> str:
        return f"{self.dtype}[{self.size}]"


ValueType = Dtype | ArrayOf
"""Type of a signal's values: one number, truth value or text, or an array of them."""


class Trigger(StrEnum):
    """Change that makes the source send a sample (OPC UA Part 4, DataChangeTrigger)."""

    VALUE = "value"
    TIMESTAMP = "timestamp"


def checked_signal(text: str) -> str:
    """Return `text` if it is a valid name of a signal; raises Invalid."""
    if _SIGNAL_NAME.fullmatch(text) is None:
        raise Invalid(
            f"signal name {text[:80]!r} is not allowed",
            hint="use 1 to 64 of A-Z, a-z, 0-9, ' ', '_', '.', '-', at both ends a letter or digit",
        )
    return text


@dataclass(frozen=True, slots=True)
class Signal:
    """One typed series of a stream.

    unit: UCUM code, "1" without dimension.  low, high: the range values are expected in;
    resolution: the smallest step that means something; all three in `unit` and only for numbers.
    node: its address in the source.  shape: () for one value a sample, (n,) for an array of n, from
    1 to `MOST_ELEMENTS`; unit and range are then those of each element.
    """

    name: str
    dtype: Dtype = Dtype.FLOAT64
    unit: str = "1"
    low: float | None = None
    high: float | None = None
    resolution: float | None = None
    description: str = ""
    node: str = ""
    shape: tuple[()] | tuple[int] = ()

    def __post_init__(self) -> None:
        checked_signal(self.name)
        if self.shape != ():
            self._check_shape()
        for what in ("unit", "description", "node"):
            if len(getattr(self, what)) > MOST_TEXT:
                raise Invalid(
                    f"{what} of signal {self.name!r} is longer than {MOST_TEXT} characters"
                )
        self._check_range()

    @property
    def type(self) -> ValueType:
        """The type of its values: `dtype`, or an array of it."""
        return ArrayOf(self.dtype, self.shape[0]) if self.shape else self.dtype

    def _check_shape(self) -> None:
        size = self.shape[0] if len(self.shape) == 1 else None
        if type(size) is not int or not 1 <= size <= MOST_ELEMENTS:
            raise Invalid(
                f"signal {self.name!r} has shape {list(self.shape)}",
                hint=f"[] for one value a sample, [n] for an array of 1 to {MOST_ELEMENTS}",
            )
        if self.dtype is Dtype.STRING:
            raise Invalid(
                f"signal {self.name!r} is an array of strings",
                hint="arrays are float64, int64 or bool; name a signal for each text",
            )

    def _check_range(self) -> None:
        given = {"low": self.low, "high": self.high, "resolution": self.resolution}
        for what, number in given.items():
            if number is None:
                continue
            if self.dtype not in {Dtype.FLOAT64, Dtype.INT64}:
                raise Invalid(
                    f"signal {self.name!r} is a {self.dtype} and has a {what}", hint="leave it out"
                )
            if not math.isfinite(number):
                raise Invalid(
                    f"{what} of signal {self.name!r} is {number}", hint="give a finite number"
                )
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise Invalid(
                f"signal {self.name!r} ranges from {self.low:g} to {self.high:g} {self.unit}",
                hint="low must be below high",
            )
        if self.resolution is not None and self.resolution <= 0:
            raise Invalid(
                f"resolution of signal {self.name!r} is {self.resolution:g}", hint="above 0"
            )


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """The schema of a stream: immutable per (stream, version).

    version: from 1 up, given by the registry.  signals: their order is the order of indexes in long
    frames. period_s: the usual time between samples; 0 where there is none.  max_silence_s: with
    trigger `value`, how long the source may say nothing before it is asked.  past_limit_s,
    future_limit_s: how far before and after its arrival a sample may lie to be stored.
    """

    address: StreamAddress
    signals: tuple[Signal, ...]
    version: int = 1
    trigger: Trigger = Trigger.VALUE
    period_s: float = 0.0
    max_silence_s: float = 10.0
    description: str = ""
    past_limit_s: float = PAST_LIMIT_S
    future_limit_s: float = FUTURE_LIMIT_S
    names: tuple[str, ...] = field(init=False, repr=False, compare=False)
    """The signals' names, in the order of the spec."""
    dtypes: tuple[ValueType, ...] = field(init=False, repr=False, compare=False)
    """The types of the signals' values, in the order of the spec."""
    has_arrays: bool = field(init=False, repr=False, compare=False)
    """Whether a signal is an array: such a stream takes the general paths."""
    _named: Mapping[str, Signal] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = tuple(signal.name for signal in self.signals)
        object.__setattr__(self, "names", names)
        has_arrays = any(signal.shape for signal in self.signals)
        dtypes = tuple(signal.type if has_arrays else signal.dtype for signal in self.signals)
        object.__setattr__(self, "dtypes", dtypes)
        object.__setattr__(self, "has_arrays", has_arrays)
        object.__setattr__(self, "_named", dict(zip(names, self.signals, strict=True)))
        if not 1 <= self.version < 2**31:
            raise Invalid(f"spec version {self.version} of {self.address}", hint="count from 1")
        if not 1 <= len(self.signals) <= MOST_SIGNALS:
            raise Invalid(
                f"{self.address} has {len(self.signals)} signals", hint=f"give 1 to {MOST_SIGNALS}"
            )
        twice = sorted(name for name, times in Counter(names).items() if times > 1)
        if twice:
            raise Invalid(
                f"{self.address} names signal {twice[0]!r} twice", hint="one name, one signal"
            )
        if not (math.isfinite(self.period_s) and self.period_s >= 0):
            raise Invalid(f"period of {self.address} is {self.period_s} s", hint="0 or more")
        if not (math.isfinite(self.max_silence_s) and self.max_silence_s > 0):
            raise Invalid(
                f"max_silence of {self.address} is {self.max_silence_s} s", hint="above 0"
            )
        for name in ("past_limit_s", "future_limit_s"):
            limit_s = getattr(self, name)
            if not 0 < limit_s <= MOST_LIMIT_S:
                raise Invalid(
                    f"{name} of {self.address} is {limit_s:g} s",
                    hint=f"above 0 and at most {MOST_LIMIT_S:,.0f}, ten years",
                )
        if len(self.description) > MOST_TEXT:
            raise Invalid(f"description of {self.address} is longer than {MOST_TEXT} characters")

    def signal(self, name: str) -> Signal:
        """Return a signal by name; raises Invalid."""
        if name in self._named:
            return self._named[name]
        raise Invalid(
            f"{self.address} has no signal {name!r}", hint=f"it has {', '.join(self.names)}"
        )

    def numbered(self, version: int) -> Self:
        """Return the same schema under another version."""
        return replace(self, version=version)

    def follows(self, earlier: "StreamSpec") -> None:
        """Raise Invalid if this cannot be the stream's next version: a signal changes its type."""
        types = dict(zip(earlier.names, earlier.dtypes, strict=True))
        for signal in self.signals:
            before = types.get(signal.name, signal.type)
            if before != signal.type:
                raise Invalid(
                    f"{self.address}: {signal.name!r} was {before} in version {earlier.version}"
                    f" and would become {signal.type}",
                    hint="stored samples keep their type: give the signal a new name",
                )
