"""Rows of a simulated machine, and the port of their sources: models and recordings."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from broker.streams import Signal


@dataclass(frozen=True, slots=True)
class SourceRow:
    """The values of all signals of a machine at one instant.

    time_ns: since 1970 UTC in a recording, since the start in a model; whole microseconds, because
    no face shows finer ones.  values: one a signal, in their order, finite.  anomaly: whether the
    row is anomalous, None if unknown.  cause: the fault behind it, several joined by `+`.
    """

    time_ns: int
    values: tuple[float, ...]
    anomaly: bool | None = None
    cause: str = ""


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
