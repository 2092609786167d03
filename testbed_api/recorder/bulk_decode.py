"""Decodes many documents in one pass, which saves the cost of a document for each of them.

It takes plain documents only: one frame whose cells are all finite numbers, of a stream with
float64 signals.  The others are decoded one by one by `codec.fit`, which also says why a sample
does not fit.  A property test holds both to the same result.  Pure.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from broker import clock
from broker.batch import ColumnArray, Long, Wide
from broker.codec import Document
from broker.errors import Invalid
from broker.streams import MOST_VALUES, Dtype, StreamSpec

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


class DocumentPiece(NamedTuple):
    """The part of a frame that comes from one document.

    at: index of the document in its group.  size: its number of time stamps.
    """

    at: int
    size: int


@dataclass(slots=True)
class DecodedGroup:
    """The frames of a group, each with the documents it was decoded from, in their order.

    apart: indexes of the documents that must be decoded one by one.
    """

    frames: list[tuple[Wide | Long, list[DocumentPiece]]] = field(default_factory=list)
    apart: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _PlainFrame:
    """A frame of numbers only, in lists of matching lengths."""

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


def decode(groups: Sequence[Group]) -> list[DecodedGroup]:
    """Decode the documents of each group; the plain ones of all groups at once."""
    results = [DecodedGroup() for _ in groups]
    long: list[_PlainFrame] = []
    wide: list[_PlainFrame] = []
    for number, group in enumerate(groups):
        floats = set(group.spec.dtypes) == _FLOATS
        for at, document in enumerate(group.documents):
            item = _plain(number, at, document, group.spec) if floats else None
            if item is None:
                results[number].apart.append(at)
            else:
                (long if "signal" in item.raw else wide).append(item)
    _add_long(results, groups, long)
    wide.sort(key=lambda item: item.shape)  # stable: groups and documents stay in order
    for _, alike in groupby(wide, key=lambda item: item.shape):
        _add_wide(results, groups, list(alike))
    for result in results:
        result.apart.sort()
    return results


def select(frame: Wide | Long, rows: slice | npt.NDArray[np.bool_]) -> Wide | Long:
    """The part of a frame with some of its time stamps."""
    if isinstance(frame, Wide):
        columns = {name: column[rows] for name, column in frame.values.items()}
        quality = {name: codes[rows] for name, codes in frame.quality.items()}
        return Wide(frame.time_ns[rows], columns, quality)
    return Long(
        frame.time_ns[rows],
        frame.signal[rows],
        frame.values[rows],
        frame.quality[rows],
        frame.names,
        frame.dtypes,
    )


# --- what is plain --------------------------------------------------------------------------------


def _plain(group: int, at: int, document: Document, spec: StreamSpec) -> _PlainFrame | None:
    """The only frame of a document if it can be decoded in bulk, else None."""
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
    return _PlainFrame(group, at, start_ns, len(spec.names), raw)


def _is_long(raw: Mapping[str, Any]) -> bool:
    return (
        raw.keys() == _LONG
        and _ints(raw["signal"])
        and type(raw["value"]) is list
        and len(raw["signal"]) == len(raw["value"]) == len(raw["dt"]) <= MOST_VALUES
        and set(map(type, raw["value"])) == {float}
    )


def _is_wide(raw: Mapping[str, Any], spec: StreamSpec) -> bool:
    """Whether a wide frame is plain: all signals of the spec, in its order, floats only."""
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


def _ints(raw: object) -> bool:
    """Whether `raw` is a list of integers, at least one."""
    return type(raw) is list and set(map(type, raw)) == {int}


# --- together -------------------------------------------------------------------------------------


def _add_long(
    results: Sequence[DecodedGroup], groups: Sequence[Group], plain: Sequence[_PlainFrame]
) -> None:
    """Decode the long frames of all groups as one array, then cut it by group."""
    if not plain:
        return
    sizes = np.array([item.size for item in plain])
    offsets = _integers([item.raw["dt"] for item in plain])
    signal = _integers([item.raw["signal"] for item in plain])
    values = _floats([item.raw["value"] for item in plain])
    fits: _Flags = np.isfinite(values) & _near(offsets)
    fits &= (signal >= 0) & (signal < np.repeat([item.signals for item in plain], sizes))
    if not fits.all():
        by_document = np.logical_and.reduceat(fits, np.cumsum(sizes) - sizes)
        _add_long(results, groups, _fitting(results, plain, by_document))
        return
    index = signal.astype(np.int32)
    times = np.repeat([item.start_ns for item in plain], sizes) + offsets
    good = np.zeros(len(times), np.uint8)
    end = 0
    for number, members in _by_group(plain):
        start, end = end, end + sum(item.size for item in members)
        part, spec = slice(start, end), groups[number].spec
        frame = Long(times[part], index[part], values[part], good[part], spec.names, spec.dtypes)
        results[number].frames.append(
            (
                frame,
                [DocumentPiece(item.at, item.size) for item in members],
            )
        )


def _add_wide(
    results: Sequence[DecodedGroup], groups: Sequence[Group], plain: Sequence[_PlainFrame]
) -> None:
    """Decode the wide frames of one shape as one array, then cut it by group."""
    if not plain:
        return
    signals, size = plain[0].shape
    offsets = _integers([item.raw["dt"] for item in plain])
    lists = list(chain.from_iterable(item.raw["values"].values() for item in plain))
    cells = _floats(lists).reshape(len(plain), signals, size)
    near = np.logical_and.reduce(_near(offsets).reshape(-1, size), axis=1)
    fits: _Flags = np.logical_and.reduce(np.isfinite(cells), axis=(1, 2)) & near
    if not fits.all():
        _add_wide(results, groups, _fitting(results, plain, fits))
        return
    times = np.repeat([item.start_ns for item in plain], size) + offsets
    rows = np.ascontiguousarray(cells.transpose(0, 2, 1)).reshape(-1, signals)
    end = 0
    for number, members in _by_group(plain):
        start, end = end, end + len(members) * size
        frame = Wide(times[start:end], ColumnArray(groups[number].spec.names, rows[start:end].T))
        results[number].frames.append((frame, [DocumentPiece(item.at, size) for item in members]))


def _fitting(
    results: Sequence[DecodedGroup], plain: Sequence[_PlainFrame], fits: _Flags
) -> list[_PlainFrame]:
    """The frames that fit; those with a number out of range are set apart."""
    for item, does in zip(plain, fits.tolist(), strict=True):
        if not does:
            results[item.group].apart.append(item.at)
    return [item for item, does in zip(plain, fits.tolist(), strict=True) if does]


def _by_group(plain: Sequence[_PlainFrame]) -> Iterator[tuple[int, list[_PlainFrame]]]:
    for number, members in groupby(plain, key=lambda item: item.group):
        yield number, list(members)


def _near(offsets: npt.NDArray[np.int64]) -> _Flags:
    """Mask of the offsets that can be added to a start in int64."""
    return (offsets > -MOST_NS) & (offsets < MOST_NS)


def _integers(lists: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
    """All integers in one array; those beyond int64 become ±MOST_NS, which is out of range."""
    count = sum(map(len, lists))
    try:
        return np.fromiter(chain.from_iterable(lists), np.int64, count)
    except OverflowError:
        clamped = (min(max(number, -MOST_NS), MOST_NS) for number in chain.from_iterable(lists))
        return np.fromiter(clamped, np.int64, count)


def _floats(lists: Sequence[Sequence[float]]) -> npt.NDArray[np.float64]:
    return np.fromiter(chain.from_iterable(lists), np.float64, sum(map(len, lists)))
