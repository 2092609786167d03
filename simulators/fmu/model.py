"""An FMU as a `Model`: rows of its outputs, computed in a child process."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from broker.errors import Invalid
from simulators.fmu import description
from simulators.fmu.description import FmuDescription, FmuVariable
from simulators.fmu.process import FmuLimits, FmuProcess, FmuStart
from simulators.fmu.wire import MOST_ROWS
from simulators.model import SourceRow, limited_inputs
from simulators.parameters import unknown

AHEAD_S = 1.0
MOST_AHEAD = 256
"""Time, and number of rows, that an FMU is ahead of the row that is read where all are read."""
MICROSECOND_S = 1e-6
LONGEST_PERIOD_S = 86_400.0
TRUTH = {"true": 1.0, "false": 0.0}
"""Numbers of the texts that FMI has for a Boolean."""
ParameterValue = float | bool | str


class FmuModel:
    """A `Model` whose rows are the outputs of an FMU: the first after its initialisation, at time
    0, each other one step of `period_s` later.

    Outputs and inputs have the signals' names of `FmuDescription`.  An FMU knows no faults of ours,
    so rows have no label.  `advance` starts a child process at its first call, each `rows` another;
    `close`, or leaving the context, ends that of `advance`.  A process ends with the thread that
    started it.
    """

    def __init__(
        self,
        fmu: FmuDescription,
        *,
        period_s: float | None = None,
        parameters: Mapping[str, ParameterValue] | None = None,
        inputs: Mapping[str, float] | None = None,
        limits: FmuLimits | None = None,
    ) -> None:
        """period_s: the step; the FMU's own, or 0.1, if None.  parameters: name of the FMU ->
        value.  inputs: values from the beginning on.  Raises Invalid for what the FMU does not
        have or take.
        """
        self.fmu = fmu
        self.signals = fmu.signals
        self.inputs = fmu.input_signals
        self.period_s = _checked_period(fmu, period_s)
        self._limits = limits or FmuLimits()
        self._input_index = {signal.name: at for at, signal in enumerate(fmu.input_signals)}
        first = self._indexed(inputs or {})
        self._start = FmuStart(
            period_s=self.period_s,
            parameters=_native_parameters(fmu, parameters or {}),
            inputs=tuple(first.items()),
        )
        self._process: FmuProcess | None = None
        self._rows = 0

    def advance(self, count: int, inputs: Mapping[str, float]) -> list[SourceRow]:
        """See `Model`.  Raises Invalid if the FMU crashes, hangs, fails, or is beyond its limits;
        then it has ended for good.
        """
        changes = self._indexed(inputs)
        if self._process is None:
            self._process = FmuProcess(self.fmu, self._start, self._limits)
        rows = self._computed(self._process, self._rows, count, changes)
        self._rows += count
        return rows

    def rows(self) -> Iterator[SourceRow]:
        """Yield rows from the beginning, without an end, of a process that ends with the iterator;
        raises Invalid as `advance` does.
        """
        process = FmuProcess(self.fmu, self._start, self._limits)
        ahead = max(1, min(MOST_AHEAD, round(AHEAD_S / self.period_s)))
        try:
            first = 0
            while True:
                yield from self._computed(process, first, ahead, {})
                first += ahead
        finally:
            process.close()

    @property
    def missing_limits(self) -> tuple[str, ...]:
        """Sentences about limits that this machine does not have; known once the FMU has begun."""
        return () if self._process is None else self._process.refused

    def close(self) -> None:
        """End the process of `advance` and remove its folder; once is enough, more do no harm."""
        if self._process is not None:
            self._process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _computed(
        self, process: FmuProcess, first: int, count: int, changes: Mapping[int, float]
    ) -> list[SourceRow]:
        """The next rows, asked for in exchanges that are not too large."""
        rows: list[SourceRow] = []
        while len(rows) < count:
            size = min(count - len(rows), MOST_ROWS)
            block = np.frombuffer(process.advance(size, changes), "<f8")
            rows += self._as_rows(block.reshape(size, len(self.signals)), first + len(rows))
            changes = {}
        return rows

    def _as_rows(self, values: np.ndarray, first: int) -> list[SourceRow]:
        if not np.isfinite(values).all():
            row, column = np.argwhere(~np.isfinite(values))[0]
            time_s = (first + int(row)) * self.period_s
            raise Invalid(
                f"the FMU {self.fmu.name} gave {values[row, column]} for"
                f" {self.signals[column].name} at t={time_s:.10g} s",
                hint="a shorter period may keep its solver stable",
            )
        times = (
            round(at * self.period_s / MICROSECOND_S) * 1000
            for at in range(first, first + len(values))
        )
        return [
            SourceRow(time_ns, tuple(row))
            for time_ns, row in zip(times, values.tolist(), strict=True)
        ]

    def _indexed(self, inputs: Mapping[str, float]) -> dict[int, float]:
        """Inputs by index, limited to their ranges; raises Invalid."""
        limited = limited_inputs(self.fmu.name, self.inputs, inputs)
        return {self._input_index[name]: value for name, value in limited.items()}


def load(
    path: Path,
    *,
    period_s: float | None = None,
    parameters: Mapping[str, ParameterValue] | None = None,
) -> FmuModel:
    """Read an FMU's description and make its model; nothing of the FMU runs yet.

    Raises Unknown if there is no such file, Invalid for an FMU, period or parameter that cannot be.
    """
    return FmuModel(description.read(path), period_s=period_s, parameters=parameters)


def _checked_period(fmu: FmuDescription, period_s: float | None) -> float:
    """The step; raises Invalid for one that is out of range or that the FMU says it cannot make."""
    step_s = fmu.fixed_step_s or fmu.step_s or 0.1 if period_s is None else period_s
    if not MICROSECOND_S <= step_s <= LONGEST_PERIOD_S:
        raise Invalid(
            f"period {step_s:g} s of {fmu.name}",
            hint=f"{MICROSECOND_S:g} to {LONGEST_PERIOD_S:g} s",
        )
    fixed_s = fmu.fixed_step_s
    if fixed_s and abs(step_s / fixed_s - round(step_s / fixed_s)) > 1e-9 * step_s / fixed_s:
        raise Invalid(
            f"{fmu.name} steps by {fixed_s:g} s, and the period {step_s:g} s is no multiple of it",
            hint=f"such as {max(1, round(step_s / fixed_s)) * fixed_s:g} s",
        )
    return step_s


def _native_parameters(
    fmu: FmuDescription, values: Mapping[str, ParameterValue]
) -> list[tuple[str, int, float | str]]:
    """Type, reference and value of each; raises Invalid for what the FMU does not have or take."""
    known = {each.name: each for each in fmu.parameters}
    natives = []
    for name, value in values.items():
        if name not in known:
            raise unknown(f"{fmu.name} has no parameter {name[:200]!r}", name, known)
        natives.append((known[name].type, known[name].reference, _native(fmu, known[name], value)))
    return natives


def _native(fmu: FmuDescription, parameter: FmuVariable, value: ParameterValue) -> float | str:
    """The value as the FMU's type takes it; texts such as `0.5` and `true` are read as numbers."""
    where = f"parameter {parameter.name} of {fmu.name} is {value!r}"
    if parameter.type == "String":
        return str(value)
    try:
        number = TRUTH.get(value) if isinstance(value, str) else float(value)
        number = float(value) if number is None else number
    except ValueError as exc:
        raise Invalid(where, hint=f"a number, as its type is {parameter.type}") from exc
    if not math.isfinite(number):
        raise Invalid(where, hint="a finite number")
    if parameter.type == "Boolean" and number not in {0.0, 1.0}:
        raise Invalid(where, hint="true or false")
    if parameter.type not in description.FLOATS and not number.is_integer():
        raise Invalid(where, hint=f"a whole number, as its type is {parameter.type}")
    low = -math.inf if parameter.low is None else parameter.low
    high = math.inf if parameter.high is None else parameter.high
    if not low <= number <= high:
        raise Invalid(where, hint=f"{low:g} to {high:g} {parameter.unit or ''}".strip())
    return number
