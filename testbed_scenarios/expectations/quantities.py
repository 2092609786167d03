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


def _of(units: Mapping[str, float], example: str, *, advice: str = "") -> Callable[[Any], float]:
    return lambda text: quantity(text, units, example, advice=advice)


def _schema(units: Mapping[str, float], description: str) -> WithJsonSchema:
    names = "|".join(map(re.escape, units))
    pattern = rf"^[+-]?[0-9.]+([eE][+-]?[0-9]+)?( ?({names}))?$"
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
    BeforeValidator(_of(SHARES, "0.8 or 80 %")),
    _schema({"%": 0.01}, "A share: 0.8, or 80 %"),
]
"""A share, held as a number of which 1 is the whole."""
Memory = Annotated[
    float,
    BeforeValidator(_of(BYTES, "300 MB")),
    _schema(BYTES, "A size of memory: 300 MB; a number alone is in bytes"),
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
