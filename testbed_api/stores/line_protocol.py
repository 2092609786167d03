"""InfluxDB's line protocol, made in bulk from columns.

Signals with the same time stamps become one line with many fields.  A good value stands in the
field `<signal>`, an uncertain one in `<signal>:uncertain`, and `<signal>:bad` marks a sample
without a value.  Each quality has a field of its own, because InfluxDB overwrites fields one by
one: whatever is sent again under one identity, the value read was sent with the quality read.
Source: InfluxDB 2.7 reference, line protocol.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import orjson

from broker.batch import BAD, GOOD, NUMPY, Column, ColumnArray, Long, Quality, Wide
from broker.streams import Dtype
from testbed_api.stores.port import Block

MOST_LINES = 50_000
MOST_BYTES = 5_000_000
AT_ONCE = 1_000
"""Lines made together."""

_SUFFIXES = ("", ":uncertain", ":bad")
"""By quality; no signal's name holds a colon."""
_ENDS = {Dtype.INT64: b"i"}
"""What stands behind a value of that type."""


def field(name: str, quality: int) -> str:
    """The field with a signal's samples of one quality; InfluxDB refuses one called `time`."""
    return ("time:" if name == "time" else name) + _SUFFIXES[quality]


def bodies(blocks: Iterable[Block]) -> Iterator[bytes]:
    """What to send, in parts of `MOST_LINES` and `MOST_BYTES` (or one longer line) at most."""
    part: list[bytes] = []
    count = size = 0
    for lines_in, text in _texts(blocks):
        if part and (count + lines_in > MOST_LINES or size + len(text) >= MOST_BYTES):
            yield b"\n".join(part)
            part, count, size = [], 0, 0
        part.append(text)
        count += lines_in
        size += len(text) + 1
    if part:
        yield b"\n".join(part)


def _texts(blocks: Iterable[Block]) -> Iterator[tuple[int, bytes]]:
    """(number of lines, text): of good floats many lines at once, of others one by one."""
    gathered: list[tuple[bytes, Long]] = []
    for block in blocks:
        head = _head(block)
        for frame in block.frames:
            if isinstance(frame, Long) and _plain(frame):
                gathered.append((head, frame))
            elif isinstance(frame, Wide) and _plain_table(frame):
                yield from _rows(head, frame)
            else:
                yield from ((1, line) for line in _lines(head, frame, block))
    yield from _samples(gathered)


def _head(block: Block) -> bytes:
    return f"{block.spec.address},space={block.space}".encode()  # ids need no escaping


def _plain(frame: Long) -> bool:
    """Whether it holds good floats and nothing else."""
    return frame.values.dtype == np.float64 and not frame.quality.any()


def _plain_table(frame: Wide) -> bool:
    """Whether it is a table of good floats, which are made from such."""
    table = isinstance(frame.values, ColumnArray) and frame.values.rows.dtype == np.float64
    return table and not any(codes.any() for codes in frame.quality.values())


def _samples(gathered: Sequence[tuple[bytes, Long]]) -> Iterator[tuple[int, bytes]]:
    """Frames of good floats behind one another, a line for each sample."""
    if not gathered:
        return
    starts: list[bytes] = []
    for head, frame in gathered:
        starts += map(_starts(head, frame.names).__getitem__, frame.signal.tolist())
    values = _tokens(np.concatenate([frame.values for _, frame in gathered]), Dtype.FLOAT64)
    times = _tokens(np.concatenate([frame.time_ns for _, frame in gathered]), Dtype.INT64)
    for at in range(0, len(starts), AT_ONCE):
        part = slice(at, at + AT_ONCE)
        size = len(starts[part])
        cells = [b" "] * (4 * size)
        cells[::4], cells[1::4], cells[3::4] = starts[part], values[part], times[part]
        yield size, b"".join(cells)[1:]


@lru_cache(maxsize=5_000)
def _starts(head: bytes, names: tuple[str, ...]) -> list[bytes]:
    """For each signal the end of the line before, and all of its own before a value."""
    return [b"\n" + head + b" " + _key(name, GOOD) + b"=" for name in names]


def _rows(head: bytes, frame: Wide) -> Iterator[tuple[int, bytes]]:
    """A table of good floats, a line for each time stamp."""
    table = frame.values
    assert isinstance(table, ColumnArray)  # noqa: S101 - for the types
    width = len(table.names)
    form = _form(head, table.names, (Dtype.FLOAT64,) * width)
    texts = _tokens(table.rows.T.ravel(), Dtype.FLOAT64)
    times = _tokens(frame.time_ns, Dtype.INT64)
    for at, time in enumerate(times):
        yield 1, form % (*texts[at * width : (at + 1) * width], time)


