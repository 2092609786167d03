"""InfluxDB's line protocol, made in bulk from columns.

Signals with the same time stamps become one line with many fields.  A field is the signal's name; its quality stands
in `<name>:q` where it is not good, alone where a bad sample has no value.
Source: InfluxDB 2.7 reference, line protocol.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from broker.batch import BAD, GOOD, Series
from broker.streams import Dtype
from testbed_api.stores.port import Block

QUALITY = ":q"


def lines(block: Block) -> Iterator[str]:
    """The lines of a block, without line ends; nanosecond time stamps."""
    head = _escaped(str(block.spec.address)) + ",space=" + _escaped(block.space)
    dtypes = {signal.name: signal.dtype for signal in block.spec.signals}
    shared: dict[bytes, list[tuple[str, Series]]] = defaultdict(list)
    for name, series in block.series:
        if len(series.time_ns):
            shared[series.time_ns.tobytes()].append((name, series))
    for together in shared.values():
        fields = [_fields(_escaped(name), dtypes[name], series) for name, series in together]
        times = map(str, together[0][1].time_ns.tolist())
        for time, *cells in zip(times, *fields, strict=True):
            yield f"{head} {','.join(cells)} {time}"


def _fields(key: str, dtype: Dtype, series: Series) -> Sequence[str]:
    """`key=value` for each sample, with its quality where that is not good."""
    values = _texts(dtype, series)
    if not np.any(series.quality):
        return [f"{key}={value}" for value in values]
    out = []
    for value, code in zip(values, series.quality.tolist(), strict=True):
        if code == GOOD:
            out.append(f"{key}={value}")
        elif code == BAD:
            out.append(f"{key}{QUALITY}={code}i")
        else:
            out.append(f"{key}={value},{key}{QUALITY}={code}i")
    return out


def _texts(dtype: Dtype, series: Series) -> Sequence[str]:
    values = series.values.tolist()
    if dtype is Dtype.FLOAT64:
        return [repr(value) for value in values]
    if dtype is Dtype.INT64:
        return [f"{value}i" for value in values]
    if dtype is Dtype.BOOL:
        return ["t" if value else "f" for value in values]
    return ['"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values]


def _escaped(name: str) -> str:
    """A measurement, tag value or field key; ids and signal names hold nothing else that needs it."""
    return name.replace(" ", "\\ ")
