"""OPC UA's built-in types, and the dtype that a signal of each type has.

Boolean → bool; all integers and enumerations → int64; Float, Double → float64;
String, LocalizedText, Guid → string; DateTime → int64 ns since 1970.  All others are refused.
"""

from typing import Any

from asyncua import ua

from broker.streams import Dtype
from gateway.links import values
from gateway.links.values import Reading, Unfit

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


def fits(variant: ua.VariantType, dtype: Dtype) -> bool:
    """Whether a dtype stores values of an OPC UA type: its own dtype, or float64 for integers.

    A date is no quantity, so it fits int64 alone.
    """
    own = DTYPES[variant]
    is_integer = own is Dtype.INT64 and variant is not ua.VariantType.DateTime
    return own is dtype or (is_integer and dtype is Dtype.FLOAT64)


def value_of(value: Any, dtype: Reading) -> Any:
    """Convert a value that asyncua decoded to what a signal reads of it; raises Unfit."""
    if not isinstance(value, ua.LocalizedText):
        return values.read(value, dtype)
    if dtype is not Dtype.STRING:
        raise Unfit(f"a LocalizedText is no {dtype}")
    return values.value_of(value.Text or "", dtype)
