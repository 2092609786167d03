"""Many documents read as one, so that what a document costs is not paid for each.

Only what is plain is read so: one frame whose cells are nothing but finite numbers, of a stream
that has float64 signals only.  All else is for `codec.fit`, document by document, which also knows
why something does not fit.  A property holds that both read the same.  Pure.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from broker import clock
from broker.batch import MOST_VALUES, ColumnArray, Long, Wide
from broker.codec import Document
from broker.errors import Invalid
from broker.streams import Dtype, StreamSpec

MOST_NS = 2**62
"""Instants and offsets up to here can be added in int64."""

_LONG = {"t0", "dt", "signal", "value"}
_WIDE = {"t0", "dt", "values"}
_FLOATS = {Dtype.FLOAT64}
_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Group:
    """Documents of one spec, in the order of their arrival."""

    spec: StreamSpec
    documents: Sequence[Document]


class Piece(NamedTuple):
    """What one document has in a frame.  at: its place in the group.  size: how many it has along
    the frame's time stamps.
    """

    at: int
    size: int


@dataclass(slots=True)
class Joined:
    """What was read of a group: frames, each with the pieces it is made of, in their order.

    apart: places of the documents that are to be read one by one.
    """

    frames: list[tuple[Wide | Long, list[Piece]]] = field(default_factory=list)
    apart: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Plain:
    """A frame that holds numbers only, in lists of matching lengths."""

    group: int
    at: int
    start_ns: int
    signals: int
    raw: Mapping[str, Any]

    @property
    def size(self) -> int:
        return len(self.raw["dt"])

    @property
    def shape(self) -> tuple[int, int]:
        return self.signals, self.size


def join(groups: Sequence[Group]) -> list[Joined]:
    """Read the documents of each group, as many at once as are plain."""
    told = [Joined() for _ in groups]
    long: list[_Plain] = []
    wide: list[_Plain] = []
    for number, group in enumerate(groups):
        floats = set(group.spec.dtypes) == _FLOATS
        for at, document in enumerate(group.documents):
            found = _plain(number, at, document, group.spec) if floats else None
            if found is None:
                told[number].apart.append(at)
            else:
                (long if "signal" in found.raw else wide).append(found)
    _add_long(told, groups, long)
    wide.sort(key=lambda one: one.shape)  # stable: groups and documents stay in order
    for _, alike in groupby(wide, key=lambda one: one.shape):
        _add_wide(told, groups, list(alike))
    for joined in told:
        joined.apart.sort()
    return told


def piece(frame: Wide | Long, start: int, size: int) -> Wide | Long:
    """A part of a joined frame: `size` time stamps from `start` on."""
    part = slice(start, start + size)
    if isinstance(frame, Wide):
        columns = {name: column[part] for name, column in frame.values.items()}
        quality = {name: codes[part] for name, codes in frame.quality.items()}
        return Wide(frame.time_ns[part], columns, quality)
    return Long(
        frame.time_ns[part],
        frame.signal[part],
        frame.values[part],
        frame.quality[part],
        frame.names,
        frame.dtypes,
    )


# --- what is plain --------------------------------------------------------------------------------


def _plain(group: int, at: int, document: Document, spec: StreamSpec) -> _Plain | None:
    """The document's only frame if it is plain."""
    if len(document.frames) != 1 or document.spec_version != spec.version:
        return None
    (raw,) = document.frames
    if not isinstance(raw, dict) or type(raw.get("t0")) is not str or not _ints(raw.get("dt")):
        return None
    if not (_is_long(raw) if "signal" in raw else _is_wide(raw, spec)):
        return None
    try:
        start_ns = clock.ns_of(raw["t0"])
    except Invalid:
        return None
    if not -MOST_NS < start_ns < MOST_NS:
        return None
    return _Plain(group, at, start_ns, len(spec.names), raw)


def _is_long(raw: Mapping[str, Any]) -> bool:
    return (
        raw.keys() == _LONG
        and _ints(raw["signal"])
        and type(raw["value"]) is list
        and len(raw["signal"]) == len(raw["value"]) == len(raw["dt"]) <= MOST_VALUES
        and set(map(type, raw["value"])) == {float}
    )


