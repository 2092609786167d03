"""Stores the arrays of a signal as JSON texts, on top of a store of numbers and texts.

InfluxDB has no arrays, and in both stores a text is read by whatever reads the product: in DuckDB
`s::DOUBLE[]`.  Streams without arrays pass through unchanged.  Decision 0084 has the numbers.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import lru_cache
from typing import cast

import numpy as np
import orjson

from broker import json_values
from broker.aggregation import Aggregation
from broker.batch import BAD, Column, Long, Quality, Wide, column_dtype, largest_array, no_value
from broker.errors import Invalid
from broker.namespace import StreamAddress
from broker.streams import ArrayOf, Dtype, StreamSpec
from testbed_api.stores import frames
from testbed_api.stores.port import Block, Position, SeriesStore, Window

MOST_THINNED = 2_000_000
"""Most elements that a thinned read of a signal holds in memory."""
FRAME_ELEMENTS = 50_000
"""About so many elements are in a frame of arrays."""


class ArrayTexts:
    """A `SeriesStore` with arrays, on one without."""

    def __init__(self, store: SeriesStore) -> None:
        """store: stores numbers and texts."""
        self._store = store

    async def write(self, blocks: Sequence[Block], position: Position | None = None) -> None:
        """Write arrays as texts, and all else as it is."""
        await self._store.write(
            [_with_texts(block) if block.spec.has_arrays else block for block in blocks], position
        )

    def read(self, window: Window) -> AsyncIterator[Long]:
        """Read texts, fewer at a time the longer they are, as arrays."""
        if not window.spec.has_arrays:
            return self._store.read(window)
        return _with_arrays(self._store.read(_text_window(window)), window)

    def thin(self, window: Window, points: int) -> AsyncIterator[Long]:
        """Thin arrays by time, as what has no order: whole ones, the first and last of each part.

        Raises Invalid for so many points that the arrays would fill the memory.
        """
        if not window.spec.has_arrays:
            return self._store.thin(window, points)
        size = largest_array(window.spec, window.signals)
        most = max(MOST_THINNED // size, 2)
        if points > most:
            raise Invalid(
                f"{points} points of arrays of {size} are {points * size:,} values",
                hint=f"ask for at most {most} points, or for signals that are no arrays",
            )
        return _with_arrays(self._store.thin(_text_window(window), points), window)

    def aggregate(self, window: Window, aggregation: Aggregation) -> AsyncIterator[Long]:
        """Aggregate; of arrays there is only the last one."""
        if not window.spec.has_arrays:
            return self._store.aggregate(window, aggregation)
        aggregation.check(window.spec, window.signals, window.from_ns)
        result = replace(window, spec=aggregation.spec(window.spec))
        return _with_arrays(self._store.aggregate(_text_window(window), aggregation), result)

    async def delete(self, space: str, stream: StreamAddress, from_ns: int, to_ns: int) -> None:
        """Delete samples of whatever type."""
        await self._store.delete(space, stream, from_ns, to_ns)

    async def positions(self, organisations: Collection[str]) -> Mapping[str, Position]:
        """The stored positions."""
        return await self._store.positions(organisations)

    async def extent(self, space: str, stream: StreamAddress) -> tuple[int, int] | None:
        """The times of the first and the last sample."""
        return await self._store.extent(space, stream)

    async def ready(self) -> None:
        """Check that the store answers."""
        await self._store.ready()


@lru_cache(maxsize=1_000)
def _text_spec(spec: StreamSpec) -> StreamSpec:
    """The spec with a string in the place of each array."""
    signals = (
        replace(each, dtype=Dtype.STRING, shape=(), low=None, high=None, resolution=None)
        if each.shape
        else each
        for each in spec.signals
    )
    return replace(spec, signals=tuple(signals))


def _text_window(window: Window) -> Window:
    weight = max(largest_array(window.spec, window.signals) // frames.LIGHT, 1)
    return replace(window, spec=_text_spec(window.spec), weight=weight)


# --- arrays to texts ------------------------------------------------------------------------------


def _with_texts(block: Block) -> Block:
    parts = (
        _wide_texts(frame) if isinstance(frame, Wide) else _long_texts(frame)
        for frame in block.frames
    )
    return Block(block.space, _text_spec(block.spec), tuple(parts))


def _wide_texts(frame: Wide) -> Wide:
    columns = {
        name: _texts(column, frame.quality.get(name)) if column.ndim > 1 else column
        for name, column in frame.values.items()
    }
    return replace(frame, values=columns)


def _texts(column: Column, quality: Quality | None) -> Column:
    """The JSON text of each array, empty for a bad sample."""
    texts = json_values.array_texts(column)
    if quality is not None:
        texts[quality == BAD] = ""
    return texts


def _long_texts(frame: Long) -> Long:
    dtypes = tuple(Dtype.STRING if isinstance(each, ArrayOf) else each for each in frame.dtypes)
    values = np.empty(len(frame), column_dtype(dtypes))
    cells = zip(frame.values.tolist(), (frame.quality == BAD).tolist(), strict=True)
    values[:] = [
        ("" if is_bad else orjson.dumps(cell).decode()) if type(cell) is tuple else cell
        for cell, is_bad in cells
    ]
    return replace(frame, values=values, dtypes=dtypes)


# --- texts to arrays ------------------------------------------------------------------------------


async def _with_arrays(texts: AsyncIterator[Long], window: Window) -> AsyncGenerator[Long]:
    """Frames of a store with arrays in the place of their texts.  window: as it was asked for."""
    size = max(FRAME_ELEMENTS // largest_array(window.spec, window.signals), 1)
    async with aclosing(cast("AsyncGenerator[Long]", texts)):
        async for whole in texts:
            for part in frames.split(whole, min(size, frames.FRAME)):
                yield _arrays(part, window.spec)


def _arrays(frame: Long, spec: StreamSpec) -> Long:
    values = np.empty(len(frame), np.object_)
    values[:] = frame.values.tolist()
    for at in np.unique(frame.signal).tolist():
        array = spec.dtypes[at]
        if not isinstance(array, ArrayOf):
            continue
        rows, nothing = np.flatnonzero(frame.signal == at).tolist(), no_value(array)
        usable = [row for row in rows if values[row]]
        parsed = orjson.loads(f"[{','.join(values[row] for row in usable)}]")
        for row in rows:
            values[row] = nothing
        for row, elements in zip(usable, parsed, strict=True):
            values[row] = tuple(elements)
    return Long(frame.time_ns, frame.signal, values, frame.quality, spec.names, spec.dtypes)
