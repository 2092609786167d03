"""Checks units of measure against the grammar of UCUM."""

import functools
from typing import Any

from broker.errors import Invalid

MOST_LENGTH = 40
COMMON = frozenset(
    {
        *("1", "%", "A", "Cel", "Hz", "J", "K", "L", "N", "Pa", "V", "W", "bar", "g", "h", "kg"),
        *("kHz", "kN", "kPa", "kV", "kW", "kW.h", "m", "mA", "mV", "mW", "mbar", "min", "mm", "ms"),
        *("rad", "s", "t", "um", "us", "/min", "/s", "L/h", "L/min", "N.m", "[g]", "deg", "kg/h"),
        *("m/s", "m/s2", "m3", "m3/h", "mm/s", "mm/s2"),
    }
)
"""Codes that are known without the grammar, whose parser takes long to load."""


def checked_unit(text: str) -> str:
    """Return `text` if it is a case-sensitive UCUM code such as `L/min` or `1`; raises Invalid.

    Source: The Unified Code for Units of Measure, 2.1; the grammar is ucumvert's.
    """
    if not (0 < len(text) <= MOST_LENGTH and (text in COMMON or _is_ucum(text))):
        raise Invalid(
            f"{text[:60]!r} is no UCUM unit",
            hint="such as Cel, bar, L/min, m/s2, %, or 1 without dimension",
        )
    return text


@functools.cache
def _is_ucum(text: str) -> bool:
    from lark.exceptions import LarkError  # noqa: PLC0415 - half a second, spent only where needed

    try:
        _parser().parse(text)
    except LarkError:
        return False
    return True


@functools.cache
def _parser() -> Any:
    from ucumvert import get_ucum_parser  # noqa: PLC0415 - likewise

    return get_ucum_parser()
