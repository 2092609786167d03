"""The result of one expectation, and the sentences about it.  Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from testbed_scenarios import quantities
from testbed_scenarios.held_signal import TimeSpan

NS_PER_US = 1_000
Observed = float | bool | str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectationResult:
    """Whether a run fulfilled an expectation, by how much, and where it first did not.

    name: the expectation's, in the words of the file or ours.  subject: the signal, stream or
    prototype.  robustness: distance to where the answer would change, in `unit`; above 0 only if it
    passed, below 0 only if it failed, None where values have no distance or nothing was observed.
    observed: values by what they are.  violation: the first time over which it was not fulfilled,
    in instants.  unknown_ns: time of its span of which nothing is known.  sentence: the result for
    people, without the name.
    """

    name: str
    subject: str
    passed: bool
    sentence: str
    robustness: float | None = None
    unit: str = "1"
    observed: Mapping[str, Observed] = field(default_factory=dict)
    violation: TimeSpan | None = None
    unknown_ns: int = 0

    def as_json(self) -> dict[str, Any]:
        """The keys that scripts rely on; times are instants in ns."""
        return {
            "name": self.name,
            "subject": self.subject,
            "passed": self.passed,
            "robustness": self.robustness,
            "unit": self.unit,
            "observed": dict(self.observed),
            "violation": None
            if self.violation is None
            else {"from_ns": self.violation.from_ns, "to_ns": self.violation.to_ns},
            "unknown_ns": self.unknown_ns,
            "sentence": self.sentence,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanResult:
    """The result over one span of an expectation.

    passed: None if it is undecided, because the span reaches beyond the end of the run.  The rest
    is as in ExpectationResult.
    """

    passed: bool | None
    sentence: str
    robustness: float | None = None
    observed: Mapping[str, Observed] = field(default_factory=dict)
    violation: TimeSpan | None = None
    unknown_ns: int = 0


def worst(results: Sequence[SpanResult]) -> SpanResult:
    """The result that decides: the first that failed, else the least robust of those that passed,
    else the first.
    """
    failed = [result for result in results if result.passed is False]
    if failed:
        return failed[0]
    passed = [result for result in results if result.passed]
    if not passed:
        return results[0]
    return min(passed, key=lambda result: _infinite_if_none(result.robustness))


def _infinite_if_none(robustness: float | None) -> float:
    return math.inf if robustness is None else robustness


def number_or_none(value: float) -> float | None:
    """A number as JSON knows it: None for NaN and infinities."""
    return float(value) if math.isfinite(value) else None


def plain(value: Any) -> Observed:
    """A value of a column as a plain one of Python."""
    scalar = value.item() if isinstance(value, np.generic) else value
    return number_or_none(scalar) if isinstance(scalar, float) else scalar


def value_text(value: Any, unit: str = "1") -> str:
    """A value for people: `2.71 bar`, `true`, `idle`."""
    scalar = plain(value)
    if isinstance(scalar, bool):
        return "true" if scalar else "false"
    if isinstance(scalar, str):
        return repr(scalar)
    number = "unknown" if scalar is None else f"{scalar:.6g}"
    return number if unit == "1" else f"{number} {unit}"


def time_text(instant_ns: int, start_ns: int) -> str:
    """An instant for people, as the time since the beginning of the run."""
    return length_text(instant_ns - start_ns)


def unknown_text(unknown_ns: int) -> str:
    """The end of a sentence about time of which nothing is known; empty without any."""
    if not unknown_ns:
        return ""
    return f"; for {length_text(unknown_ns)} of the time its value is not known"


def beyond_end(begin: str) -> SpanResult:
    """The result over a span that lies behind the end of the run; begin: of it, as text."""
    return SpanResult(
        passed=None, sentence=f"the time for it, from {begin} on, was not in the run any more"
    )


def length_text(duration_ns: float) -> str:
    """A measured duration for people, to a microsecond: a file says no finer one."""
    return quantities.signed_duration_text(round(duration_ns / NS_PER_US) * NS_PER_US)
