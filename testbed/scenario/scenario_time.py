"""Instants of a run at wall time as those of its scenario, so that one verdict fits both."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from broker.batch import Gap, Series, Times
from testbed.scenario import equipment
from testbed.scenario.plan import RunPlan
from testbed.scenario.run_record import RunRecord
from testbed_scenarios.observations import Observations, ResourceSamples

GRID_NS = 1_000_000
"""Instants are told to a millisecond of the scenario: rows are due to a microsecond of the clock,
which a speed multiplies.
"""


class ScenarioTime:
    """Instants of the scenario from those of the machine's clock."""

    def __init__(self, plan: RunPlan, speed: float, began_ns: int) -> None:
        """speed: seconds of the scenario in a second.  began_ns: instant of the machine's clock
        that is the start of the scenario.
        """
        self._plan = plan
        self._speed = speed
        self._began_ns = began_ns

    def observed(self, record: RunRecord, resources: Mapping[str, ResourceSamples]) -> Observations:
        """All that was recorded, at the instants of the scenario."""
        wall = record.observed(self._plan.end_ns, {}, self._plan.events(), resources)
        streams = {
            stream: {
                name: Series(self._instants(each.time_ns), each.values, each.quality)
                for name, each in signals.items()
            }
            for stream, signals in wall.streams.items()
        }
        gaps = {
            stream: tuple(self._gap(each) for each in stated if each.to_ns >= self._began_ns)
            for stream, stated in wall.gaps.items()
        }
        machines = equipment.make_all(self._plan)
        truth = {each.name: each.truth for each in machines if each.truth is not None}
        return replace(wall, streams=streams, truth=truth, gaps=gaps)

    def _gap(self, stated: Gap) -> Gap:
        ends_ns = np.array([max(stated.from_ns, self._began_ns), stated.to_ns])
        from_ns, to_ns = self._instants(ends_ns).tolist()
        return replace(stated, from_ns=from_ns, to_ns=to_ns)

    def _instants(self, time_ns: Times) -> Times:
        passed_ns = (time_ns - self._began_ns) * self._speed
        gridded: Times = np.round(passed_ns / GRID_NS).astype(np.int64) * GRID_NS
        return self._plan.scenario.start_ns + gridded
