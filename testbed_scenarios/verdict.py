"""The verdict on a run: the results of all its expectations, and sentences for a terminal.  Pure.

It is a function of the expectations and of what was observed, and of nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from broker.runs import verdict as run_verdict
from testbed_scenarios import sample_hash
from testbed_scenarios.expectations.evaluate import evaluate
from testbed_scenarios.expectations.model import AnyExpectation
from testbed_scenarios.expectations.result import ExpectationResult, Observed
from testbed_scenarios.observations import Observations

PASSED, FAILED = 0, 1
"""Exit codes of a run by its verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The verdict on a run.

    results: one for each expectation, in the order of the file.  hash: of all samples that were
    observed.  incidents: sentences about what makes a run fail whatever its expectations say, such
    as a prototype that ended with an error.
    """

    results: tuple[ExpectationResult, ...]
    hash: str
    incidents: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every expectation passed, and nothing else makes the run fail."""
        return run_verdict.passes((result.passed for result in self.results), self.incidents)

    @property
    def failed(self) -> tuple[ExpectationResult, ...]:
        """The results that failed, in the order of the file."""
        return tuple(result for result in self.results if not result.passed)

    @property
    def exit_code(self) -> int:
        """The exit code of the run: 0 if it passed, 1 if it failed."""
        return PASSED if self.passed else FAILED

    @property
    def metrics(self) -> Mapping[str, Observed]:
        """Everything that was observed, as `name of the expectation: name of the value`."""
        return {
            f"{result.name}: {key}": value
            for result in self.results
            for key, value in result.observed.items()
        }

    def lines(self) -> list[str]:
        """One sentence a result for a terminal, then incidents, then the whole."""
        lines = [
            f"{'passed' if result.passed else 'FAILED'}  {result.name}: {result.sentence}"
            for result in self.results
        ]
        lines += [f"FAILED  {incident}" for incident in self.incidents]
        return [*lines, self.summary]

    @property
    def summary(self) -> str:
        """The verdict in a sentence."""
        count = len(self.results)
        if not count:
            whole = "The scenario expects nothing."
        elif not self.failed:
            each = "The expectation" if count == 1 else f"All {count} expectations"
            whole = f"{each} passed{self._aside}."
        else:
            whole = f"{len(self.failed)} of {count} expectation{'s' * (count > 1)} failed."
        return f"{'Passed' if self.passed else 'Failed'}. {whole}"

    @property
    def _aside(self) -> str:
        return ", but something else failed" if self.incidents else ""

    def as_json(self) -> dict[str, Any]:
        """The keys that scripts rely on."""
        return {
            "passed": self.passed,
            "hash": self.hash,
            "expectations": [result.as_json() for result in self.results],
            "incidents": list(self.incidents),
        }


def judge(
    expectations: Sequence[AnyExpectation], observed: Observations, incidents: Sequence[str] = ()
) -> Verdict:
    """Evaluate expectations over what was observed in a run.

    incidents: sentences about what makes the run fail in any case.
    """
    return Verdict(
        results=tuple(evaluate(expectation, observed) for expectation in expectations),
        hash=sample_hash.of_samples(observed.streams, observed.signals),
        incidents=tuple(incidents),
    )
