"""A run of a scenario: how far it is, and what is known once it is over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from broker.clock import NS_PER_S
from broker.errors import Invalid
from testbed.processes import program_end
from testbed.processes.program_end import PrototypeOutcome
from testbed.scenario.clock_statistics import ClockStatistics
from testbed.scenario.plan import RunPlan
from testbed_scenarios.observations import Observations


class PrototypeRefused(Invalid):
    """A prototype that never took part, so that there is nothing to judge.

    name: in the file.  Its last lines stand below the sentence and its hint.
    """

    code = "prototype_refused"

    def __init__(
        self, sentence: str, *, name: str, hint: str = "", lines: Sequence[str] | None = None
    ) -> None:
        """lines: the program's last ones; None where nothing is to be said about them."""
        advice = f" ({hint})" if hint else ""
        printed = "" if lines is None else f"\n{program_end.last_lines(lines)}"
        super().__init__(f"{sentence}{advice}{printed}")
        self.name = name


class EquipmentRefused(Invalid):
    """An equipment whose source fails, so that there is nothing to judge.  name: in the file."""

    code = "equipment_refused"

    def __init__(self, message: str, *, name: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.name = name


@dataclass(slots=True)
class RunProgress:
    """How far a run is, to be displayed.

    quantum: the one that is worked on, of `quanta`.  began_ns: monotonic time at which the first
    one began.
    """

    phase: str = "waiting"
    quantum: int = 0
    quanta: int = 0
    quantum_ns: int = 0
    began_ns: int = 0
    is_over: bool = False

    def speed(self, monotonic_ns: int) -> float:
        """Seconds of the run's time in a second so far."""
        passed_ns = monotonic_ns - self.began_ns
        return self.quantum * self.quantum_ns / passed_ns if self.began_ns and passed_ns else 0.0

    @property
    def virtual_s(self) -> float:
        """The run's time so far."""
        return self.quantum * self.quantum_ns / NS_PER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """A run that is over.

    observed: all its data, up to where it came.  incidents: sentences about what makes it fail
    whatever was observed.  programs: how each prototype ended.  started_s, wall_s: real time until
    the first quantum began, and of the whole.  notes: sentences about how it ran that are no
    failure.
    """

    plan: RunPlan
    observed: Observations
    statistics: ClockStatistics
    incidents: tuple[str, ...]
    programs: Mapping[str, PrototypeOutcome]
    started_s: float
    wall_s: float
    notes: tuple[str, ...] = ()
