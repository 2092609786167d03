"""Models that compute one row after the other from equations, and the description of each.

A model's module brings its equations and a `ModelInfo`; time, faults, labels, inputs, noise and
ranges are the same for all and stand here.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from broker.errors import Invalid
from broker.streams import Signal
from simulators import faults
from simulators.faults import Fault, RecurringFaults
from simulators.model import SourceRow, SourceValue, limited_inputs, limits_of
from simulators.parameters import Parameter, constants_with, parameters_of, unknown

MICROSECOND_S = 1e-6
BLOCK = 256
"""Rows for which noise is drawn, and faults are looked for, at once."""
EVENTS = (0, 2)
"""Tells the random numbers of a model's events from those of its noise with the same seed."""


class Equations(Protocol):
    """A machine's state, and the equations that move it on.

    draws: number of standard normal numbers that a row takes, always as many.
    """

    draws: int

    def step(
        self,
        duration_s: float,
        inputs: Mapping[str, float],
        levels: Mapping[str, float],
        gauss: Sequence[float],
    ) -> tuple[SourceValue, ...]:
        """Move on by a duration and return what the sensors show then, one value a signal.

        Arrays come after all single values, and lie in their range already.

        levels: kind of fault -> its level, 0 to 1.  gauss: `draws` standard normal numbers.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A model that can be made: its signals, inputs, parameters and faults.

    name: in lower case with hyphens.  stream: the name that a machine's stream usually has.
    period_s: the usual time between rows.  input_defaults: an input's value until it is given.
    faults: kind -> a sentence about what happens.  constants: a dataclass of parameters.
    equations: constants and a generator of random events -> the machine in its first state.
    """

    name: str
    description: str
    stream: str
    period_s: float
    signals: tuple[Signal, ...]
    inputs: tuple[Signal, ...]
    input_defaults: Mapping[str, float]
    faults: Mapping[str, str]
    constants: type[Any]
    equations: Callable[[Any, np.random.Generator], Equations]

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The constants that can be set."""
        return parameters_of(self.constants)

    @property
    def object_name(self) -> str:
        """The name of the machine as a server's object, such as `PumpRig`."""
        return "".join(part.capitalize() for part in self.name.split("-"))

    def make(  # noqa: PLR0913 - a model's arguments, each with a default
        self,
        *,
        seed: int = 0,
        period_s: float | None = None,
        parameters: Mapping[str, float] | None = None,
        faults: Sequence[Fault] = (),
        inputs: Mapping[str, float] | None = None,
        count: int = 10**9,
        fault_every_s: float | None = None,
    ) -> "SteppedModel":
        """Make the model; raises Invalid for whatever it does not have or cannot be.

        parameters: name -> value, others have their defaults.  inputs: name -> value from the
        beginning on.  The rest is as in `RunSettings`; period_s is the model's own if None.
        """
        for fault in faults:
            if fault.kind not in self.faults:
                sentence = f"{self.name} has no fault {fault.kind!r}"
                raise unknown(sentence, fault.kind, self.faults)
        settings = RunSettings(
            seed=seed,
            period_s=self.period_s if period_s is None else period_s,
            count=count,
            faults=tuple(faults),
            fault_every_s=fault_every_s,
            inputs=dict(inputs or {}),
        )
        self._check_inputs(settings.inputs)
        constants = constants_with(self.constants, parameters or {}, self.name)
        return SteppedModel(self, constants, settings)

    def _check_inputs(self, inputs: Mapping[str, float]) -> None:
        """Raise Invalid for a first input out of its range: nobody has turned anything yet."""
        limited = self.limited(inputs)
        for signal in self.inputs:
            if inputs.get(signal.name) != limited.get(signal.name):
                low, high = limits_of(signal)
                raise Invalid(
                    f"input {signal.name} of {self.name} is {inputs[signal.name]:g} {signal.unit}",
                    hint=f"{low:g} to {high:g} {signal.unit}: {signal.description}",
                )

    def limited(self, inputs: Mapping[str, float]) -> dict[str, float]:
        """Inputs limited to their ranges; raises Invalid for an unknown or no finite one."""
        return limited_inputs(self.name, self.inputs, inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """Arguments of a run of a model, whatever its equations.

    seed: of all noise and events, 0 or more.  count: rows of `rows`.  faults: in seconds of the
    model's time; a row within a fault is an anomaly.  fault_every_s: time in which one random
    fault comes beside them, None for none.  inputs: values from the beginning on.
    """

    seed: int = 0
    period_s: float = 1.0
    count: int = 800
    faults: tuple[Fault, ...] = ()
    fault_every_s: float | None = None
    inputs: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise Invalid(f"seed {self.seed}", hint="0 or more")
        if not MICROSECOND_S <= self.period_s < math.inf:
            raise Invalid(f"period {self.period_s:g} s", hint="seconds, a microsecond at least")
        if self.count < 1:
            raise Invalid(f"{self.count} rows", hint="1 or more")


class SteppedModel:
    """A `Model` of equations: one row every `period_s` of its time, the first at 0."""

    def __init__(self, info: ModelInfo, constants: Any, settings: RunSettings) -> None:
        """constants: an instance of `info.constants`.  Raises Invalid."""
        self.info = info
        self.signals = info.signals
        self.inputs = info.inputs
        self.period_s = settings.period_s
        self._count = settings.count
        self._faults = settings.faults
        self._seed = settings.seed
        every_s = settings.fault_every_s
        self._recurring = (
            None if every_s is None else RecurringFaults(self._seed, every_s, tuple(info.faults))
        )
        self._constants = constants
        self._healthy = dict.fromkeys(info.faults, 0.0)
        self._limits = [limits_of(signal) for signal in info.signals if not signal.shape]
        self._first_inputs = {**info.input_defaults, **info.limited(settings.inputs)}
        self._run: _Run | None = None

    def advance(self, count: int, inputs: Mapping[str, float]) -> list[SourceRow]:
        """See `Model`."""
        self._run = self._run or self._begun()
        self._run.inputs.update(self.info.limited(inputs))
        return self._computed(self._run, count)

    def rows(self) -> Iterator[SourceRow]:
        """Yield `count` rows from the beginning; equal arguments give equal rows."""
        run = self._begun()
        for first in range(0, self._count, BLOCK):
            yield from self._computed(run, min(BLOCK, self._count - first))

    def _begun(self) -> "_Run":
        events = np.random.default_rng([self._seed, *EVENTS])
        equations = self.info.equations(self._constants, events)
        noise = _noise(np.random.default_rng(self._seed), equations.draws)
        return _Run(equations, noise, dict(self._first_inputs))

    def _computed(self, run: "_Run", count: int) -> list[SourceRow]:
        """The next rows of a run."""
        step, inputs, noise, limits = run.equations.step, run.inputs, run.noise, self._limits
        singles = len(limits)
        times_s = [at * self.period_s for at in range(run.rows, run.rows + count)]
        near = self._near(times_s)
        run.rows += count
        rows = []
        for time_s in times_s:
            active = near if self._recurring is None else (*near, self._recurring.at(time_s))
            levels = self._levels(active, time_s) if active else self._healthy
            values: tuple[Any, ...] = step(self.period_s, inputs, levels, next(noise))
            limited = tuple(
                [
                    low if value < low else min(value, high)
                    for value, (low, high) in zip(values, limits, strict=False)
                ]
            )
            cause = "+".join([kind for kind, level in levels.items() if level > 0])
            time_ns = round(time_s / MICROSECOND_S) * 1000
            rows.append(
                SourceRow(time_ns, limited + values[singles:], anomaly=bool(cause), cause=cause)
            )
        return rows

    def _levels(self, active: Sequence[Fault], time_s: float) -> Mapping[str, float]:
        """The level of every kind of fault at a time."""
        return {kind: faults.level(active, kind, time_s) for kind in self._healthy}

    def _near(self, times_s: Sequence[float]) -> tuple[Fault, ...]:
        """The named faults that overlap with a span of rows."""
        if not times_s:
            return ()
        first_s, last_s = times_s[0], times_s[-1]
        return tuple(
            fault for fault in self._faults if fault.start_s < last_s and fault.end_s > first_s
        )


@dataclass(slots=True)
class _Run:
    """A machine in its present state, and the number of rows that it gave."""

    equations: Equations
    noise: Iterator[Sequence[float]]
    inputs: dict[str, float]
    rows: int = 0


def _noise(generator: np.random.Generator, draws: int) -> Iterator[Sequence[float]]:
    """Standard normal numbers for row after row, the same however many rows are drawn at once."""
    while True:
        yield from generator.standard_normal((BLOCK, draws)).tolist()


def approach(start: float, end: float, time_constants: float) -> float:
    """Solve a first-order balance after a number of time constants: exact for any step."""
    return end + (start - end) * math.exp(-time_constants)
