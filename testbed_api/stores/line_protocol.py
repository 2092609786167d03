"""InfluxDB's line protocol, made in bulk from columns.

Signals with the same time stamps become one line with many fields.  A good value stands in the
field `<signal>`, an uncertain one in `<signal>:uncertain`, and `<signal>:bad` marks a sample
without a value.  Each quality has a field of its own, because InfluxDB overwrites fields one by
one: whatever is sent again under one identity, the value read was sent with the quality read.
Source: InfluxDB 2.7 reference, line protocol.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from broker.batch import BAD, GOOD, Series
from broker.streams import Dtype
from testbed_api.stores.port import Block

MOST_LINES = 50_000
MOST_BYTES = 5_000_000

_SUFFIXES = ("", ":uncertain", ":bad")
"""By quality; no signal's name holds a colon."""


def field(name: str, quality: int) -> str:
    """The field with a signal's samples of one quality; InfluxDB refuses one called `time`."""
    return ("time:" if name == "time" else name) + _SUFFIXES[quality]


def bodies(blocks: Iterable[Block]) -> Iterator[bytes]:
    """What to send, in parts of `MOST_LINES` and `MOST_BYTES` (or one longer line) at most."""
    part: list[bytes] = []
    size = 0
    for block in blocks:
        for line in lines(block):
            encoded = line.encode()
            if part and (len(part) == MOST_LINES or size + len(encoded) >= MOST_BYTES):
                yield b"\n".join(part)
                part, size = [], 0
            part.append(encoded)
            size += len(encoded) + 1
    if part:
        yield b"\n".join(part)


def lines(block: Block) -> Iterator[str]:
    """The lines of a block, without line ends; nanosecond time stamps."""
    head = f"{block.spec.address},space={block.space}"  # ids hold nothing that needs escaping
    dtypes = {signal.name: signal.dtype for signal in block.spec.signals}
    shared: dict[bytes, list[tuple[str, Series]]] = defaultdict(list)
    for name, series in block.series:
        if len(series.time_ns):
            shared[series.time_ns.tobytes()].append((name, series))
    for together in shared.values():
        columns = [_fields(name, dtypes[name], series) for name, series in together]
        times = map(str, together[0][1].time_ns.tolist())
        for time, *cells in zip(times, *columns, strict=True):
            yield f"{head} {','.join(cells)} {time}"


def _fields(name: str, dtype: Dtype, series: Series) -> Sequence[str]:
    """`key=value` for each sample."""
    keys = [field(name, quality).replace(" ", "\\ ") for quality in range(len(_SUFFIXES))]
    values = _texts(dtype, series)
    if not series.quality.any():
        return [f"{keys[GOOD]}={value}" for value in values]
    return [
        f"{keys[code]}={'t' if code == BAD else value}"
        for value, code in zip(values, series.quality.tolist(), strict=True)
    ]


def _texts(dtype: Dtype, series: Series) -> Sequence[str]:
    values = series.values.tolist()
    if dtype is Dtype.FLOAT64:
        return [repr(value) for value in values]
    if dtype is Dtype.INT64:
        return [f"{value}i" for value in values]
    if dtype is Dtype.BOOL:
        return ["t" if value else "f" for value in values]
    return ['"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values]
