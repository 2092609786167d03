"""What every source of rows is: a model that is stepped, or a recording."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from broker.streams import Signal


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One instant of a machine.

    time_ns: since 1970 UTC in a recording, since the start in a model; whole microseconds, because
    no face shows finer ones.  values: one a signal, in their order, finite.  anomaly: the truth,
    None where it is not known.  cause: the fault behind it, several joined by `+`.
    """

    time_ns: int
    values: tuple[float, ...]
    anomaly: bool | None = None
    cause: str = ""


class RowSource(Protocol):
    """Rows in the order of time: equal arguments (and seed) give equal rows.  No I/O, no clock.

    Each row is computed when it is asked for, so a source may be endless.  Neighbours may share a
    time stamp; none goes back.
    """

    @property
    def signals(self) -> tuple[Signal, ...]:
        """What each value of a row is."""

    def rows(self) -> Iterator[SourceRow]:
        """All rows, from the beginning."""
