"""Reads all samples of a stream across the versions of its spec, and computes their fingerprint.

The fingerprint is the same on every store and does not depend on the order between signals:

- a sample is its time (int64), its quality (uint8) and its value, little-endian: float64, int64 or
  a bool's byte; a string is its length (uint32) and its UTF-8; an array is its elements; a bad
  sample has the value 0 or "", in each element of an array;
- a signal is the SHA-256 of its samples in the order of time;
- the fingerprint is the SHA-256 of a line for each signal, by name: name, dtype (`float64[256]` of
  an array), count and the signal's SHA-256 in hexadecimal, separated by tabs, ended by a line feed.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from operator import attrgetter
from typing import Any, cast

import numpy as np

from broker.batch import BAD, Long, Series
from broker.streams import ArrayOf, Dtype, StreamSpec, ValueType
from testbed_api.stores.port import SeriesStore, Window

EARLIEST_NS, LATEST_NS = -(2**63) + 1, 2**63 - 1
"""Span of all samples of a stream."""

_NUMBERS = {Dtype.FLOAT64: "<f8", Dtype.INT64: "<i8", Dtype.BOOL: "u1"}


async def samples(
    store: SeriesStore, specs: Sequence[StreamSpec], space: str, *, from_ns: int, to_ns: int
) -> AsyncGenerator[Long]:
    """Read all samples of a stream in [from_ns, to_ns), also of signals that only old specs have.

    specs: all versions; each signal is read with the newest version that contains it.  The samples
    of a signal ascend in time.
    """
    for spec, names in signals_by_version(specs):
        frames = store.read(Window(space, spec, names, from_ns, to_ns))
        async with aclosing(cast("AsyncGenerator[Long]", frames)):
            async for frame in frames:
                yield frame


def signals_by_version(specs: Sequence[StreamSpec]) -> Iterator[tuple[StreamSpec, tuple[str, ...]]]:
    """Pairs (version, signals that no newer version contains), the newest version first."""
    seen: set[str] = set()
    for spec in sorted(specs, key=attrgetter("version"), reverse=True):
        if names := tuple(name for name in spec.names if name not in seen):
            yield spec, names
        seen.update(names)


class Fingerprint:
    """Counts samples and hashes them incrementally."""

    def __init__(self) -> None:
        self.count = 0
        self.first_ns: int | None = None
        self.last_ns: int | None = None
        self._counts: dict[tuple[str, ValueType], int] = {}
        self._sums: dict[tuple[str, ValueType], Any] = {}

    def add(self, frame: Long) -> None:
        """Add samples; those of one signal must ascend in time over all calls."""
        if not len(frame):
            return
        dtypes = dict(zip(frame.names, frame.dtypes, strict=True))
        for name, series in frame.series():
            key = (name, dtypes[name])
            total = self._sums.setdefault(key, hashlib.sha256())
            total.update(_sample_bytes(dtypes[name], series))
            self._counts[key] = self._counts.get(key, 0) + len(series.time_ns)
        self.count += len(frame)
        first_ns, last_ns = int(frame.time_ns.min()), int(frame.time_ns.max())
        self.first_ns = first_ns if self.first_ns is None else min(first_ns, self.first_ns)
        self.last_ns = last_ns if self.last_ns is None else max(last_ns, self.last_ns)

    @property
    def signals(self) -> dict[str, int]:
        """Number of samples of each signal."""
        return {name: count for (name, _), count in self._by_name()}

    def _by_name(self) -> list[tuple[tuple[str, ValueType], int]]:
        return sorted(self._counts.items(), key=lambda item: (item[0][0], str(item[0][1])))

    @property
    def sha256(self) -> str:
        """The fingerprint of all samples added so far, in hexadecimal."""
        lines = (
            f"{name}\t{dtype}\t{count}\t{self._sums[name, dtype].hexdigest()}\n"
            for (name, dtype), count in self._by_name()
        )
        return hashlib.sha256("".join(lines).encode()).hexdigest()


async def fingerprint(frames: AsyncIterator[Long]) -> Fingerprint:
    """Compute the fingerprint of samples; they are hashed in a thread."""
    result = Fingerprint()
    async for frame in frames:
        await asyncio.to_thread(result.add, frame)
    return result


def _sample_bytes(dtype: ValueType, series: Series) -> bytes:
    bad = series.quality == BAD
    if dtype is Dtype.STRING:
        return b"".join(
            _string_bytes(time_ns, code, "" if code == BAD else value)
            for time_ns, code, value in zip(
                series.time_ns.tolist(),
                series.quality.tolist(),
                series.values.tolist(),
                strict=True,
            )
        )
    value = (_NUMBERS[dtype], ()) if isinstance(dtype, Dtype) else _array_field(dtype)
    rows = np.empty(len(series.time_ns), [("time", "<i8"), ("quality", "u1"), ("value", *value)])
    rows["time"], rows["quality"], rows["value"] = series.time_ns, series.quality, series.values
    rows["value"][bad] = 0
    return rows.tobytes()


def _array_field(array: ArrayOf) -> tuple[str, tuple[int]]:
    return _NUMBERS[array.dtype], (array.size,)


def _string_bytes(time_ns: int, code: int, value: str) -> bytes:
    text = value.encode()
    return (
        time_ns.to_bytes(8, "little", signed=True)
        + bytes([code])
        + len(text).to_bytes(4, "little")
        + text
    )
