"""Inputs of a deployment as sources of rows, and their rows as columns of samples.  Pure."""

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from broker.batch import BAD, GOOD, NO_SAMPLE, Column, Times, filled_column
from broker.errors import Invalid
from broker.namespace import EquipmentKind
from broker.streams import Signal
from simulators.model import SourceRow, SourceValue

TimedRow = tuple[int, str, SourceRow]
"""Time since the beginning in ns, name of the input, and its row."""
StampedRow = tuple[int, SourceRow]
"""A row and the time stamp that its samples get, in ns since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayedInput:
    """An input of a deployment, as it is played.

    rows: gives its rows from the beginning, their time stamps counted from any instant.
    """

    name: str
    signals: tuple[Signal, ...]
    rows: Callable[[], Iterator[SourceRow]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayedInputs:
    """All inputs of a deployment, on one time axis.

    kind: of the equipment that they stand for: a recording is of a real one.  begin_ns: instant of
    the axis at which they begin.  length_ns: after which they begin again, None if they do not.
    """

    inputs: Sequence[PlayedInput]
    kind: EquipmentKind
    begin_ns: int = 0
    length_ns: int | None = None

    def rows(self) -> Iterator[TimedRow]:
        """Yield the rows of all inputs in the order of time, each with its time since the start."""
        shift_ns = -self.begin_ns
        while True:
            any_row = False
            for time_ns, name, row in _merged(self.inputs):
                any_row = True
                yield time_ns + shift_ns, name, row
            if self.length_ns is None or not any_row:
                return
            shift_ns += self.length_ns


def _merged(inputs: Sequence[PlayedInput]) -> Iterator[TimedRow]:
    def timed(played: PlayedInput) -> Iterator[TimedRow]:
        return ((row.time_ns, played.name, row) for row in played.rows())

    return heapq.merge(*(timed(each) for each in inputs), key=lambda each: each[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleColumns:
    """Samples of signals that share their time stamps, as an output publishes them."""

    time_ns: Times
    values: Mapping[str, Column]
    quality: Mapping[str, Sequence[int]]


def columns_of(signals: Sequence[Signal], rows: Sequence[StampedRow]) -> Iterator[SampleColumns]:
    """Yield the samples of rows, those together whose signals have samples in the same rows.

    rows: each under the time stamp that its samples get, ascending.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for at in range(len(signals)):
        places = tuple(k for k, (_, row) in enumerate(rows) if _quality(row, at) != NO_SAMPLE)
        groups.setdefault(places, []).append(at)
    for places, members in groups.items():
        if not places:
            continue
        chosen = [rows[place] for place in places]
        yield SampleColumns(
            time_ns=np.array([time_ns for time_ns, _ in chosen], np.int64),
            values={
                signals[at].name: _column(signals[at], [row.values[at] for _, row in chosen])
                for at in members
            },
            quality={signals[at].name: [_quality(row, at) for _, row in chosen] for at in members},
        )


def _quality(row: SourceRow, at: int) -> int:
    if row.quality:
        return row.quality[at]
    return BAD if row.values[at] is None else GOOD


def _column(signal: Signal, values: Sequence[SourceValue]) -> Column:
    """The values of a signal in its dtype; a bad sample has the placeholder of one."""
    column = filled_column(signal.type, len(values))
    for place, value in enumerate(values):
        if value is not None:
            column[place] = value
    return column


def checked_names(played: Mapping[str, Any], bound: Mapping[str, Any]) -> None:
    """Raise Invalid unless each input that is played is bound to a stream, and no other one."""
    for name in sorted(played.keys() ^ bound.keys()):
        what = "bound to no stream" if name in played else "played by nothing"
        raise Invalid(
            f"the input {name!r} is {what}", hint="the order and TESTBED_OUTPUTS name the same ones"
        )
