"""A recording that is played again and again."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from broker.clock import NS_PER_S
from simulators.model import RowSource, SourceRow


class RepeatedSource:
    """A source that starts again when it ends, with time stamps that go on."""

    def __init__(self, source: RowSource, notes: Sequence[str] = ()) -> None:
        """source: of two rows or more, so that it has a period.  notes: about it."""
        self.notes = tuple(notes)
        self.signals = source.signals
        self._source = source

    def rows(self) -> Iterator[SourceRow]:
        """The source's rows again and again, each round later by the source's duration."""
        shift_ns = 0
        while True:
            last_ns = period_ns = 0
            first_ns: int | None = None
            for row in self._source.rows():
                first_ns = row.time_ns if first_ns is None else first_ns
                period_ns, last_ns = row.time_ns - last_ns, row.time_ns
                yield replace(row, time_ns=row.time_ns + shift_ns)
            shift_ns += last_ns - (first_ns or 0) + (period_ns or NS_PER_S)
