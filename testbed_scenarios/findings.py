"""Findings of a check: the path of a field in a scenario file, and what is wrong with it."""

import difflib
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from testbed_scenarios.catalogue import ParameterFacts, Path
from testbed_scenarios.quantities import PhysicalValue

MOST_LISTED = 12
"""Names that a sentence lists where none is near."""


@dataclass(frozen=True, slots=True)
class ScenarioFinding:
    """A mistake at a path.  is_name: the field's name is wrong, not its value."""

    path: Path
    sentence: str
    is_name: bool = False


def unknown(sentence: str, name: str, known: Collection[str]) -> str:
    """A sentence about a name that is not known, with the nearest one, or those that are known."""
    near = difflib.get_close_matches(name, list(known), 1)
    if near:
        return f"{sentence}; did you mean {near[0]!r}?"
    if not known:
        return f"{sentence}: there is none at all"
    listed = ", ".join(sorted(known)[:MOST_LISTED])
    return f"{sentence}; known are {listed}{', …' if len(known) > MOST_LISTED else ''}"


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
