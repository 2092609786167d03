"""A scenario as a test case of BOPTEST: points by name, and the answers to its calls.

BOPTEST (Building Optimization Performance Tests) is an HTTP interface for closed loops: a
controller reads measurements, overwrites inputs and lets time pass, a step at a time.  A point of
ours is named as in the scenario file: `press/Platen Temperature` is a measurement, `press/heater_u`
the value of an input, and `press/heater_activate` whether that value counts.  Times are seconds
since the scenario's start.  Units are UCUM codes.
Source: the OpenAPI document of BOPTEST 1.0 (service/web/server/docs/openapi.yaml).
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from broker.clock import NS_PER_S
from broker.errors import Invalid, Unknown
from testbed.scenario import stepped_scenario
from testbed.scenario.stepped_scenario import SteppableScenario

VALUE, ACTIVATE = "_u", "_activate"
"""Ends of the names of an input's two points."""
MOST_FORECAST = 100_000
"""Values in an answer with forecasts."""

Point = dict[str, Any]


class BoptestCase:
    """One test: a scenario that a controller steps through."""

    def __init__(self, scenario: SteppableScenario, seed: int | None = None) -> None:
        """seed: that of the file if None.  Raises Invalid."""
        self._scenario = scenario
        self._seed = seed
        self._run = scenario.open(seed)
        self._quantum_s = self._run.plan.scenario.quantum_ns / NS_PER_S
        self.step_s = self._quantum_s
        """The time that `advance` lets pass."""

    @property
    def name(self) -> str:
        """The scenario's name."""
        return self._run.plan.scenario.name

    def close(self) -> None:
        """End the processes of the test."""
        self._run.close()

    # --- time -----------------------------------------------------------------------------------

    def initialize(self, start_s: float, warmup_s: float) -> Mapping[str, Any]:
        """Begin anew, and let the time until the start pass with the scenario's own inputs.

        warmup_s: at most start_s, because a scenario has no time before it begins.  Returns the
        values of all points.  Raises Invalid.
        """
        quanta = self._quanta("start_time", start_s, least=0)
        duration_s = self._run.plan.scenario.duration_ns / NS_PER_S
        if start_s >= duration_s:
            raise Invalid(
                f"start_time is {start_s:g} s, and the scenario ends at {duration_s:g} s",
                hint="write an earlier one",
            )
        if not 0 <= warmup_s <= start_s:
            raise Invalid(
                f"warmup_period is {warmup_s:g} s, and start_time {start_s:g} s",
                hint="0 to start_time: a scenario has no time before it begins",
            )
        begun = self._scenario.open(self._seed)
        self._run.close()
        self._run = begun
        self._run.advance(quanta)
        return self._values()

    def set_step(self, step_s: float) -> float:
        """Set the time that `advance` lets pass, a multiple of the scenario's quantum."""
        self._quanta("step", step_s, least=1)
        self.step_s = step_s
        return step_s

    def advance(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Let one step pass with the inputs that are overwritten, and no others.

        fields: name of a point of an input -> its value; each counts for this step alone.  Returns
        the values of all points, none once the scenario is over.  Raises Invalid.
        """
        values = self._overwritten(fields)
        if not self._run.quanta_left:
            return {}
        for name in self._run.inputs:
            self._run.overwrite(name, values.get(name))
        self._run.advance(self._quanta("step", self.step_s, least=1))
        return self._values()

    def _quanta(self, what: str, duration_s: float, *, least: int) -> int:
        """The quanta of a duration; raises Invalid for a part of one."""
        quanta = duration_s / self._quantum_s if math.isfinite(duration_s) else -1.0
        if quanta < least or abs(quanta - round(quanta)) > 1e-6:
            raise Invalid(
                f"{what} is {duration_s:g} s",
                hint=f"a multiple of the scenario's quantum of {self._quantum_s:g} s"
                + (", 0 among them" if not least else ""),
            )
        return round(quanta)

    def _overwritten(self, fields: Mapping[str, Any]) -> dict[str, float]:
        """The values of the inputs that the fields activate."""
        points = {f"{name}{end}" for name in self._run.inputs for end in (VALUE, ACTIVATE)}
        for point, value in fields.items():
            if point not in points:
                raise Unknown(
                    f"there is no input {point!r}",
                    hint=f"there are {', '.join(sorted(points)) or 'none'}",
                )
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise Invalid(f"{point} is {value!r:.100}", hint="a finite number")
        values = {}
        for name in self._run.inputs:
            if not fields.get(f"{name}{ACTIVATE}", f"{name}{VALUE}" in fields):
                continue
            if f"{name}{VALUE}" not in fields:
                raise Invalid(f"{name}{ACTIVATE} is on", hint=f"{name}{VALUE} is missing")
            values[name] = float(fields[f"{name}{VALUE}"])
        return values

    # --- points ---------------------------------------------------------------------------------

    def measurements(self) -> Mapping[str, Point]:
        """Unit, range and description of each signal that is a number."""
        return {
            name: _point(signal.unit, signal.low, signal.high, signal.description)
            for name, signal in self._run.signals.items()
            if stepped_scenario.is_number(signal)
        }

    def inputs(self) -> Mapping[str, Point]:
        """The same of the two points of each input."""
        points: dict[str, Point] = {}
        for name, fact in self._run.inputs.items():
            points[f"{name}{VALUE}"] = _point(fact.unit, fact.low, fact.high, fact.description)
            words = f"1 where {name}{VALUE} counts, 0 for the scenario's own value"
            points[f"{name}{ACTIVATE}"] = _point(None, None, None, words)
        return points

    def forecast_points(self) -> Mapping[str, Point]:
        """Unit and description of what is known in advance."""
        points: dict[str, Point] = {}
        for name in self._run.forecast_points:
            fact = self._run.inputs.get(name) or self._run.signals[name]
            points[name] = {"Unit": fact.unit, "Description": fact.description}
        return points

    def forecast(
        self, names: list[str], horizon_s: float, interval_s: float
    ) -> Mapping[str, list[float | None]]:
        """The values of forecast points from now on to a horizon, an interval apart."""
        if not (math.isfinite(horizon_s) and horizon_s >= 0):
            raise Invalid(f"horizon is {horizon_s:g} s", hint="0 or more")
        if not (math.isfinite(interval_s) and interval_s > 0):
            raise Invalid(f"interval is {interval_s:g} s", hint="more than 0")
        count = horizon_s / interval_s + 1
        if count * (len(names) + 1) > MOST_FORECAST:
            raise Invalid(
                f"these are {count * (len(names) + 1):,.0f} values",
                hint=f"{MOST_FORECAST:,} are the most",
            )
        after_s = np.arange(math.floor(count + 1e-9)) * interval_s
        times_ns = self._run.now_ns + np.round(after_s * NS_PER_S).astype(np.int64)
        times_s: list[float | None] = [self._run.time_s + each for each in after_s.tolist()]
        return {"time": times_s} | {name: self._run.forecast(name, times_ns) for name in names}

    def _values(self) -> Mapping[str, Any]:
        values: dict[str, Any] = {"time": self._run.time_s}
        for name in self.measurements():
            newest = self._run.newest(name)
            values[name] = float(newest) if isinstance(newest, bool) else newest
        for name in self._run.inputs:
            values[f"{name}{VALUE}"] = self._run.input_value(name)
            values[f"{name}{ACTIVATE}"] = int(self._run.is_overwritten(name))
        return {key: _finite(value) for key, value in values.items()}

    # --- judgement ------------------------------------------------------------------------------

    def kpi(self) -> Mapping[str, Any]:
        """The values that the expectations observed until now, and whether each is fulfilled.

        `EXPECTATION: VALUE` -> a number, and `EXPECTATION: passed` -> 1 or 0.  Expectations about
        prototypes are left out: there are none.
        """
        judged = self._run.judge()
        kpis: dict[str, Any] = {key: _finite(value) for key, value in judged.metrics.items()}
        for result in judged.results:
            kpis[f"{result.name}: passed"] = int(result.passed)
        return kpis


def _point(unit: str | None, low: float | None, high: float | None, description: str) -> Point:
    return {"Unit": unit, "Minimum": low, "Maximum": high, "Description": description}


def _finite(value: Any) -> Any:
    """The value, or None in the place of a number that JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
