"""The runs of a scenario: every combination of its sweep's values, with every seed."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from broker import pydantic_checks, yaml_document
from broker.errors import Invalid
from broker.field_findings import unknown
from testbed_scenarios.findings import ScenarioFinding
from testbed_scenarios.model import Scenario, SweepValue

MOST_RUNS = 1_000
_OPEN = frozenset({"parameters", "inputs"})
"""Fields with names of the user's own, which a sweep may add to a scenario."""
_NEVER = {"seed": "write `seeds: 1..10` instead", "seeds": "write it at the top", "sweep": ""}
"""Fields that a sweep may not change, with what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioVariant:
    """One run of a scenario.

    scenario: with the values of the sweep in it, and `seed` as its seed.  values: path of each
    swept field -> its value.  label: tells it from the other runs, such as
    `shut_opening=0.6, seed 3`; empty if there is only one.
    """

    scenario: Scenario
    seed: int
    values: Mapping[str, SweepValue]
    label: str


def run_count(scenario: Scenario, seeds: Sequence[int] = ()) -> int:
    """The number of runs of a scenario; see `variants`."""
    combinations = math.prod(len(values) for values in scenario.sweep.values())
    return combinations * len(seeds or scenario.seeds or (scenario.seed,))


def variants(scenario: Scenario, seeds: Sequence[int] = ()) -> list[ScenarioVariant]:
    """All runs, those of one combination together, in the order of the file.

    seeds: override those of the scenario, unless empty.  Raises Invalid for more than MOST_RUNS,
    and for a value that does not fit its field, which `findings` tells with its place.
    """
    if sentence := _excess(scenario, seeds):
        raise Invalid(sentence)
    chosen = tuple(seeds or scenario.seeds or (scenario.seed,))
    names = _short_names(scenario.sweep)
    runs = []
    for values in itertools.product(*scenario.sweep.values()):
        combination = dict(zip(scenario.sweep, values, strict=True))
        changed = with_values(scenario, combination)
        words = [f"{names[path]}={value}" for path, value in combination.items()]
        for seed in chosen:
            parts = [*words, f"seed {seed}"] if len(chosen) > 1 else words
            runs.append(
                ScenarioVariant(
                    scenario=changed.model_copy(update={"seed": seed}),
                    seed=seed,
                    values=combination,
                    label=", ".join(parts),
                )
            )
    return runs


def with_values(scenario: Scenario, values: Mapping[str, SweepValue]) -> Scenario:
    """The scenario without its sweep and with other values at some dotted paths; raises Invalid."""
    document = scenario.to_document()
    document.pop("sweep", None)
    document.pop("seeds", None)
    for path, value in values.items():
        _set(document, path, value)
    try:
        return Scenario.from_document(document)
    except ValidationError as exc:
        raise Invalid("; ".join(_sentences(exc))) from exc


def findings(scenario: Scenario) -> Iterator[ScenarioFinding]:
    """Everything wrong with the sweep: too many runs, no such field, values that do not fit it."""
    if sentence := _excess(scenario):
        yield ScenarioFinding(("sweep",) if scenario.sweep else ("seeds",), sentence)
        return
    for path, values in scenario.sweep.items():
        if not values:
            yield ScenarioFinding(
                ("sweep", path), "it has no values; write some, such as [0.6, 0.7]"
            )
        for index, value in enumerate(values):
            try:
                with_values(scenario, {path: value})
            except _NoSuchField as exc:
                yield ScenarioFinding(("sweep", path), exc.message, is_name=True)
                break
            except Invalid as exc:
                yield ScenarioFinding(("sweep", path, str(index)), exc.message)


class _NoSuchField(Invalid):
    """A path of a sweep that leads nowhere."""


def _excess(scenario: Scenario, seeds: Sequence[int] = ()) -> str:
    """The sentence about too many runs, empty if there are not."""
    count = run_count(scenario, seeds)
    if count <= MOST_RUNS:
        return ""
    factors = [f"{len(values)} values" for values in scenario.sweep.values()]
    factors.append(f"{len(seeds or scenario.seeds or (scenario.seed,))} seeds")
    return (
        f"these are {count:,} runs ({' by '.join(factors)}), and {MOST_RUNS:,} are the most; leave"
        " some out"
    )


def _set(document: dict[str, Any], path: str, value: SweepValue) -> None:
    """Set a value at a dotted path of a document; raises _NoSuchField."""
    steps = path.split(".")
    if steps[0] in _NEVER:
        raise _NoSuchField(f"`{steps[0]}` cannot be swept; {_NEVER[steps[0]]}".removesuffix("; "))
    around: Any = document
    for step in steps[:-1]:
        around = _inside(around, step)
    last = steps[-1]
    if isinstance(around, list):
        _inside(around, last)
        around[int(last)] = value
    elif isinstance(around, dict):
        around[last] = value
    else:
        raise _NoSuchField(f"there is no field {last!r} in {'.'.join(steps[:-1])}")


def _inside(around: Any, step: str) -> Any:
    """The part of a document at a step; parameters and inputs begin empty."""
    if isinstance(around, list):
        if step.isdecimal() and int(step) < len(around):
            return around[int(step)]
        raise _NoSuchField(f"there is no entry {step!r}; they are 0 to {len(around) - 1}")
    if isinstance(around, dict):
        if step in _OPEN:
            return around.setdefault(step, {})
        if step in around:
            return around[step]
        raise _NoSuchField(unknown(f"there is no field {step!r}", step, around))
    raise _NoSuchField(f"there is nothing inside of it, and no {step!r}")


def _sentences(error: ValidationError) -> Iterator[str]:
    for details in error.errors():
        steps = [str(step) for step in details["loc"] if not yaml_document.is_tag(step)]
        if details["type"] == "extra_forbidden":
            yield f"{'.'.join(steps)}: there is no such field"
        else:
            yield f"{'.'.join(steps)}: {pydantic_checks.sentence(details)}"


def _short_names(sweep: Mapping[str, object]) -> Mapping[str, str]:
    """The last step of each path, or all of it where two end alike."""
    lasts = [path.rpartition(".")[2] for path in sweep]
    return {
        path: last if lasts.count(last) == 1 else path
        for path, last in zip(sweep, lasts, strict=True)
    }
