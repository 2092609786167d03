"""FMUs as equipment of a scenario: their facts for its check, and their rows in a run."""

from functools import partial
from pathlib import Path

from broker.clock import NS_PER_S
from simulators.fmu import description, units
from simulators.fmu.description import FmuVariable
from simulators.fmu.model import TRUTH, FmuModel
from testbed.scenario.blocking_source import BlockingSource
from testbed.scenario.source_rows import ModelSource
from testbed_scenarios.catalogue import EquipmentFacts, ParameterFacts
from testbed_scenarios.model import FmuEquipment


def facts(file: Path) -> EquipmentFacts:
    """The facts of an FMU, of which nothing runs.

    A parameter that is a text is left out: a scenario has numbers.  Raises Unknown if there is no
    such file, Invalid for an FMU that cannot run here.
    """
    fmu = description.read(file)
    return EquipmentFacts(
        signals=fmu.signals,
        inputs={
            signal.name: ParameterFacts(
                default=_start(variable),
                unit=signal.unit,
                low=signal.low,
                high=signal.high,
                description=signal.description,
            )
            for signal, variable in zip(fmu.input_signals, fmu.inputs, strict=True)
        },
        parameters={
            each.name: _parameter(each) for each in fmu.parameters if each.type != "String"
        },
        description=fmu.description,
        period_ns=round(FmuModel(fmu).period_s * NS_PER_S),
    )


def _parameter(variable: FmuVariable) -> ParameterFacts:
    is_truth = variable.type == "Boolean"
    return ParameterFacts(
        default=_start(variable),
        unit=units.ucum(variable.unit, {}) or units.NONE,
        low=0 if is_truth else variable.low,
        high=1 if is_truth else variable.high,
        is_whole=variable.type not in description.FLOATS,
        description=variable.description,
    )


def _start(variable: FmuVariable) -> float:
    """The value that a variable has where none is given; FMI's own is 0."""
    text = variable.start or "0"
    try:
        return TRUTH[text] if text in TRUTH else float(text)
    except ValueError:
        return 0.0


def check_period(file: Path, period_ns: int) -> None:
    """Raise Invalid for a period that an FMU cannot step by."""
    FmuModel(description.read(file), period_s=period_ns / NS_PER_S)


def source(file: Path, part: FmuEquipment, start_ns: int) -> tuple[BlockingSource, int]:
    """The rows of an FMU, and their period in ns; its process starts with the first.

    start_ns: instant of the first row.  Raises Invalid for what the FMU does not have or take.
    """
    model = FmuModel(
        description.read(file),
        period_s=None if part.period_ns is None else part.period_ns / NS_PER_S,
        parameters={name: amount.number for name, amount in part.parameters.items()},
    )
    rows = ModelSource(model, start_ns, None)
    notes = partial(_notes, file.name, model)
    return BlockingSource(rows, model.close, notes), rows.period_ns


def _notes(file: str, model: FmuModel) -> list[str]:
    return [f"the FMU {file} ran without a limit: {each}" for each in model.missing_limits]
