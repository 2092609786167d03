"""Scores of detection over all runs of a scenario: the rows of all are counted together.  Pure.

A sweep over recordings asks how good a detector is on all of them.  The mean of the scores of each
would give a short recording the weight of a long one, and has none where a run raised no alarm.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from broker.time_expressions import duration_text
from testbed_scenarios.detection import Detection
from testbed_scenarios.expectations import scores
from testbed_scenarios.expectations.model import AnyExpectation, DetectionExpectation
from testbed_scenarios.observations import Observations

JudgedRun = tuple[Sequence[AnyExpectation], Observations]
"""The expectations of a run, and what was observed in it."""


@dataclass(frozen=True, slots=True)
class DetectionTotal:
    """The counts of the rows of several runs.

    expectation: the first of those that are about these rows and this alarm.
    """

    expectation: DetectionExpectation
    runs: int
    counts: Detection

    @property
    def name(self) -> str:
        """The alarm, the equipment whose faults it is to find, and the span that is scored."""
        expected = self.expectation
        words = f"{expected.detection} against {expected.truth}"
        if expected.faults is not None:
            words += f" ({', '.join(expected.faults)})"
        if expected.from_ns:
            words += f" from {duration_text(expected.from_ns)}"
        return words if expected.to_ns is None else f"{words} to {duration_text(expected.to_ns)}"

    @property
    def sentence(self) -> str:
        """The scores for people."""
        over = f"{self.runs} run{'' if self.runs == 1 else 's'}"
        words = [f"f1 {_share(self.counts.f1, as_percent=False)}"]
        words += [f"{name.replace('_', ' ')} {_share(value)}" for name, value in self._shares()]
        return f"{self.name}, over {over}: {', '.join(words)}"

    def as_json(self) -> dict[str, Any]:
        """The keys that scripts rely on; a score that cannot be computed is None."""
        counts = self.counts
        return {
            "name": self.name,
            "runs": self.runs,
            "hits": counts.hits,
            "missed": counts.missed,
            "false": counts.false,
            "quiet": counts.quiet,
            "f1": counts.f1,
            **dict(self._shares()),
        }

    def _shares(self) -> list[tuple[str, float | None]]:
        return [
            ("precision", self.counts.precision),
            ("recall", self.counts.recall),
            ("false_alarm_rate", self.counts.far),
            ("missed_alarm_rate", self.counts.mar),
        ]


def of_detection(runs: Sequence[JudgedRun]) -> list[DetectionTotal]:
    """The totals of what the expectations on detection by point are about, in the file's order.

    runs: of one scenario, so that all have the same expectations, if perhaps other conditions.  One
    run has no total, and a run whose rows cannot be counted is left out.
    """
    if len(runs) < 2:
        return []
    totals: dict[int, DetectionTotal] = {}
    for expectations, observed in runs:
        for at, expectation in enumerate(expectations):
            if not isinstance(expectation, DetectionExpectation) or expectation.by != "point":
                continue
            counts = scores.by_row(expectation, observed)
            if counts is None:
                continue
            before = totals.get(at, DetectionTotal(expectation, 0, Detection()))
            totals[at] = replace(before, runs=before.runs + 1, counts=before.counts + counts)
    distinct: dict[str, DetectionTotal] = {}
    for at in sorted(totals):
        distinct.setdefault(totals[at].name, totals[at])
    return list(distinct.values())


def _share(value: float | None, *, as_percent: bool = True) -> str:
    if value is None:
        return "unknown"
    return f"{100 * value:.4g} %" if as_percent else f"{value:.4g}"
