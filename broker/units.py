"""Checks units of measure against the grammar of UCUM, and converts between them."""

import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

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
_WATTS: Mapping[str, float] = {"W": 1.0, "kW": 1e3, "mW": 1e-3}
"""Powers in W, which are converted without the registry of all units."""


class UnitConversion(NamedTuple):
    """The change of a value from one unit to another: times a factor, plus an offset."""

    factor: float
    offset: float = 0.0


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


@functools.lru_cache(maxsize=256)
def conversion(source: str, target: str) -> UnitConversion:
    """Return the conversion of values in `source` to values in `target`, both UCUM codes.

    To twelve digits.  Raises Invalid if one is no unit, if they are of different kinds, or if there
    is no linear conversion, as of a pH or a level in dB.  Source: the units of UCUM as ucumvert
    defines them for pint.
    """
    if source == target:
        return UnitConversion(1.0)
    if source in _WATTS and target in _WATTS:
        return UnitConversion(_WATTS[source] / _WATTS[target])
    for text in (source, target):
        checked_unit(text)
    at = [_converted(number, source, target) for number in (0.0, 1.0, 2.0)]
    factor, second = at[1] - at[0], at[2] - at[1]
    if not math.isclose(factor, second, rel_tol=1e-9) or factor == 0:
        raise Invalid(f"{source} is not converted to {target}: they are not proportional")
    return UnitConversion(float(f"{factor:.12g}"), float(f"{at[0]:.12g}"))


def _converted(number: float, source: str, target: str) -> float:
    from lark.exceptions import LarkError  # noqa: PLC0415 - a second, spent only where needed
    from pint.errors import PintError  # noqa: PLC0415 - likewise

    registry = _registry()
    try:
        units = [registry.from_ucum(text).units for text in (source, target)]
        return float(registry.Quantity(number, units[0]).to(units[1]).magnitude)
    except (PintError, LarkError, ArithmeticError) as exc:
        raise Invalid(
            f"{source} cannot be converted to {target}", hint="name two units of one kind"
        ) from exc


@functools.cache
def _registry() -> Any:
    from ucumvert import PintUcumRegistry  # noqa: PLC0415 - likewise

    return PintUcumRegistry()


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
