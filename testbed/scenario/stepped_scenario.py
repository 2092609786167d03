"""The machines of a scenario, moved on by a caller who acts on their inputs; nothing is published.

Controllers of other worlds drive our machines so: over HTTP as BOPTEST has it, or as an environment
of Gymnasium.
"""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import numpy as np

from broker.batch import BAD, NO_SAMPLE, Series, Times
from broker.clock import NS_PER_S, Clock
from broker.errors import Invalid, Unknown
from broker.streams import Dtype, Signal
from testbed.scenario import equipment, loading, matrix_run
from testbed.scenario.blocking_source import BlockingSource
from testbed.scenario.matrix_run import RunOptions
from testbed.scenario.plan import RunPlan
from testbed.scenario.source_rows import ReplaySource, SourceColumns
from testbed.scenario.sources import SimulatedEquipment
from testbed_scenarios import check, verdict
from testbed_scenarios.catalogue import EquipmentFacts, ParameterFacts
from testbed_scenarios.observations import Observations
from testbed_scenarios.verdict import Verdict

NewestSample = float | bool | int | str | None


class SteppedScenario:
    """The machines of a scenario in virtual time, without a server and without its prototypes.

    The caller acts in the prototypes' place: an input that a prototype's signal feeds has its
    default until it is overwritten.  Equal plans and equal calls give equal rows.  Use it as a
    context, or call `close` at the end: an FMU runs in a process of its own.
    """

    def __init__(self, plan: RunPlan, facts: Mapping[str, EquipmentFacts]) -> None:
        """facts: of each equipment.  Raises EquipmentRefused for a file that cannot be played."""
        self.plan = plan
        self.signals: Mapping[str, Signal] = {
            f"{name}/{signal.name}": signal
            for name, known in facts.items()
            for signal in known.signals
        }
        """The signals of all machines, by their names in the file: `press/Platen Temperature`."""
        self.inputs: Mapping[str, ParameterFacts] = {
            f"{name}/{key}": parameter
            for name, known in facts.items()
            for key, parameter in known.inputs.items()
        }
        """The inputs of all machines, likewise: `press/heater`."""
        self._equipment = {each.name: each for each in equipment.make_all(plan)}
        for name, each in self._equipment.items():
            usual = {key: fact.default for key, fact in facts[name].inputs.items()}
            first = {key: value for key, value in usual.items() if value is not None}
            each.held = first | each.held
        self._rows: dict[str, list[SourceColumns]] = {name: [] for name in self._equipment}
        self._newest: dict[str, NewestSample] = {}
        self._passed = 0
        self._computed_ns = plan.scenario.start_ns
        try:
            self._compute(until_ns=plan.scenario.start_ns + 1)  # there is something to act on
        except BaseException:
            self.close()
            raise

    @property
    def now_ns(self) -> int:
        """The instant that it has come to: rows before it are there, and the very first one."""
        return self.plan.scenario.start_ns + self._passed * self.plan.scenario.quantum_ns

    @property
    def time_s(self) -> float:
        """The time since the scenario's start."""
        return (self.now_ns - self.plan.scenario.start_ns) / NS_PER_S

    @property
    def quanta_left(self) -> int:
        """The number of quanta until the scenario is over."""
        return self.plan.quanta - self._passed

    def advance(self, quanta: int = 1) -> None:
        """Let quanta pass, but not more than are left; raises EquipmentRefused for a failed FMU."""
        for _ in range(min(quanta, self.quanta_left)):
            self._passed += 1
            self._compute(until_ns=self.now_ns)

    def _compute(self, *, until_ns: int) -> None:
        """Compute the rows that are not there yet, and before an instant."""
        from_ns, self._computed_ns = self._computed_ns, until_ns
        computed = [
            (each, _rows_of(each, partial(each.advance, from_ns, until_ns, self._number)))
            for each in self._equipment.values()
        ]
        for each, rows in computed:
            self._note(each, each.arrived(rows, until_ns))

    def _note(self, each: SimulatedEquipment, rows: SourceColumns) -> None:
        if not len(rows):
            return
        self._rows[each.name].append(rows)
        for at, signal in enumerate(each.source.signals):
            usable = np.flatnonzero((rows.quality[at] != BAD) & (rows.quality[at] != NO_SAMPLE))
            if len(usable) and not signal.shape:
                value = rows.values[at][usable[-1]]
                self._newest[f"{each.name}/{signal.name}"] = _plain(value)

    def newest(self, signal: str) -> NewestSample:
        """The newest value of a signal that is no array; None while it has had none."""
        if signal not in self.signals:
            raise Unknown(
                f"the scenario has no signal {signal!r}", hint=f"it has {', '.join(self.signals)}"
            )
        return self._newest.get(signal)

    def _number(self, signal: str) -> float | None:
        """The newest value of a signal that feeds an input."""
        value = self._newest.get(signal)
        if value is None or isinstance(value, str) or not math.isfinite(value):
            return None
        return float(value)

    # --- inputs ---------------------------------------------------------------------------------

    def overwrite(self, name: str, value: float | None) -> None:
        """Give an input a value from now on, or None to leave it to the scenario again.

        A value is limited to the input's range, as an actuator does.  Raises Unknown for no such
        input, Invalid for no finite number.
        """
        each, key = self._input(name)
        if value is None:
            each.overwritten.pop(key, None)
        elif math.isfinite(value):
            fact = self.inputs[name]
            low = -math.inf if fact.low is None else fact.low
            high = math.inf if fact.high is None else fact.high
            each.overwritten[key] = min(max(float(value), low), high)
        else:
            raise Invalid(f"the input {name} is {value}", hint="a finite number")

    def input_value(self, name: str) -> float | None:
        """The value of an input that acts now; None for one that was never given any."""
        each, key = self._input(name)
        return each.inputs.get(key)

    def is_overwritten(self, name: str) -> bool:
        """Whether the caller has overwritten an input."""
        each, key = self._input(name)
        return key in each.overwritten

    def _input(self, name: str) -> tuple[SimulatedEquipment, str]:
        if name not in self.inputs:
            known = ", ".join(self.inputs) or "none: a model or an FMU has inputs"
            raise Unknown(f"the scenario has no input {name!r}", hint=f"it has {known}")
        owner, _, key = name.partition("/")
        return self._equipment[owner], key

    # --- what is known of the future ------------------------------------------------------------

    @property
    def forecast_points(self) -> list[str]:
        """The names of what is known in advance: inputs that no signal feeds, and signals that are
        played back.

        Texts and arrays are left out.
        """
        inputs = []
        for name in self.inputs:
            each, key = self._input(name)
            if key not in each.feeds:
                inputs.append(name)
        played = [
            name
            for name, signal in self.signals.items()
            if isinstance(self._equipment[name.partition("/")[0]].source, ReplaySource)
            and is_number(signal)
        ]
        return inputs + played

    def forecast(self, point: str, times_ns: Times) -> list[float | None]:
        """The values of a forecast point at instants from now on, each held until the next one.

        None where there is none.  Raises Unknown for what is not known in advance.
        """
        if point not in self.forecast_points:
            known = ", ".join(self.forecast_points) or "nothing"
            raise Unknown(f"{point!r} is not known in advance", hint=f"known is {known}")
        owner, _, name = point.partition("/")
        each = self._equipment[owner]
        if point in self.inputs:
            return [_scheduled(each, name, at_ns) for at_ns in times_ns.tolist()]
        at = [signal.name for signal in each.source.signals].index(name)
        return _played(cast("ReplaySource", each.source).rows, at, times_ns)

    # --- verdict --------------------------------------------------------------------------------

    def observed(self) -> Observations:
        """All samples until now, as a run's verdict is computed from."""
        streams = {}
        for name, each in self._equipment.items():
            pieces = self._rows[name]
            columns = SourceColumns.joined(pieces) if pieces else None
            streams[name] = {
                signal.name: _series(columns, at)
                for at, signal in enumerate(each.source.signals)
                if columns is not None
            }
        return Observations(
            start_ns=self.plan.scenario.start_ns,
            end_ns=self.now_ns,
            streams=streams,
            signals={
                name: {signal.name: signal for signal in each.source.signals}
                for name, each in self._equipment.items()
            },
            truth={n: each.truth for n, each in self._equipment.items() if each.truth is not None},
            events=self.plan.events(),
        )

    def judge(self) -> Verdict:
        """Judge what was observed until now, by the expectations that are about the machines."""
        about = [
            each
            for each in self.plan.scenario.expectations
            if each.subject.partition("/")[0] in self._equipment
        ]
        return verdict.judge(about, self.observed())

    # --- end ------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the processes that compute rows."""
        for each in self._equipment.values():
            if isinstance(each.source, BlockingSource):
                each.source.close_and_wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class SteppableScenario:
    """A scenario file that was read and checked, to be stepped through as often as wanted."""

    def __init__(self, path: Path, clock: Clock) -> None:
        """Raises Unknown for no such file, Invalid for everything wrong in it, each at its line."""
        self.loaded = loading.load(path, clock)
        loading.check_mode(self.loaded, is_virtual=True)
        catalogue = loading.catalogue_of(self.loaded.scenario, self.loaded.base, clock)
        self._facts = check.facts_of(self.loaded.scenario, catalogue)

    def open(self, seed: int | None = None) -> SteppedScenario:
        """Begin it anew; seed: that of the file if None.

        Raises Invalid for a scenario with several runs, and for equipment that cannot be played.
        """
        plan = matrix_run.only_plan(self.loaded, RunOptions(seed=seed, folder=self.loaded.base))
        return SteppedScenario(plan, self._facts)