def lines(block: Block) -> Iterator[bytes]:
    """The lines of a block, without line ends; nanosecond time stamps."""
    for frame in block.frames:
        yield from _lines(_head(block), frame, block)


def _lines(head: bytes, frame: Wide | Long, block: Block) -> Iterator[bytes]:
    if not len(frame):
        return iter(())
    return _wide(head, frame, block) if isinstance(frame, Wide) else _long(head, frame)


def _wide(head: bytes, frame: Wide, block: Block) -> Iterator[bytes]:
    """A line for each time stamp."""
    spec, names = block.spec, tuple(frame.values)
    same = names == spec.names
    dtypes = spec.dtypes if same else tuple(spec.signal(name).dtype for name in names)
    times = _tokens(frame.time_ns, Dtype.INT64)
    if not any(codes.any() for codes in frame.quality.values()):
        form = _form(head, names, dtypes)
        return map(form.__mod__, zip(*_table(frame, dtypes), times, strict=True))
    columns = [
        _cells(name, dtype, series.values, series.quality)
        for (name, series), dtype in zip(frame.series(), dtypes, strict=True)
    ]
    return (
        b"%b %b %b" % (head, b",".join(cells), time)
        for *cells, time in zip(*columns, times, strict=True)
    )


def _table(frame: Wide, dtypes: Sequence[Dtype]) -> Sequence[Sequence[bytes]]:
    """The values' texts, signal by signal; all at once where all are floats."""
    values = frame.values
    if set(dtypes) == {Dtype.FLOAT64}:
        if isinstance(values, ColumnArray):
            every = values.rows.ravel()
        else:
            every = np.concatenate(list(values.values()))
        texts = _tokens(every, Dtype.FLOAT64)
        size = len(frame.time_ns)
        return [texts[at : at + size] for at in range(0, len(texts), size)]
    return [_tokens(one, dtype) for one, dtype in zip(values.values(), dtypes, strict=True)]


@lru_cache(maxsize=1_000)
def _form(head: bytes, names: tuple[str, ...], dtypes: tuple[Dtype, ...]) -> bytes:
    """A line with good values of these signals, to be filled in."""
    cells = (
        _key(name, GOOD) + b"=%b" + _ENDS.get(dtype, b"")
        for name, dtype in zip(names, dtypes, strict=True)
    )
    return head + b" " + b",".join(cells) + b" %b"


def _long(head: bytes, frame: Long) -> Iterator[bytes]:
    """A line for each sample."""
    times = _tokens(frame.time_ns, Dtype.INT64)
    if len(set(frame.dtypes)) == 1 and not frame.quality.any():
        (dtype,) = set(frame.dtypes)
        form = b"%b%b" + _ENDS.get(dtype, b"") + b" %b"
        keys = [head + b" " + _key(name, GOOD) + b"=" for name in frame.names]
        starts = map(keys.__getitem__, frame.signal.tolist())
        return map(form.__mod__, zip(starts, _tokens(frame.values, dtype), times, strict=True))
    return _odd(head, frame, times)


def _odd(head: bytes, frame: Long, times: Sequence[bytes]) -> Iterator[bytes]:
    """The same where types differ or not all is good: signal by signal."""
    for at in np.unique(frame.signal).tolist():
        mine = np.flatnonzero(frame.signal == at)
        dtype = frame.dtypes[at]
        cells = _cells(frame.names[at], dtype, frame.values[mine], frame.quality[mine])
        for cell, place in zip(cells, mine.tolist(), strict=True):
            yield b"%b %b %b" % (head, cell, times[place])


def _cells(name: str, dtype: Dtype, values: Column, quality: Quality) -> list[bytes]:
    """`key=value` for each sample."""
    keys = [_key(name, code) + b"=" for code in range(len(_SUFFIXES))]
    texts = _tokens(values, dtype)
    end = _ENDS.get(dtype, b"")
    return [
        keys[code] + (b"t" if code == BAD else text + end)
        for text, code in zip(texts, quality.tolist(), strict=True)
    ]


def _key(name: str, quality: int) -> bytes:
    return field(name, quality).replace(" ", "\\ ").encode()


def _tokens(values: npt.NDArray[np.generic], dtype: Dtype) -> Sequence[bytes]:
    """The text of each value, without what its type puts behind it."""
    if dtype is Dtype.STRING:
        return [b'"' + _escaped(value) + b'"' for value in values.tolist()]
    values = values.astype(NUMPY[dtype], copy=False)
    if dtype is Dtype.BOOL:
        return [b"t" if value else b"f" for value in values.tolist()]
    written = orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)
    return written[1:-1].split(b",") if len(values) else ()


def _escaped(text: str) -> bytes:
    return text.replace("\\", "\\\\").replace('"', '\\"').encode()
