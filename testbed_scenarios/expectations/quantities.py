"""Numbers with their units as an expectation writes them: `80 %`, `0.9 /s`, `1.5 kW.h`.  Pure.

Each type of a field below takes the text of the file and holds a plain number in one fixed unit.  A
number without a unit is in that unit already.  Durations are those of `quantities`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from broker.file_values import BYTES, quantity

SHARES: Mapping[str, float] = {"%": 0.01, "1": 1.0}
RATES: Mapping[str, float] = {"/s": 1.0, "Hz": 1.0, "/min": 1 / 60, "/h": 1 / 3_600}
ENERGIES: Mapping[str, float] = {
    "J": 1.0,
    "kJ": 1e3,
    "MJ": 1e6,
    "W.s": 1.0,
    "W.h": 3.6e3,
    "kW.h": 3.6e6,
    "MW.h": 3.6e9,
}
"""Units of each quantity, by the factor to its first one: 1, /s, J."""
WHOLE_PERCENT = 100
_NUMBER = r"[+-]?[0-9.]+([eE][+-]?[0-9]+)?"


def _of(units: Mapping[str, float], example: str, *, advice: str = "") -> Callable[[Any], float]:
    return lambda text: quantity(text, units, example, advice=advice)


def _share(text: Any) -> float:
    """A share that is 1 at most."""
    share = quantity(text, SHARES, "0.8 or 80 %")
    if share <= 1:
        return share
    if "%" in str(text):
        raise ValueError(f"{100 * share:g} % is more than the whole; write 100 % at most")
    if share > WHOLE_PERCENT:
        raise ValueError(f"{share:g} is more than 1; write 0.8, or 80 %")
    raise ValueError(f"{share:g} is more than 1: write {share:g} %, or {share / WHOLE_PERCENT:g}")


def _multiple(text: Any) -> float:
    """A share that may be more than the whole, where its unit is written.

    A number is one that was read before; a text is of the file.
    """
    share = quantity(text, SHARES, "0.8 or 80 %")
    if isinstance(text, str) and "%" not in text and share > 1:
        raise ValueError(
            f"{share:g} is more than 1: write its unit, {share:g} % or {100 * share:g} %"
        )
    return share


def _memory(text: Any) -> float:
    """A size, whose unit is written.  A number is one that was read before: in bytes."""
    size = quantity(text, BYTES, "300 MB")
    if isinstance(text, str) and not text.strip().endswith("B"):
        raise ValueError(f"{text.strip()} has no unit; write one behind it, such as 300 MB")
    return size


def _schema(units: Mapping[str, float], description: str) -> WithJsonSchema:
    names = "|".join(map(re.escape, units))
    pattern = rf"^{_NUMBER}( ?({names}))?$"
    of_text = {"type": "string", "pattern": pattern}
    return WithJsonSchema({"anyOf": [{"type": "number"}, of_text], "description": description})


Number = Annotated[
    float,
    BeforeValidator(_of({}, "2.5", advice="write the number alone, in the unit of the signal")),
    WithJsonSchema({"type": "number"}),
]
"""A finite number in the unit of the signal that it is about."""
Count = Annotated[
    float,
    BeforeValidator(_of({}, "100", advice="write the number alone")),
    WithJsonSchema({"type": "number"}),
]
"""A finite number without a unit."""
Share = Annotated[
    float,
    BeforeValidator(_share),
    _schema({"%": 0.01}, "A share: 0.8, or 80 %"),
]
"""A share up to the whole, held as a number of which 1 is the whole."""
Multiple = Annotated[
    float,
    BeforeValidator(_multiple),
    _schema({"%": 0.01}, "A share that may be more than the whole: 0.8, 80 % or 150 %"),
]
"""A share that may be more than the whole, held as a number of which 1 is the whole."""
Memory = Annotated[
    float,
    BeforeValidator(_memory),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": rf"^{_NUMBER} ?({'|'.join(BYTES)})$",
            "description": "A size of memory: 300 MB",
        }
    ),
]
"""A size of memory, held in bytes."""
PerSecond = Annotated[
    float,
    BeforeValidator(_of(RATES, "0.9 /s")),
    _schema(RATES, "A rate: 0.9 /s, 10 Hz or 2 /h; a number alone is per second"),
]
"""A rate, held per second."""
Energy = Annotated[
    float,
    BeforeValidator(_of(ENERGIES, "1.5 kW.h")),
    _schema(ENERGIES, "An energy: 1.5 kW.h or 20 kJ; a number alone is in J"),
]
"""An energy, held in J."""
