"""From OPC UA's values to ours: which type becomes which dtype.

Boolean → bool; all integers and enumerations → int64; Float, Double → float64;
String, LocalizedText, Guid → string; DateTime → int64 ns since 1970.  All else is refused.
"""

import math
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from asyncua import ua

from broker.streams import Dtype

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
MOST_TEXT = 16_384
"""Characters of one value; escaped in JSON they still fit a batch."""
_INT64 = range(-(2**63), 2**63)

_INTEGERS = ("SByte", "Byte", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64")
DTYPES: dict[ua.VariantType, Dtype] = {
    ua.VariantType.Boolean: Dtype.BOOL,
    **{getattr(ua.VariantType, name): Dtype.INT64 for name in _INTEGERS},
    ua.VariantType.Float: Dtype.FLOAT64,
    ua.VariantType.Double: Dtype.FLOAT64,
    ua.VariantType.String: Dtype.STRING,
    ua.VariantType.LocalizedText: Dtype.STRING,
    ua.VariantType.Guid: Dtype.STRING,
    ua.VariantType.DateTime: Dtype.INT64,
}


class Unfit(Exception):
    """A value is none of the signal's dtype."""


def instant_of(moment: datetime) -> int:
    """Ns since 1970; OPC UA's 100 ns end at whole microseconds here."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // _MICROSECOND * 1000


def fits(variant: ua.VariantType, dtype: Dtype) -> bool:
    """Whether values of this type can be kept in a dtype: its own, and whole numbers as float64."""
    own = DTYPES[variant]
    return own is dtype or (own is Dtype.INT64 and dtype is Dtype.FLOAT64)


def value_of(value: Any, dtype: Dtype) -> Any:
    """A value of OPC UA in the signal's dtype; raises Unfit with the reason."""
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
        if not plain.isascii() and any("\ud800" <= one <= "\udfff" for one in plain):
            raise Unfit("it is no UTF-8")
        return plain
    raise Unfit(f"a {type(value).__name__} is no {dtype}")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return instant_of(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, ua.LocalizedText):
        return value.Text or ""
    if isinstance(value, bool | float | str):
        return value
    return int(value) if isinstance(value, int) else value
