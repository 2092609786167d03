"""One hash over all samples of a run, which is equal exactly if the samples are.  Pure.

SHA-256 over the sorted (stream, signal, time, value, quality).  It depends neither on the batches
that samples came in nor on their order.  A float is taken at its signal's resolution: as the whole
number of resolutions that is nearest to it.  Without a resolution it is taken as it is, and so are
integers, bools and texts.  -0 is 0; each NaN is the same; a bad sample has no value.
"""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from broker.batch import BAD, Column, Series
from broker.streams import Signal

_VERSION = b"connected-testbed samples 1\n"
"""A change of what is hashed, and how, gets a new number."""


def of_samples(
    streams: Mapping[str, Mapping[str, Series]],
    signals: Mapping[str, Mapping[str, Signal]],
) -> str:
    """Return the hash of all samples in hexadecimal digits.

    streams: stream -> signal -> its samples, in any order; a signal without samples counts for
    nothing.  signals: stream -> signal -> its part of the spec.
    """
    digest = hashlib.sha256(_VERSION)
    for stream in sorted(streams):
        for signal in sorted(streams[stream]):
            spec = signals.get(stream, {}).get(signal)
            series = streams[stream][signal]
            if len(series.time_ns):
                digest.update(_text(stream) + _text(signal))
                for piece in _columns(series, None if spec is None else spec.resolution):
                    digest.update(piece)
    return digest.hexdigest()


def _columns(series: Series, resolution: float | None) -> Iterable[bytes]:
    """The bytes of a signal's sorted samples: their number, times, qualities and values."""
    values = _comparable(series.values, series.quality, resolution)
    order = _order(series, values)
    yield len(order).to_bytes(8, "little")
    yield values.dtype.str.encode()
    yield from map(_text, map(str, values.shape[1:]))
    yield series.time_ns[order].astype("<i8").tobytes()
    yield series.quality[order].astype("u1").tobytes()
    if values.dtype.kind == "O":
        yield from map(_text, map(str, values[order].tolist()))
    else:
        yield np.ascontiguousarray(values[order]).tobytes()


def _comparable(
    values: Column, quality: npt.NDArray[np.uint8], resolution: float | None
) -> npt.NDArray[np.generic]:
    """The values in a form in which equal ones have equal bytes, little-endian."""
    has_none = quality == BAD
    if values.dtype.kind == "O":
        texts = values.copy()
        texts[has_none] = ""
        return texts
    if values.dtype.kind == "f":
        numbers = values.astype("<f8")
        if resolution is not None:
            with np.errstate(over="ignore"):
                numbers /= resolution
            np.rint(numbers, out=numbers)
        numbers += 0.0  # -0 becomes 0
        numbers[np.isnan(numbers)] = np.nan  # with one sign and payload
    else:
        numbers = values.astype("u1" if values.dtype.kind == "b" else "<i8")
    numbers[has_none] = 0
    return numbers


def _order(series: Series, values: npt.NDArray[np.generic]) -> npt.NDArray[np.intp]:
    """Indices that sort samples by time, quality and value."""
    keys = (series.quality, series.time_ns)
    order = np.lexsort(keys)
    times, qualities = series.time_ns[order], series.quality[order]
    is_tied = (times[1:] == times[:-1]) & (qualities[1:] == qualities[:-1])
    return np.lexsort((*_keys(values), *keys)) if is_tied.any() else order


def _keys(values: npt.NDArray[np.generic]) -> list[npt.NDArray[np.generic]]:
    """Sort keys of values, the last one first as numpy.lexsort has it."""
    if values.dtype.kind == "O":
        places = {text: place for place, text in enumerate(sorted(set(values.tolist())))}
        return [np.array([places[text] for text in values.tolist()], np.int64)]
    rows = values.reshape(len(values), -1)
    return [rows[:, at] for at in reversed(range(rows.shape[1]))]


def _text(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(8, "little") + data
