"""Durations as people write them: 30d, 12h, 1d12h."""

import typer

from broker import time_expressions
from broker.errors import Invalid
from broker.time_expressions import UNITS

_UNWRITTEN = frozenset({"w", "m"})
"""Units that are read and not written: 30d is more usual than 4w2d, and m might be a month."""


def seconds(text: str | float) -> float:
    """The seconds of a duration, more than 0; raises BadParameter.

    A number is a default of the command, in seconds already.
    """
    if isinstance(text, float | int):
        return float(text)
    try:
        return time_expressions.seconds(text)
    except Invalid as exc:
        raise typer.BadParameter(f"{exc.message}: {exc.hint}") from exc


def text_of(duration_s: float) -> str:
    """A duration in the fewest units: 2592000 is 30d, 5400 is 1h30min."""
    parts, rest = [], round(duration_s, 3)
    for unit, size_s in UNITS.items():
        if unit in _UNWRITTEN:
            continue
        number = int(round(rest / size_s, 6))
        if number:
            parts.append(f"{number}{unit}")
            rest = round(rest - number * size_s, 3)
    return "".join(parts) or "0s"
