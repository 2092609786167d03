"""Faults of a model: their kinds, spans and severity."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from broker.errors import Invalid

_NUMBER = r"\d+(?:\.\d+)?"
_TEXT = re.compile(
    rf"(?P<kind>[a-z]+)@(?P<start>{_NUMBER})\.\.(?P<end>{_NUMBER})(?:x(?P<severity>{_NUMBER}))?",
    re.ASCII,
)


class FaultKind(StrEnum):
    """Kind of a pump rig's fault."""

    VALVE = "valve"
    """The discharge valve is closed, as in the recorded experiments."""
    CAVITATION = "cavitation"
    """Too little head at the inlet: vapour in the pump."""
    BEARING = "bearing"
    """A worn bearing."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault from `start_s` to `end_s` of the model's time.

    severity: 0 to 1.  ramp_s: duration of its rise and of its fall, inside the span.
    """

    kind: FaultKind
    start_s: float
    end_s: float
    severity: float = 1.0
    ramp_s: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.start_s < self.end_s < math.inf:
            raise Invalid(
                f"fault {self.kind} from {self.start_s:g} to {self.end_s:g} s",
                hint="0 <= start < end",
            )
        if not 0 < self.severity <= 1:
            raise Invalid(
                f"severity {self.severity:g} of fault {self.kind}", hint="above 0, at most 1"
            )
        if not 0 <= self.ramp_s < math.inf:
            raise Invalid(f"ramp of fault {self.kind} is {self.ramp_s:g} s", hint="0 or more")

    def level(self, time_s: float) -> float:
        """Return the level of the fault at a time, 0 to `severity`."""
        if not self.start_s < time_s < self.end_s:
            return 0.0
        if self.ramp_s == 0:
            return self.severity
        rise = (time_s - self.start_s) / self.ramp_s
        fall = (self.end_s - time_s) / self.ramp_s
        return self.severity * min(1.0, rise, fall)

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """Parse `kind@start..end` in seconds, and `x<severity>` if it is not 1; raises Invalid."""
        match = _TEXT.fullmatch(text)
        if match is None or match["kind"] not in set(FaultKind):
            raise Invalid(
                f"{text!r} is no fault",
                hint=f"write {'|'.join(FaultKind)}@start..end in s, such as valve@60..90,"
                " and x0.5 behind it for half the severity",
            )
        return cls(
            FaultKind(match["kind"]),
            float(match["start"]),
            float(match["end"]),
            float(match["severity"] or 1.0),
        )


def level(faults: Sequence[Fault], kind: FaultKind, time_s: float) -> float:
    """Return the level of one kind of fault, 0 to 1: the highest of those that overlap."""
    return max((fault.level(time_s) for fault in faults if fault.kind is kind), default=0.0)
