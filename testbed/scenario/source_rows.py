"""Rows of an equipment in virtual time: from a model, a recording or a file, quantum by quantum."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from broker.batch import GOOD, NUMPY, Quality, Times, no_value
from broker.clock import NS_PER_S
from broker.streams import Signal
from simulators.model import Model, SourceRow, SourceValue
from testbed_scenarios.observations import TruthInterval


@dataclass(frozen=True, slots=True)
class SourceColumns:
    """Rows of an equipment as columns.

    time_ns: int64[n], ascending, no two equal.  values, quality: one column of n a signal.
    """

    time_ns: Times
    values: tuple[npt.NDArray[Any], ...]
    quality: tuple[Quality, ...]

    @classmethod
    def good(cls, time_ns: Times, values: tuple[npt.NDArray[Any], ...]) -> "SourceColumns":
        """Rows of good quality."""
        return cls(time_ns, values, (np.zeros(len(time_ns), np.uint8),) * len(values))

    def __len__(self) -> int:
        return len(self.time_ns)

    def part(self, chosen: Any) -> "SourceColumns":
        """The rows that a slice or a mask chooses."""
        return SourceColumns(
            self.time_ns[chosen],
            tuple(column[chosen] for column in self.values),
            tuple(column[chosen] for column in self.quality),
        )

    def shifted(self, shift_ns: int) -> "SourceColumns":
        """The rows at other instants."""
        return SourceColumns(self.time_ns + shift_ns, self.values, self.quality)

    @classmethod
    def joined(cls, pieces: Sequence["SourceColumns"]) -> "SourceColumns":
        """The rows of several pieces, one after the other."""
        if len(pieces) == 1:
            return pieces[0]
        return cls(
            np.concatenate([piece.time_ns for piece in pieces]),
            _concatenated([piece.values for piece in pieces]),
            _concatenated([piece.quality for piece in pieces]),
        )


def _concatenated(
    pieces: Sequence[tuple[npt.NDArray[Any], ...]],
) -> tuple[npt.NDArray[Any], ...]:
    return tuple(np.concatenate(columns) for columns in zip(*pieces, strict=True))


class EquipmentSource(Protocol):
    """The rows of an equipment in virtual time.

    truth: the faults that it is known to have, None if nobody knows.
    """

    @property
    def signals(self) -> tuple[Signal, ...]:
        """Its signals."""

    @property
    def truth(self) -> tuple[TruthInterval, ...] | None:
        """Its own faults, as instants; None where they are not known."""

    def advance(self, until_ns: int, inputs: Mapping[str, float]) -> SourceColumns:
        """The rows from the end of the last call, or the run's start, and before an instant.

        inputs: values of a model's inputs, which act on these rows.
        """


class ModelSource:
    """Rows of a model, which its inputs act on."""

    def __init__(
        self, model: Model, start_ns: int, truth: tuple[TruthInterval, ...] | None
    ) -> None:
        """start_ns: instant of the model's first row."""
        self.signals = model.signals
        self.truth = truth
        self._model = model
        self._start_ns = start_ns
        self.period_ns = round(model.period_s * NS_PER_S)
        self._rows = 0

    def advance(self, until_ns: int, inputs: Mapping[str, float]) -> SourceColumns:
        """See `EquipmentSource`."""
        due = -(-(until_ns - self._start_ns) // self.period_ns)
        count, self._rows = due - self._rows, due
        return columns_of(self._model.advance(count, inputs), self.signals, self._start_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The instants of a recording in the run's time.

    start_ns, end_ns: of the run.  begin_ns: the recording's instant at start_ns.  speed: recorded
    seconds in a second of the run.  loop: whether it begins again at its end.
    """

    start_ns: int
    end_ns: int
    begin_ns: int
    speed: float = 1.0
    loop: bool = False

    def instants(self, time_ns: Times) -> Times:
        """The recording's instants as those of the run."""
        passed_ns = time_ns - self.begin_ns
        if self.speed != 1.0:
            passed_ns = np.round(passed_ns / self.speed).astype(np.int64)
        placed_ns: Times = self.start_ns + passed_ns
        return placed_ns

    def rounds(self, duration_ns: int) -> int:
        """How often a recording of a duration begins in the run."""
        recorded_ns = (self.end_ns - self.start_ns) * self.speed
        return math.ceil(recorded_ns / duration_ns) if self.loop else 1


class ReplaySource:
    """Rows that were recorded, at their instants of the run."""

    def __init__(
        self,
        signals: tuple[Signal, ...],
        recorded: SourceColumns,
        placement: Placement,
        truth: tuple[TruthInterval, ...] | None,
    ) -> None:
        """recorded: rows with the recording's time stamps, at least one from `begin_ns` on.  truth:
        in the recording's time.
        """
        self.signals = signals
        rows = recorded.part(recorded.time_ns >= placement.begin_ns)
        round_ns = _round_ns(rows.time_ns)
        shifts_ns = [number * round_ns for number in range(placement.rounds(round_ns))]
        rounds = SourceColumns.joined([rows.shifted(shift_ns) for shift_ns in shifts_ns])
        time_ns = distinct(placement.instants(rounds.time_ns))
        self.rows = SourceColumns(time_ns, rounds.values, rounds.quality)
        """All rows, at their instants of the run."""
        self._at = 0
        self.truth = None
        if truth is not None:
            self.truth = tuple(
                placed
                for shift_ns in shifts_ns
                for each in truth
                if (placed := _placed(each, shift_ns, placement)).to_ns > placement.start_ns
            )

    def advance(self, until_ns: int, inputs: Mapping[str, float]) -> SourceColumns:
        """See `EquipmentSource`; a recording has no inputs."""
        del inputs
        end = int(np.searchsorted(self.rows.time_ns, until_ns))
        begin, self._at = self._at, end
        return self.rows.part(slice(begin, end))


def _placed(recorded: TruthInterval, shift_ns: int, placement: Placement) -> TruthInterval:
    """A labelled fault at its instants of the run."""
    span_ns = np.array([recorded.from_ns, recorded.to_ns]) + shift_ns
    from_ns, to_ns = placement.instants(span_ns).tolist()
    return TruthInterval(recorded.kind, from_ns, to_ns, recorded.signal)


def _round_ns(time_ns: Times) -> int:
    """The duration of a recording: from its first row to its last, and a usual period more."""
    period_ns = int(np.median(np.diff(time_ns))) if len(time_ns) > 1 else NS_PER_S
    return int(time_ns[-1] - time_ns[0]) + (period_ns or NS_PER_S)


def columns_of(
    rows: Sequence[SourceRow], signals: Sequence[Signal], start_ns: int
) -> SourceColumns:
    """Rows as columns; start_ns: added to their time stamps.

    A sample that is bad or missing has a value that stands for none.
    """
    time_ns = np.array([row.time_ns for row in rows], np.int64) + start_ns
    by_signal = zip(*(row.values for row in rows), strict=True) if rows else ((),) * len(signals)
    values = tuple(
        _column(column, signal) for signal, column in zip(signals, by_signal, strict=True)
    )
    if not any(row.quality for row in rows):
        return SourceColumns.good(distinct(time_ns), values)
    good = (GOOD,) * len(signals)
    codes = zip(*(row.quality or good for row in rows), strict=True)
    quality = tuple(np.array(column, np.uint8) for column in codes)
    return SourceColumns(distinct(time_ns), values, quality)


def _column(cells: Sequence[SourceValue], signal: Signal) -> npt.NDArray[Any]:
    """The values of a signal, array[n] or array[n, elements]; None becomes what stands for none."""
    none = no_value(signal.type)
    present = [none if cell is None else cell for cell in cells]
    return np.array(present, NUMPY[signal.dtype]).reshape(len(cells), *signal.shape)


def distinct(time_ns: Times) -> Times:
    """Time stamps that ascend, where those that are not above their neighbour become the next ns.

    A recorder that writes whole seconds gives several rows one time stamp; a stream has one sample
    of a signal at an instant.
    """
    order = np.arange(len(time_ns))
    distinct_ns: Times = np.maximum.accumulate(time_ns - order) + order
    return distinct_ns


def labelled(rows: Sequence[SourceRow]) -> tuple[TruthInterval, ...] | None:
    """Faults that rows of a recording are labelled with, in its time; None without labels."""
    if not any(row.anomaly is not None for row in rows):
        return None
    intervals: list[TruthInterval] = []
    began_ns: int | None = None
    kind = ""
    for row in rows:
        if row.anomaly and began_ns is None:
            began_ns, kind = row.time_ns, row.cause
        elif not row.anomaly and began_ns is not None:
            intervals.append(TruthInterval(kind, began_ns, row.time_ns))
            began_ns = None
    if began_ns is not None:
        intervals.append(TruthInterval(kind, began_ns, rows[-1].time_ns + 1))
    return tuple(intervals)
