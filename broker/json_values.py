"""Values of batches in JSON: one value with its quality, and arrays of values.  Pure.

`broker.codec` encodes and decodes the batches.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from broker.batch import (
    BAD,
    GOOD,
    NO_VALUE,
    NUMPY,
    QUALITIES,
    Column,
    Quality,
    Times,
    filled_column,
)
from broker.streams import ArrayOf, Dtype, StreamSpec

MOST_EXACT = 2**53
INT64 = range(-(2**63), 2**63)

_DECIMAL = re.compile(r"-?\d{1,19}", re.ASCII)
_CODE = {name: code for code, name in enumerate(QUALITIES)}


# --- out ------------------------------------------------------------------------------------------


def arrays_out(column: Column, quality: Quality | None) -> Column | list[Any]:
    """Return a column of arrays for orjson.  quality: None where no sample is bad."""
    is_plain = column.dtype != np.int64 or not column.size or is_exact(column)
    if is_plain and quality is None:
        return np.ascontiguousarray(column)
    if is_plain:
        rows = list(np.ascontiguousarray(column))
    else:
        rows = [[value_out(element) for element in row] for row in column.tolist()]
    if quality is None:
        return rows
    return [None if code == BAD else row for row, code in zip(rows, quality.tolist(), strict=True)]


def array_texts(column: Column) -> Column:
    """The JSON text of each array of array[samples, elements]; `null` for an element NaN."""
    texts = np.empty(len(column), np.object_)
    if len(column):
        rows = orjson.dumps(np.ascontiguousarray(column), option=orjson.OPT_SERIALIZE_NUMPY)
        texts[:] = [f"[{row}]" for row in rows[2:-2].decode().split("],[")]
    return texts


def is_exact(column: Column) -> bool:
    """Whether all integers of a column are exact in JavaScript; it has one at least."""
    if column.view(np.uint64).max() <= MOST_EXACT:  # one look where nothing is negative
        return True
    return bool(column.min() >= -MOST_EXACT and column.max() <= MOST_EXACT)


def value_out(value: Any) -> object:
    """Return a value of a column of objects, or of an array, for orjson."""
    kind = type(value)
    if kind is float or kind is str:
        return value
    if kind is tuple:
        return [value_out(element) for element in value]
    return value if -MOST_EXACT <= value <= MOST_EXACT else str(value)


# --- in -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Misfit:
    """A sample, column or frame that does not fit the spec; the rest of the batch is used.

    value: the offending JSON, cut to 200 characters.
    """

    reason: str
    signal: str | None = None
    time_ns: int | None = None
    value: str = ""


class UnfitJson(Exception):
    """A frame or a column as a whole does not fit."""


def elements_in(frames: Sequence[Any], spec: StreamSpec) -> int:
    """Elements that decoding would take memory for; a bad array is one word, and takes as much."""
    sizes = [dtype.size if isinstance(dtype, ArrayOf) else 1 for dtype in spec.dtypes]
    size_of = dict(zip(spec.names, sizes, strict=True))
    count = 0
    for raw in frames:
        if not isinstance(raw, dict):
            continue
        columns, signal = raw.get("values"), raw.get("signal")
        if isinstance(columns, dict):
            lists = ((name, each) for name, each in columns.items() if isinstance(each, list))
            count += sum(len(each) * size_of.get(name, 1) for name, each in lists)
        elif isinstance(signal, list):
            places = (at for at in signal if type(at) is int and 0 <= at < len(sizes))
            count += sum(sizes[at] for at in places)
    return count


def arrays_in(
    column: Sequence[object],
    qualities: object,
    time_ns: Times,
    array: ArrayOf,
    name: str,
    misfits: list[Misfit],
) -> tuple[Column, Quality, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Decode a column of arrays: array[samples, elements], quality, and a mask of usable ones."""
    codes = qualities_in(qualities, len(column))
    keep = np.ones(len(column), np.bool_)
    values = filled_column(array, len(column))
    for at, (value, code) in enumerate(zip(column, codes, strict=True)):
        try:
            values[at] = _elements_of(value, code, array)
        except UnfitJson as exc:
            keep[at] = False
            misfits.append(Misfit(str(exc), name, int(time_ns[at]), excerpt(value)))
    return values, np.array([max(code, 0) for code in codes], np.uint8), keep


def _elements_of(value: object, code: int, array: ArrayOf) -> object:
    """The elements of one array, NO_VALUE for a bad one; raises UnfitJson."""
    if code < 0 or code == BAD or value is None:
        return value_in(value, code, array.dtype)
    if not isinstance(value, list):
        raise UnfitJson(f"a JSON {type(value).__name__} is no array of {array.size}")
    if len(value) != array.size:
        raise UnfitJson(f"an array of {len(value)} elements, the spec says {array.size}")
    if set(map(type, value)) == {float} == PLAIN[array.dtype] and all(map(math.isfinite, value)):
        return value
    elements = []
    for at, element in enumerate(value):
        try:
            elements.append(value_in(element, GOOD, array.dtype))
        except UnfitJson as exc:
            reason = "null is no element" if element is None else str(exc)
            raise UnfitJson(f"element {at}: {reason}") from exc
    return elements


PLAIN: Mapping[Dtype, set[type]] = {
    Dtype.FLOAT64: {float},
    Dtype.INT64: set(),  # each may be beyond 2^53, or beyond int64: checked one by one
    Dtype.BOOL: {bool},
    Dtype.STRING: {str},
}


def plain(column: Sequence[object], dtype: Dtype) -> Column:
    """A column of values that are all of the type in `PLAIN`."""
    values = np.empty(len(column), NUMPY[dtype])
    values[:] = column
    return values


def qualities_in(raw: object, count: int) -> list[int]:
    """Decode a quality code for each sample; -1 for an unknown word."""
    if raw is None:
        return [GOOD] * count
    if not isinstance(raw, list) or len(raw) != count:
        raise UnfitJson("quality and values are not of one length")
    return [_CODE.get(word, -1) if isinstance(word, str) else -1 for word in raw]


def value_in(value: Any, code: int, dtype: Dtype) -> object:
    """Decode one value with its quality; raises UnfitJson."""
    if code < 0:
        raise UnfitJson(f"its quality is none of {', '.join(QUALITIES)}")
    if code == BAD:
        if value is not None:
            raise UnfitJson("a bad sample carries no value: null is right")
        return NO_VALUE[dtype]
    if value is None:
        raise UnfitJson("null without quality bad")
    if dtype is Dtype.INT64:
        return integer_in(value, "it")
    if dtype is Dtype.FLOAT64 and type(value) in {float, int}:
        if not math.isfinite(value):  # 1e999 is JSON
            raise UnfitJson("it is beyond the range of float64")
        return value
    if (dtype is Dtype.BOOL and type(value) is bool) or (
        dtype is Dtype.STRING and type(value) is str
    ):
        return value
    raise UnfitJson(f"a JSON {type(value).__name__} is no {dtype}")


def integer_in(value: object, what: str) -> int:
    """Decode an int64, a number or a decimal string; raises UnfitJson, which names it as `what`."""
    if type(value) is str and _DECIMAL.fullmatch(value):
        value = int(value)
    if type(value) is not int or value not in INT64:
        raise UnfitJson(f"{what} is no int64")
    return value


def excerpt(raw: object) -> str:
    """The begin of a value's JSON, for a dead letter."""
    try:
        return orjson.dumps(raw).decode()[:200]
    except orjson.JSONEncodeError:  # deeper than orjson encodes
        return f"a deeply nested {type(raw).__name__}"
