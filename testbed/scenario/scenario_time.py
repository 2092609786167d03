"""Instants of a run at wall time as those of its scenario, so that one verdict fits both."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from broker.batch import Series, Times
from testbed.scenario import equipment
from testbed.scenario.plan import RunPlan
from testbed.scenario.run_record import RunRecord
from testbed_scenarios.observations import Observations, ResourceSamples, TruthInterval

GRID_NS = 1_000_000
"""Instants are told to a millisecond of the scenario: rows are due to a microsecond of the clock,
which a speed multiplies.
"""


class ScenarioTime:
    """Instants of the scenario from those of the machine's clock.

    The first row of any machine is the start of the scenario.
    """

    def __init__(self, plan: RunPlan, speed: float) -> None:
        """speed: seconds of the scenario in a second."""
        self._plan = plan
        self._speed = speed

    def observed(self, record: RunRecord, resources: Mapping[str, ResourceSamples]) -> Observations:
        """All that was recorded, at the instants of the scenario."""
        plan = self._plan
        wall = record.observed(plan.end_ns, {}, (), resources)
        firsts = {
            name: int(times_ns.min())
            for name in plan.scenario.equipment
            if len(times_ns := _times_of(wall, name))
        }
        first_ns = min(firsts.values(), default=0)
        streams = {
            stream: {
                name: Series(self._instants(each.time_ns, first_ns), each.values, each.quality)
                for name, each in signals.items()
            }
            for stream, signals in wall.streams.items()
        }
        truth = {
            name: self._truth(faults, firsts.get(name, first_ns) - first_ns)
            for name, faults in self._faults().items()
        }
        return replace(wall, streams=streams, truth=truth, gaps={})

    def _faults(self) -> Mapping[str, tuple[TruthInterval, ...]]:
        machines = equipment.make(self._plan)
        return {each.name: each.truth for each in machines if each.truth is not None}

    def _truth(self, faults: tuple[TruthInterval, ...], late_ns: int) -> tuple[TruthInterval, ...]:
        """The faults of a machine that began to play later than the first one."""
        shift_ns = round(late_ns * self._speed)
        return tuple(
            replace(each, from_ns=each.from_ns + shift_ns, to_ns=each.to_ns + shift_ns)
            for each in faults
        )

    def _instants(self, time_ns: Times, first_ns: int) -> Times:
        passed_ns = (time_ns - first_ns) * self._speed
        gridded: Times = np.round(passed_ns / GRID_NS).astype(np.int64) * GRID_NS
        return self._plan.scenario.start_ns + gridded


def _times_of(observed: Observations, stream: str) -> Times:
    """Time stamps of all samples of a stream."""
    series = observed.streams.get(stream, {}).values()
    return np.concatenate([np.empty(0, np.int64), *(each.time_ns for each in series)])
