"""What every source of rows is: a model that is stepped, or a recording."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from broker.streams import Signal


@dataclass(frozen=True, slots=True)
class Row:
    """One instant of a machine.

    time_ns: since 1970 UTC in a recording, since the start in a model.  values: one a signal, in
    their order. anomaly: the truth, None where it is not known.  cause: the fault behind it.
    """

    time_ns: int
    values: tuple[float, ...]
    anomaly: bool | None = None
    cause: str = ""


class Source(Protocol):
    """Rows in the order of time: equal arguments (and seed) give equal rows.  No I/O, no clock."""

    @property
    def signals(self) -> tuple[Signal, ...]:
        """What each value of a row is."""

    def rows(self) -> Iterator[Row]:
        """All rows, from the beginning."""