def _is_wide(raw: Mapping[str, Any], spec: StreamSpec) -> bool:
    """Whether it holds all signals of the spec, in its order."""
    if raw.keys() != _WIDE or type(raw["values"]) is not dict:
        return False
    columns, count = raw["values"], len(raw["dt"])
    lists = columns.values()
    return (
        tuple(columns) == spec.names
        and len(columns) * count <= MOST_VALUES
        and set(map(type, lists)) == {list}
        and set(map(len, lists)) == {count}
        and set(map(type, chain.from_iterable(lists))) == {float}
    )


def _ints(found: object) -> bool:
    """Whether it is a list of integers, at least one."""
    return type(found) is list and set(map(type, found)) == {int}


# --- together -------------------------------------------------------------------------------------


def _add_long(told: Sequence[Joined], groups: Sequence[Group], plain: Sequence[_Plain]) -> None:
    """Read long frames of all groups as one, then cut it by groups."""
    if not plain:
        return
    sizes = np.array([one.size for one in plain])
    offsets = _integers([one.raw["dt"] for one in plain])
    signal = _integers([one.raw["signal"] for one in plain])
    values = _floats([one.raw["value"] for one in plain])
    fits: _Flags = np.isfinite(values) & _near(offsets)
    fits &= (signal >= 0) & (signal < np.repeat([one.signals for one in plain], sizes))
    if not fits.all():
        by_document = np.logical_and.reduceat(fits, np.cumsum(sizes) - sizes)
        _add_long(told, groups, _fitting(told, plain, by_document))
        return
    index = signal.astype(np.int32)
    times = np.repeat([one.start_ns for one in plain], sizes) + offsets
    good = np.zeros(len(times), np.uint8)
    end = 0
    for number, mine in _by_group(plain):
        start, end = end, end + sum(one.size for one in mine)
        part, spec = slice(start, end), groups[number].spec
        frame = Long(times[part], index[part], values[part], good[part], spec.names, spec.dtypes)
        told[number].frames.append((frame, [Piece(one.at, one.size) for one in mine]))


def _add_wide(told: Sequence[Joined], groups: Sequence[Group], plain: Sequence[_Plain]) -> None:
    """Read wide frames of one shape as one, then cut it by groups."""
    if not plain:
        return
    signals, size = plain[0].shape
    offsets = _integers([one.raw["dt"] for one in plain])
    lists = list(chain.from_iterable(one.raw["values"].values() for one in plain))
    cells = _floats(lists).reshape(len(plain), signals, size)
    near = np.logical_and.reduce(_near(offsets).reshape(-1, size), axis=1)
    fits: _Flags = np.logical_and.reduce(np.isfinite(cells), axis=(1, 2)) & near
    if not fits.all():
        _add_wide(told, groups, _fitting(told, plain, fits))
        return
    times = np.repeat([one.start_ns for one in plain], size) + offsets
    rows = np.ascontiguousarray(cells.transpose(0, 2, 1)).reshape(-1, signals)
    end = 0
    for number, mine in _by_group(plain):
        start, end = end, end + len(mine) * size
        frame = Wide(times[start:end], ColumnArray(groups[number].spec.names, rows[start:end].T))
        told[number].frames.append((frame, [Piece(one.at, size) for one in mine]))


def _fitting(told: Sequence[Joined], plain: Sequence[_Plain], fits: _Flags) -> list[_Plain]:
    """Set apart what has a number out of its range; the others."""
    for one, does in zip(plain, fits.tolist(), strict=True):
        if not does:
            told[one.group].apart.append(one.at)
    return [one for one, does in zip(plain, fits.tolist(), strict=True) if does]


def _by_group(plain: Sequence[_Plain]) -> Iterator[tuple[int, list[_Plain]]]:
    for number, mine in groupby(plain, key=lambda one: one.group):
        yield number, list(mine)


def _near(offsets: npt.NDArray[np.int64]) -> _Flags:
    """Which offsets can be added to a start in int64."""
    return (offsets > -MOST_NS) & (offsets < MOST_NS)


def _integers(lists: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
    """All of them behind one another; what is beyond int64 as ±MOST_NS, which nothing may be."""
    count = sum(map(len, lists))
    try:
        return np.fromiter(chain.from_iterable(lists), np.int64, count)
    except OverflowError:
        kept = (min(max(one, -MOST_NS), MOST_NS) for one in chain.from_iterable(lists))
        return np.fromiter(kept, np.int64, count)


def _floats(lists: Sequence[Sequence[float]]) -> npt.NDArray[np.float64]:
    return np.fromiter(chain.from_iterable(lists), np.float64, sum(map(len, lists)))
