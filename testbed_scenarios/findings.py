"""Findings of a check: the path of a field in a scenario file, and what is wrong with it."""

from collections.abc import Iterator

from broker.field_findings import FieldFinding
from testbed_scenarios.catalogue import ParameterFacts, Path
from testbed_scenarios.quantities import PhysicalValue


class ScenarioFinding(FieldFinding):
    """A mistake at a path of a scenario file."""

    __slots__ = ()


def of_unit(path: Path, amount: PhysicalValue, unit: str, what: str) -> Iterator[ScenarioFinding]:
    """The finding about an amount whose unit is not the one that it is taken in."""
    if unit == "1" and amount.unit not in {"", "1"}:
        yield ScenarioFinding(path, f"{what} has no unit; leave {amount.unit} out")
    elif amount.unit not in {"", unit}:
        yield ScenarioFinding(
            path, f"{what} is in {unit}, not in {amount.unit}; convert the number"
        )


def of_range(
    path: Path, amount: PhysicalValue, facts: ParameterFacts, name: str
) -> Iterator[ScenarioFinding]:
    """The findings about a number outside the range of a parameter or an input, or in no unit of
    it.
    """
    yield from of_unit(path, amount, facts.unit, name)
    too_low = facts.low is not None and amount.number < facts.low
    if too_low or (facts.high is not None and amount.number > facts.high):
        unit = "" if facts.unit == "1" else f" {facts.unit}"
        low = "…" if facts.low is None else f"{facts.low:g}"
        high = "…" if facts.high is None else f"{facts.high:g}"
        yield ScenarioFinding(path, f"{amount.number:g} is outside {low} to {high}{unit}")
    elif facts.is_whole and not amount.number.is_integer():
        yield ScenarioFinding(path, f"{name} is a whole number, and {amount.number:g} is none")
