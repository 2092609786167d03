"""Rows of a simulated machine, and the ports of their sources: recordings, and models."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from broker.errors import Invalid
from broker.streams import Signal
from simulators.parameters import unknown

SourceValue = float | int | bool | str | tuple[float, ...] | None
"""A value of a signal in its dtype, a tuple where its shape is [n]; None without a usable one."""


@dataclass(frozen=True, slots=True)
class SourceRow:
    """The values of all signals of a machine at one instant.

    time_ns: since 1970 UTC in a recording, since the start in a model; whole microseconds in a
    model and a CSV file, because no face shows finer ones.  values: one a signal, in their order,
    finite.  anomaly: whether the row is anomalous, None if unknown.  cause: the fault behind it,
    several joined by `+`.  quality: one a signal as in a batch, or NO_SAMPLE; empty where all are
    good.
    """

    time_ns: int
    values: tuple[SourceValue, ...]
    anomaly: bool | None = None
    cause: str = ""
    quality: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ObjectNode:
    """An object of a machine's address space, with some of its signals as variables.

    name: its browse name, which a gateway takes for that of a stream.
    """

    name: str
    signals: tuple[Signal, ...]

    def signal_names(self, objects: int) -> Iterator[str]:
        """The names of its signals: with its own before them if it is one of several objects."""
        before = f"{self.name}/" if objects > 1 else ""
        return (f"{before}{signal.name}" for signal in self.signals)


class RowSource(Protocol):
    """A source of rows in the order of time, without I/O or clock.

    Equal arguments (and seed) give equal rows.  Each row is computed on demand, so a source may be
    endless.  Neighbours may share a
    time stamp; none goes back.
    """

    @property
    def signals(self) -> tuple[Signal, ...]:
        """Signals of the values in a row, in their order."""

    def rows(self) -> Iterator[SourceRow]:
        """Yield all rows, from the beginning."""


class Model(RowSource, Protocol):
    """A `RowSource` that computes a machine from its equations, and that a controller may act on.

    It has one state for `advance`, and another for each `rows`: they do not disturb one another.
    """

    @property
    def inputs(self) -> tuple[Signal, ...]:
        """Signals that act on the machine, such as the opening of a valve; none is required."""

    @property
    def period_s(self) -> float:
        """Time of the model between two rows."""

    def advance(self, count: int, inputs: Mapping[str, float]) -> list[SourceRow]:
        """Compute the next `count` rows, with the inputs held over them.

        inputs: name -> value in the input's unit, limited to its range as an actuator is; one that
        is left out keeps its value.  However many rows are asked for at once, they are the same.
        Raises Invalid for an input that the model does not have, or that is no finite number.
        """


def limits_of(signal: Signal) -> tuple[float, float]:
    """The range of a sensor or actuator, infinite where it has none."""
    low = -math.inf if signal.low is None else float(signal.low)
    return low, math.inf if signal.high is None else float(signal.high)


def limited_inputs(
    machine: str, signals: Sequence[Signal], values: Mapping[str, float]
) -> dict[str, float]:
    """Values of inputs limited to their ranges, as an actuator does.

    machine: its name.  signals: its inputs.  Raises Invalid for an unknown or no finite one.
    """
    ranges = {signal.name: limits_of(signal) for signal in signals}
    limited = {}
    for name, value in values.items():
        if name not in ranges:
            raise unknown(f"{machine} has no input {name[:200]!r}", name, ranges)
        if not math.isfinite(value):
            raise Invalid(f"input {name} of {machine} is {value}", hint="a finite number")
        low, high = ranges[name]
        limited[name] = min(max(float(value), low), high)
    return limited
