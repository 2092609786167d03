"""One signal as `testbed gateway check` has read it: value, rate and way, beside the findings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MOST_TEXT = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedSignal:
    """A signal of a mapping, and what was read of it for some seconds.

    name: `stream.signal`.  value: the newest one, None if there was none.  per_s: samples a second
    after the first.  way: how it is read: `subscribed`, `polled every 1 s`, or `not read`.
    conversion: of the server's type to the signal's, empty without one.  behind_s: seconds by which
    source times lie behind their arrival, None if no new value came.
    """

    name: str
    value: Any
    unit: str
    per_s: float
    way: str
    conversion: str = ""
    behind_s: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The signal with the keys that scripts rely on."""
        return {
            "signal": self.name,
            "value": self.value,
            "unit": self.unit,
            "per_s": round(self.per_s, 3),
            "way": self.way,
            "conversion": self.conversion,
            "behind_s": self.behind_s,
        }


def lines(signals: Sequence[CheckedSignal]) -> list[str]:
    """A table of signals for people, one a line."""
    rows = [
        (
            signal.name,
            _value_text(signal),
            f"{signal.per_s:.3g}/s",
            ", ".join(filter(None, (signal.way, signal.conversion))),
        )
        for signal in signals
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]])
        for row in rows
    ]


def _value_text(signal: CheckedSignal) -> str:
    """The value with its unit, short enough for a line."""
    value, unit = signal.value, "" if signal.unit == "1" else f" {signal.unit}"
    if value is None:
        return "no value"
    if isinstance(value, list):
        return f"{len(value)} values{unit}"
    if isinstance(value, float):
        return f"{value:.6g}{unit}"
    text = repr(value) if isinstance(value, str) else str(value)
    return (text if len(text) <= MOST_TEXT else f"{text[: MOST_TEXT - 1]}…") + unit
