"""Facts that a scenario is checked against: the models that exist, and what its files hold.

Plain data: `testbed.scenario` fills it from `simulators` and from the files beside the scenario.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from broker.streams import Signal

Path = tuple[str, ...]
"""Names of fields from the root of a scenario file down; an item of a list is its index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterFacts:
    """A number that a model or an FMU takes.

    low, high: its range, None where it is open.  is_whole: whether it has no fraction.
    """

    default: float | None = None
    unit: str = "1"
    low: float | None = None
    high: float | None = None
    is_whole: bool = False
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EquipmentFacts:
    """The facts of a model, or of the file behind an equipment.

    inputs: `default` is the value of an input that nothing feeds; None if it must be fed.
    faults: name -> description; a file has none.  period_ns: time between rows where the scenario
    does not say it; None of a recording.  first_ns, last_ns: instants of a recording's first and
    last row.  rows: of a recording.
    """

    signals: tuple[Signal, ...]
    inputs: Mapping[str, ParameterFacts] = field(default_factory=dict)
    parameters: Mapping[str, ParameterFacts] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    period_ns: int | None = None
    first_ns: int | None = None
    last_ns: int | None = None
    rows: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """All that is known before a run.

    models: by name.  files: name of an equipment of the scenario -> its FMU, CSV file or recording;
    one that could not be read is left out, and is among `problems`: path of a field -> what is
    wrong with the file that it names, and what to do.
    """

    models: Mapping[str, EquipmentFacts]
    files: Mapping[str, EquipmentFacts] = field(default_factory=dict)
    problems: Mapping[Path, str] = field(default_factory=dict)
