"""Parameters of models: constants of their equations, each with a unit and a plausible range.

A model's constants are a frozen dataclass whose fields `parameter` describes.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, TypeVar

from broker.errors import Invalid

_Constants = TypeVar("_Constants")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A constant of a model.  unit: UCUM code.  low, high: the range that it may be set to."""

    name: str
    default: float
    unit: str
    low: float
    high: float
    description: str


def parameter(default: float, unit: str, low: float, high: float, description: str) -> Any:
    """A field of a dataclass of constants, with what `Parameter` says about it."""
    metadata = {"unit": unit, "low": float(low), "high": float(high), "description": description}
    return field(default=float(default), metadata=metadata)


def parameters_of(constants: type[Any]) -> tuple[Parameter, ...]:
    """The parameters of a dataclass of constants, in its order."""
    return tuple(_parameter(each.name, each.default, each.metadata) for each in fields(constants))


def _parameter(name: str, default: Any, metadata: Mapping[str, Any]) -> Parameter:
    return Parameter(name, default, **metadata)


def constants_with(
    constants: type[_Constants], values: Mapping[str, float], model: str
) -> _Constants:
    """The constants of a model with these parameters set.

    Raises Invalid for a parameter that it does not have, or a value that is out of its range.
    """
    known = {each.name: each for each in parameters_of(constants)}
    for name, value in values.items():
        if name not in known:
            raise unknown(f"{model} has no parameter {name!r}", name, known)
        each = known[name]
        if not (math.isfinite(value) and each.low <= value <= each.high):
            raise Invalid(
                f"parameter {name} of {model} is {value:g} {each.unit}",
                hint=f"{each.low:g} to {each.high:g} {each.unit}: {each.description}",
            )
    return constants(**{name: float(value) for name, value in values.items()})


def unknown(sentence: str, name: str, known: Collection[str]) -> Invalid:
    """An error about a name that is not known, with the nearest one, or all that are known."""
    near = get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known) or 'none'}"
    return Invalid(sentence, hint=hint)
