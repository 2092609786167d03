"""Maps the units of FMUs to UCUM codes.

An FMU names a unit as its tool does, often as Modelica, and may define it by exponents of base
units.  Source: FMI 2.0.4, 2.2.2 and FMI 3.0.2, 2.4.3 (UnitDefinitions); Modelica 3.6, ch. 19.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from broker.errors import Invalid
from broker.units import checked_unit

NONE = "1"
_RENAMED = {
    "": NONE,
    "-": NONE,
    "pu": NONE,
    "p.u.": NONE,
    "degC": "Cel",
    "°C": "Cel",
    "degF": "[degF]",
    "°": "deg",
    "rev": "{rev}",
    "rpm": "{rev}/min",
    "rev/min": "{rev}/min",
    "r/min": "{rev}/min",
    "1/min": "/min",
    "1/s": "/s",
    "l": "L",
    "l/min": "L/min",
    "l/s": "L/s",
    "l/h": "L/h",
    "ohm": "Ohm",
    "day": "d",
    "sec": "s",
    "psi": "[psi]",
    "kWh": "kW.h",
    "Wh": "W.h",
    "Nm": "N.m",
}
_BASE = ("kg", "m", "s", "A", "K", "mol", "cd", "rad")


@dataclass(frozen=True, slots=True)
class UnitDefinition:
    """A unit as the FMU defines it: exponents of base units, and its factor and offset to these."""

    exponents: Mapping[str, int] = field(default_factory=dict)
    factor: float = 1.0
    offset: float = 0.0


def ucum(text: str | None, definitions: Mapping[str, UnitDefinition]) -> str | None:
    """The UCUM code of a unit of an FMU; None if there is none that is surely the same.

    text: the unit's name, None where the variable has none.
    """
    name = (text or "").strip()
    if name in _RENAMED:
        return _RENAMED[name]
    if any(map(str.isspace, name)):  # spares the grammar, which takes half a second to load
        return _from_base(definitions.get(name))
    try:
        return checked_unit(name.replace("*", ".").replace("^", ""))
    except Invalid:
        return _from_base(definitions.get(name))


def _from_base(definition: UnitDefinition | None) -> str | None:
    """A product of base units; a factor or an offset would change the values."""
    if definition is None or (definition.factor, definition.offset) != (1.0, 0.0):
        return None
    powers = {unit: definition.exponents.get(unit, 0) for unit in _BASE}
    parts = [f"{unit}{power if power != 1 else ''}" for unit, power in powers.items() if power]
    return ".".join(parts) or NONE
