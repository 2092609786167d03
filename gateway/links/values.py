"""Conversion of a source's values to the dtype of their signal, for every protocol.  Pure."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from broker.streams import Dtype

MOST_TEXT = 16_384
"""Characters of one value; escaped in JSON they still fit a batch."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INT64 = range(-(2**63), 2**63)


class Unfit(Exception):
    """A value that cannot be converted to the signal's dtype; the text is the reason."""


def instant_of(moment: datetime) -> int:
    """Convert a datetime to nanoseconds since 1970; without a zone it is UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // _MICROSECOND * 1000


def value_of(value: Any, dtype: Dtype) -> Any:
    """Convert a value to a signal's dtype; raises Unfit with the reason."""
    plain = _plain(value)
    kind = type(plain)
    if dtype is Dtype.FLOAT64 and kind in {float, int}:
        if not math.isfinite(plain):
            raise Unfit("it is no finite number")
        return float(plain)
    if dtype is Dtype.INT64 and kind is int:
        if plain not in _INT64:
            raise Unfit("it is beyond int64")
        return plain
    if dtype is Dtype.BOOL and kind is bool:
        return plain
    if dtype is Dtype.STRING and kind is str:
        if len(plain) > MOST_TEXT:
            raise Unfit(f"its {len(plain)} characters are more than {MOST_TEXT}")
        if not plain.isascii() and any("\ud800" <= sign <= "\udfff" for sign in plain):
            raise Unfit("it is no UTF-8")
        return plain
    raise Unfit(f"a {type(value).__name__} is no {dtype}")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return instant_of(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, bool | float | str):
        return value
    return int(value) if isinstance(value, int) else value
