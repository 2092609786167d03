"""Durations as people write them: 30d, 12h, 1d12h."""

import math
import re
from collections.abc import Mapping

import typer

from broker.clock import DAY_S, HOUR_S

UNITS: Mapping[str, float] = {
    "w": 7 * DAY_S,
    "d": DAY_S,
    "h": HOUR_S,
    "min": 60.0,
    "s": 1.0,
    "ms": 0.001,
}
FORM = "a number with w, d, h, min, s or ms, such as 30d, 12h or 1d12h"

_PART = r"(\d+(?:\.\d+)?)(ms|min|s|h|d|w)"
_WHOLE = re.compile(f"(?:{_PART})+", re.ASCII)


def seconds(text: str | float) -> float:
    """The seconds of a duration, more than 0; raises BadParameter.

    A number is a default of the command, in seconds already.
    """
    if isinstance(text, float | int):
        return float(text)
    parts = re.findall(_PART, text, re.ASCII) if _WHOLE.fullmatch(text) else []
    total_s = sum(float(number) * UNITS[unit] for number, unit in parts)
    if not 0 < total_s < math.inf:
        raise typer.BadParameter(f"{text!r} is no duration: write {FORM}")
    return round(total_s, 3)


def text_of(duration_s: float) -> str:
    """A duration in the fewest units: 2592000 is 30d, 5400 is 1h30min."""
    parts, rest = [], round(duration_s, 3)
    for unit, size_s in UNITS.items():
        if unit == "w":  # 30d is more usual than 4w2d
            continue
        number = int(round(rest / size_s, 6))
        if number:
            parts.append(f"{number}{unit}")
            rest = round(rest - number * size_s, 3)
    return "".join(parts) or "0s"
