"""Types of the values in files that people write: ids, durations, sizes with a unit.  Pure.

Each is read from the text that a person writes and dumped as that text again, so that a file which
is dumped and read is equal.
"""

import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from broker import namespace, time_expressions, units
from broker.errors import BedError, Invalid
from broker.time_expressions import duration_text

DURATION_PATTERN = r"^(\d+(\.\d+)?(ms|min|m|s|h|d|w))+$"
DURATION_FORM = f"a duration: {time_expressions.DURATION_FORM}"
ID = r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?"
"""Pattern of an id, without its ends."""
_DECIMAL = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_QUANTITY = re.compile(rf"({_DECIMAL})\s*(.*)", re.ASCII)
BYTES: Mapping[str, float] = {
    "B": 1.0,
    "kB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "KiB": 2.0**10,
    "MiB": 2.0**20,
    "GiB": 2.0**30,
}
"""Units of a size, by the factor to a byte."""


def reading(parse: Callable[[str], object], *types: type) -> BeforeValidator:
    """Make a validator of a parser of texts, whose errors stay as they are.

    types: of values that are parsed already and pass; anything else is refused.
    """

    def validate(value: Any) -> Any:
        if isinstance(value, types):
            return value
        if not isinstance(value, str):
            unit = "; write it with its unit, such as 10s" if isinstance(value, int | float) else ""
            raise ValueError(f"it must be a text, not {value!r}{unit}")
        try:
            return parse(value.strip())
        except BedError as exc:
            raise ValueError(str(exc)) from exc

    return BeforeValidator(validate)


def quantity(text: object, known: Mapping[str, float], example: str, *, advice: str = "") -> float:
    """Return a number in the first of some units.

    text: a finite number, or a text of one with a unit behind it.  known: factor of each unit.
    advice: about a unit that is not known; without it, the units are listed.
    Raises ValueError with a sentence, which ends with the example.
    """
    if isinstance(text, int | float) and not isinstance(text, bool):
        return _finite(float(text), example)
    match = _QUANTITY.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is no number; write one such as {example}")
    if match[2] and match[2] not in known:
        words = advice or f"write one of {', '.join(known)}"
        raise ValueError(f"{match[2]!r} is no unit of this number; {words}")
    return _finite(float(match[1]) * known.get(match[2], 1.0), example)


def _finite(number: float, example: str) -> float:
    if not math.isfinite(number):
        raise ValueError(f"{number} is no finite number; write one such as {example}")
    return number


def duration_ns(text: str) -> int:
    """The nanoseconds of a duration above 0; raises Invalid."""
    value_ns = time_expressions.nanoseconds(text)
    if value_ns == 0:
        raise Invalid(f"{text!r} must be longer than 0", hint="such as 1s")
    return value_ns


def text_schema(pattern: str, words: str, example: str) -> WithJsonSchema:
    """The JSON Schema of a text: its pattern, words about it, and an example."""
    schema = {"type": "string", "pattern": pattern, "description": words, "examples": [example]}
    return WithJsonSchema(schema)


DurationNs = Annotated[
    int,
    reading(duration_ns),
    PlainSerializer(duration_text, return_type=str),
    text_schema(DURATION_PATTERN, DURATION_FORM, "10s"),
]
"""A duration above 0, in ns."""
Id = Annotated[
    str,
    reading(partial(namespace.checked_id, what="name")),
    WithJsonSchema({"type": "string", "pattern": f"^{ID}$"}),
]
"""A name as the testbed has them: lower case, digits and hyphens."""
UnitCode = Annotated[
    str,
    reading(units.checked_unit),
    WithJsonSchema({"type": "string", "examples": ["mbar"], "maxLength": units.MOST_LENGTH}),
]
"""A unit, as a UCUM code."""
