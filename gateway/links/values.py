"""Conversion of a source's values to the dtype of their signal, for every protocol.  Pure."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from broker.streams import ArrayOf, Dtype, ValueType

MOST_TEXT = 16_384
"""Characters of one value; escaped in JSON they still fit a batch."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INT64 = range(-(2**63), 2**63)


class Unfit(Exception):
    """A value that cannot be converted to the signal's dtype; the text is the reason."""


@dataclass(frozen=True, slots=True)
class ElementOf:
    """How a signal is read that is one element of the source's array.  at: its index, from 0."""

    dtype: Dtype
    at: int


Reading = ValueType | ElementOf
"""What becomes of a source's value: all of it, or one element."""


class Instant(int):
    """Nanoseconds since 1970 that a source sent as a date: no quantity, so no float64."""

    __slots__ = ()


def instant_of(moment: datetime) -> int:
    """Convert a datetime to nanoseconds since 1970; without a zone it is UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // _MICROSECOND * 1000


def read(value: Any, reading: Reading) -> Any:
    """Convert a value to what a signal reads of it, a tuple for an array; raises Unfit."""
    if isinstance(reading, Dtype):
        return value_of(value, reading)
    if not isinstance(value, list | tuple):
        raise Unfit(f"{_named(value)} is no array")
    if isinstance(reading, ElementOf):
        if reading.at >= len(value):
            raise Unfit(f"its array of {len(value)} has no element {reading.at}")
        return value_of(value[reading.at], reading.dtype)
    if len(value) != reading.size:
        raise Unfit(f"its array has {len(value)} elements, the mapping says {reading.size}")
    return _elements_of(value, reading)


def _elements_of(values: Any, array: ArrayOf) -> tuple[Any, ...]:
    kinds = set(map(type, values))
    if array.dtype is Dtype.FLOAT64 and kinds <= {float, int} and all(map(math.isfinite, values)):
        return tuple(map(float, values))
    elements = []
    for at, value in enumerate(values):
        try:
            elements.append(value_of(value, array.dtype))
        except Unfit as exc:
            raise Unfit(f"element {at}: {exc}") from exc
    return tuple(elements)


def value_of(value: Any, dtype: Dtype) -> Any:
    """Convert a value to a signal's dtype; raises Unfit with the reason."""
    plain = _plain(value)
    if isinstance(plain, Instant):
        return _instant_as(plain, dtype)
    kind = type(plain)
    if dtype is Dtype.FLOAT64 and kind in {float, int}:
        if not math.isfinite(plain):
            raise Unfit("it is no finite number")
        return float(plain)
    if dtype is Dtype.INT64 and kind is int:
        return _int64(plain)
    if dtype is Dtype.BOOL and kind is bool:
        return plain
    if dtype is Dtype.STRING and kind is str:
        if len(plain) > MOST_TEXT:
            raise Unfit(f"its {len(plain)} characters are more than {MOST_TEXT}")
        if not plain.isascii() and any("\ud800" <= sign <= "\udfff" for sign in plain):
            raise Unfit("it is no UTF-8")
        return plain
    raise Unfit(f"{_named(value)} is no {dtype}")


def _named(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _instant_as(instant: Instant, dtype: Dtype) -> int:
    """The instant as int64; raises Unfit for another dtype."""
    if dtype is not Dtype.INT64:
        raise Unfit(f"a date is no {dtype}")
    return _int64(int(instant))  # of a subclass of int a range would look at each number


def _int64(number: int) -> int:
    if number not in _INT64:
        raise Unfit("it is beyond int64")
    return number


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return Instant(instant_of(value))
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, bool | float | str | Instant):
        return value
    return int(value) if isinstance(value, int) else value