def is_number(signal: Signal) -> bool:
    """Whether the values of a signal are single numbers, true and false among them."""
    return not signal.shape and signal.dtype is not Dtype.STRING


def _plain(value: Any) -> NewestSample:
    """A value of a column as one of Python."""
    return value.item() if isinstance(value, np.generic) else value  # type: ignore[no-any-return]


def _rows_of(each: SimulatedEquipment, advance: "partial[SourceColumns]") -> SourceColumns:
    if isinstance(each.source, BlockingSource):
        return each.source.wait_for(advance)
    return advance()


def _scheduled(each: SimulatedEquipment, name: str, at_ns: int) -> float | None:
    """The value that the scenario gives an input at an instant from now on."""
    value = each.held.get(name)
    for step in each.steps:
        if step.input == name and step.at_ns <= at_ns:
            value = step.value
    return value


def _played(rows: SourceColumns, at: int, times_ns: Times) -> list[float | None]:
    """The values of a column that hold at instants."""
    usable = (rows.quality[at] != BAD) & (rows.quality[at] != NO_SAMPLE)
    time_ns, values = rows.time_ns[usable], rows.values[at][usable]
    places = np.searchsorted(time_ns, times_ns, side="right") - 1
    return [float(values[place]) if place >= 0 else None for place in places.tolist()]


def _series(rows: SourceColumns, at: int) -> Series:
    """The samples of a column."""
    present = rows.quality[at] != NO_SAMPLE
    return Series(rows.time_ns[present], rows.values[at][present], rows.quality[at][present])
