"""Durations as people write them: 30d, 12h, 1d12h."""

import typer

from broker import time_expressions
from broker.errors import Invalid

MS_NS = 1_000_000


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
    return time_expressions.duration_text(round(duration_s * 1_000) * MS_NS)
