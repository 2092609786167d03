"""Encodes blocks of samples as InfluxDB line protocol, in bulk from columns.

Signals with the same time stamps become one line with many fields.  A good value is written to the
field `<signal>`, an uncertain value to `<signal>:uncertain`, and `<signal>:bad` marks a sample
without a value.  Each quality has its own field, because InfluxDB overwrites each field separately:
if a sample is sent again with another quality, a value read was always sent with the quality read.
Source: InfluxDB 2.7 reference, line protocol.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import cast

import numpy as np
import numpy.typing as npt
import orjson

from broker.batch import BAD, GOOD, NUMPY, Column, ColumnArray, Long, Quality, Wide
from broker.streams import Dtype, ValueType
from testbed_api.stores.port import Block

MOST_LINES = 50_000
MOST_BYTES = 5_000_000
"""Limits of one request."""
LINES_AT_ONCE = 1_000
"""Lines formatted together."""

_QUALITY_SUFFIXES = ("", ":uncertain", ":bad")
"""Suffix of a field by quality; signal names cannot contain a colon."""
_TYPE_SUFFIXES = {Dtype.INT64: b"i"}
"""Suffix of a value by dtype."""


def field(name: str, quality: int) -> str:
    """Name of the field for samples of one signal and quality; InfluxDB refuses a field `time`."""
    return ("time:" if name == "time" else name) + _QUALITY_SUFFIXES[quality]


def bodies(blocks: Iterable[Block]) -> Iterator[bytes]:
    """Request bodies of at most `MOST_LINES` and `MOST_BYTES`, except for a single longer line."""
    part: list[bytes] = []
    count = size = 0
    for lines_in, text in _line_groups(blocks):
        if part and (count + lines_in > MOST_LINES or size + len(text) >= MOST_BYTES):
            yield b"\n".join(part)
            part, count, size = [], 0, 0
        part.append(text)
        count += lines_in
        size += len(text) + 1
    if part:
        yield b"\n".join(part)


def _line_groups(blocks: Iterable[Block]) -> Iterator[tuple[int, bytes]]:
    """Pairs (number of lines, text): good floats many lines at a time, others line by line."""
    collected: list[tuple[bytes, Long]] = []
    for block in blocks:
        head = _head(block)
        for frame in block.frames:
            if isinstance(frame, Long) and _is_good_floats(frame):
                collected.append((head, frame))
            elif isinstance(frame, Wide) and _is_good_table(frame):
                yield from _table_lines(head, frame)
            else:
                yield from ((1, line) for line in _lines(head, frame, block))
    yield from _sample_lines(collected)


def _head(block: Block) -> bytes:
    return f"{block.spec.address},space={block.space}".encode()  # ids need no escaping


def _is_good_floats(frame: Long) -> bool:
    """Whether all samples of a long frame are good floats."""
    return frame.values.dtype == np.float64 and not frame.quality.any()


def _is_good_table(frame: Wide) -> bool:
    """Whether a wide frame is one array of good floats."""
    table = isinstance(frame.values, ColumnArray) and frame.values.rows.dtype == np.float64
    return table and not any(codes.any() for codes in frame.quality.values())


def _sample_lines(collected: Sequence[tuple[bytes, Long]]) -> Iterator[tuple[int, bytes]]:
    """Lines of long frames of good floats, one per sample."""
    if not collected:
        return
    starts: list[bytes] = []
    for head, frame in collected:
        starts += map(_line_starts(head, frame.names).__getitem__, frame.signal.tolist())
    values = _value_texts(np.concatenate([frame.values for _, frame in collected]), Dtype.FLOAT64)
    times = _value_texts(np.concatenate([frame.time_ns for _, frame in collected]), Dtype.INT64)
    for at in range(0, len(starts), LINES_AT_ONCE):
        part = slice(at, at + LINES_AT_ONCE)
        size = len(starts[part])
        cells = [b" "] * (4 * size)
        cells[::4], cells[1::4], cells[3::4] = starts[part], values[part], times[part]
        yield size, b"".join(cells)[1:]


@lru_cache(maxsize=5_000)
def _line_starts(head: bytes, names: tuple[str, ...]) -> list[bytes]:
    """For each signal the line feed and the text before the value."""
    return [b"\n" + head + b" " + _key(name, GOOD) + b"=" for name in names]


def _table_lines(head: bytes, frame: Wide) -> Iterator[tuple[int, bytes]]:
    """Lines of a table of good floats, one per time stamp."""
    table = frame.values
    assert isinstance(table, ColumnArray)  # noqa: S101 - for the types
    width = len(table.names)
    template = _line_template(head, table.names, (Dtype.FLOAT64,) * width)
    texts = _value_texts(table.rows.T.ravel(), Dtype.FLOAT64)
    times = _value_texts(frame.time_ns, Dtype.INT64)
    for at, time in enumerate(times):
        yield 1, template % (*texts[at * width : (at + 1) * width], time)


def lines(block: Block) -> Iterator[bytes]:
    """The lines of a block, without line feeds; time stamps in ns."""
    for frame in block.frames:
        yield from _lines(_head(block), frame, block)


def _lines(head: bytes, frame: Wide | Long, block: Block) -> Iterator[bytes]:
    if not len(frame):
        return iter(())
    return _wide_lines(head, frame, block) if isinstance(frame, Wide) else _long_lines(head, frame)


def _wide_lines(head: bytes, frame: Wide, block: Block) -> Iterator[bytes]:
    """Lines of a wide frame, one per time stamp."""
    spec, names = block.spec, tuple(frame.values)
    same = names == spec.names
    dtypes = _scalars(spec.dtypes) if same else tuple(spec.signal(name).dtype for name in names)
    times = _value_texts(frame.time_ns, Dtype.INT64)
    if not any(codes.any() for codes in frame.quality.values()):
        template = _line_template(head, names, dtypes)
        return map(template.__mod__, zip(*_table_columns(frame, dtypes), times, strict=True))
    columns = [
        _field_texts(name, dtype, series.values, series.quality)
        for (name, series), dtype in zip(frame.series(), dtypes, strict=True)
    ]
    return (
        b"%b %b %b" % (head, b",".join(cells), time)
        for *cells, time in zip(*columns, times, strict=True)
    )


def _table_columns(frame: Wide, dtypes: Sequence[Dtype]) -> Sequence[Sequence[bytes]]:
    """The values of each signal as text; formatted in one call if all are floats."""
    values = frame.values
    if set(dtypes) == {Dtype.FLOAT64}:
        if isinstance(values, ColumnArray):
            every = values.rows.ravel()
        else:
            every = np.concatenate(list(values.values()))
        texts = _value_texts(every, Dtype.FLOAT64)
        size = len(frame.time_ns)
        return [texts[at : at + size] for at in range(0, len(texts), size)]
    return [
        _value_texts(column, dtype) for column, dtype in zip(values.values(), dtypes, strict=True)
    ]


@lru_cache(maxsize=1_000)
def _line_template(head: bytes, names: tuple[str, ...], dtypes: tuple[Dtype, ...]) -> bytes:
    """The %-template of a line with good values of these signals."""
    cells = (
        _key(name, GOOD) + b"=%b" + _TYPE_SUFFIXES.get(dtype, b"")
        for name, dtype in zip(names, dtypes, strict=True)
    )
    return head + b" " + b",".join(cells) + b" %b"


def _long_lines(head: bytes, frame: Long) -> Iterator[bytes]:
    """Lines of a long frame, one per sample."""
    times = _value_texts(frame.time_ns, Dtype.INT64)
    if len(set(frame.dtypes)) == 1 and not frame.quality.any():
        (dtype,) = set(_scalars(frame.dtypes))
        template = b"%b%b" + _TYPE_SUFFIXES.get(dtype, b"") + b" %b"
        keys = [head + b" " + _key(name, GOOD) + b"=" for name in frame.names]
        starts = map(keys.__getitem__, frame.signal.tolist())
        return map(
            template.__mod__, zip(starts, _value_texts(frame.values, dtype), times, strict=True)
        )
    return _mixed_lines(head, frame, times)


def _mixed_lines(head: bytes, frame: Long, times: Sequence[bytes]) -> Iterator[bytes]:
    """Lines of a long frame with several dtypes or qualities, signal by signal."""
    for at in np.unique(frame.signal).tolist():
        indexes = np.flatnonzero(frame.signal == at)
        dtype = _scalars(frame.dtypes)[at]
        cells = _field_texts(frame.names[at], dtype, frame.values[indexes], frame.quality[indexes])
        for cell, place in zip(cells, indexes.tolist(), strict=True):
            yield b"%b %b %b" % (head, cell, times[place])


def _scalars(dtypes: tuple[ValueType, ...]) -> tuple[Dtype, ...]:
    """The dtypes of signals that are stored, which are no arrays: these come here as texts."""
    return cast("tuple[Dtype, ...]", dtypes)


def _field_texts(name: str, dtype: Dtype, values: Column, quality: Quality) -> list[bytes]:
    """The text `key=value` of each sample."""
    keys = [_key(name, code) + b"=" for code in range(len(_QUALITY_SUFFIXES))]
    texts = _value_texts(values, dtype)
    suffix = _TYPE_SUFFIXES.get(dtype, b"")
    return [
        keys[code] + (b"t" if code == BAD else text + suffix)
        for text, code in zip(texts, quality.tolist(), strict=True)
    ]


def _key(name: str, quality: int) -> bytes:
    return field(name, quality).replace(" ", "\\ ").encode()


def _value_texts(values: npt.NDArray[np.generic], dtype: Dtype) -> Sequence[bytes]:
    """The text of each value, without the suffix of its dtype."""
    if dtype is Dtype.STRING:
        return [b'"' + _escaped(value) + b'"' for value in values.tolist()]
    values = values.astype(NUMPY[dtype], copy=False)
    if dtype is Dtype.BOOL:
        return [b"t" if value else b"f" for value in values.tolist()]
    written = orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)
    return written[1:-1].split(b",") if len(values) else ()


def _escaped(text: str) -> bytes:
    return text.replace("\\", "\\\\").replace('"', '\\"').encode()
