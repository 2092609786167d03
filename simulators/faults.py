"""Faults of a model: their spans and severity, of kinds that each model names itself."""

import difflib
import functools
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from broker.errors import Invalid

_NUMBER = r"\d+(?:\.\d+)?"
LEAST_EVERY_S = 60.0
"""A fault lasts for a tenth of it at least, of which its rise and its fall take 4 s."""
_BAG = 1
"""Tells the random numbers of an order of kinds from those of a fault with the same number."""
_TEXT = re.compile(
    rf"(?P<kind>[a-z][a-z-]*)@(?P<start>{_NUMBER})\.\.(?P<end>{_NUMBER})(?:x(?P<severity>{_NUMBER}))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault from `start_s` to `end_s` of the model's time.

    kind: of the model's own list, see `simulators.catalogue`.  severity: 0 to 1.  ramp_s: duration
    of its rise and of its fall, inside the span.
    """

    kind: str
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
    def parse(cls, text: str, kinds: Collection[str]) -> "Fault":
        """Parse `kind@start..end` in seconds, and `x<severity>` if it is not 1.

        kinds: of the model, in its order.  Raises Invalid.
        """
        match = _TEXT.fullmatch(text)
        if match is None or match["kind"] not in kinds:
            near = difflib.get_close_matches(text.partition("@")[0], kinds, 1)
            example = next(iter(kinds), "fault")
            raise Invalid(
                f"{text!r} is no fault",
                hint=f"{f'did you mean {near[0]!r}? ' if near and match else ''}"
                f"write {'|'.join(kinds)}@start..end in s, such as {example}@60..90,"
                " and x0.5 behind it for half the severity",
            )
        return cls(
            match["kind"],
            float(match["start"]),
            float(match["end"]),
            float(match["severity"] or 1.0),
        )


@dataclass(frozen=True, slots=True)
class RecurringFaults:
    """One fault in each `every_s` of the model's time, without an end.

    Of as many as there are kinds, counted from the first, every kind is one, in random order.  A
    fault's beginning between 40 and 60 % of that time, and its duration of 10 to 20 %, are random
    too; equal seeds give equal faults.  The model is healthy for 40 % of the time before the first
    fault, and for at least 60 % between two.
    """

    seed: int
    every_s: float
    kinds: tuple[str, ...]

    def __post_init__(self) -> None:
        if not LEAST_EVERY_S <= self.every_s < math.inf:
            raise Invalid(
                f"a fault every {self.every_s:g} s",
                hint=f"{LEAST_EVERY_S:g} s or more, so that a fault has time to come and go",
            )

    def at(self, time_s: float) -> Fault:
        """The fault of the part of `every_s` that a time is in, begun or not."""
        return _recurring(self, int(time_s // self.every_s))


@functools.lru_cache(maxsize=1)
def _recurring(faults: RecurringFaults, number: int) -> Fault:
    """The fault of one part, which is asked for at every row of it."""
    seed, every_s, kinds = faults.seed, faults.every_s, faults.kinds
    bag, place = divmod(number, len(kinds))
    kind = kinds[np.random.default_rng([seed, bag, _BAG]).permutation(len(kinds))[place]]
    random = np.random.default_rng([seed, number])
    start_s = every_s * (number + random.uniform(0.4, 0.6))
    return Fault(kind, start_s, start_s + every_s * random.uniform(0.1, 0.2))


def level(faults: Sequence[Fault], kind: str, time_s: float) -> float:
    """Return the level of one kind of fault, 0 to 1: the highest of those that overlap."""
    return max((fault.level(time_s) for fault in faults if fault.kind == kind), default=0.0)
