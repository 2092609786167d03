"""Facts of the files that are equipment of a scenario: CSV files, FMUs, recordings."""

from collections.abc import Callable
from pathlib import Path

from broker.clock import Clock
from broker.errors import BedError
from simulators import replay
from testbed_scenarios.catalogue import EquipmentFacts
from testbed_scenarios.catalogue import Path as FieldPath
from testbed_scenarios.model import CsvEquipment, FmuEquipment, RecordingEquipment, Scenario


class EquipmentFiles:
    """The content of a scenario's files.

    facts: by the equipment's name.  problems: path of a field -> what is wrong with its file.
    """

    def __init__(self, base: Path, clock: Clock) -> None:
        """base: folder that paths begin at.  clock: says which grants have ended."""
        self.facts: dict[str, EquipmentFacts] = {}
        self.problems: dict[FieldPath, str] = {}
        self._base = base
        self._clock = clock
        self._checked: set[Path] = set()

    def read(self, scenario: Scenario) -> None:
        """Read the files of all equipment."""
        for name, part in scenario.equipment.items():
            path = ("equipment", name)
            match part:
                case CsvEquipment(csv=file):
                    self._read((*path, "csv"), _facts_of_csv, file)
                case FmuEquipment():
                    self._read_fmu(path, part)
                case RecordingEquipment():
                    self._read_recording(path, part)
                case _:
                    pass

    def _read(self, path: FieldPath, facts_of: Callable[[Path], EquipmentFacts], file: str) -> None:
        """Take the facts of a file, or what is wrong with it as a problem of its field."""
        try:
            self.facts[path[1]] = facts_of(self._base / file)
        except BedError as exc:
            self.problems[path] = str(exc)

    def _read_fmu(self, path: FieldPath, part: FmuEquipment) -> None:
        from testbed.scenario import fmu_equipment  # noqa: PLC0415 - few scenarios have one

        self._read((*path, "fmu"), fmu_equipment.facts, part.fmu)
        if part.period_ns is not None and path[1] in self.facts:
            try:
                fmu_equipment.check_period(self._base / part.fmu, part.period_ns)
            except BedError as exc:
                self.problems[*path, "period"] = str(exc)

    def _read_recording(self, path: FieldPath, part: RecordingEquipment) -> None:
        """Take the facts of a recording's stream; its hashes are compared once."""
        from testbed.scenario import recorded_equipment  # noqa: PLC0415 - few scenarios have one

        folder = self._base / part.recording
        field = "recording"
        try:
            if folder not in self._checked:
                recorded_equipment.check(folder, self._clock)
                self._checked.add(folder)
            field = "recording" if part.stream is None else "stream"
            self.facts[path[1]] = recorded_equipment.facts(folder, part.stream)
        except BedError as exc:
            self.problems[*path, field] = str(exc)


def _facts_of_csv(file: Path) -> EquipmentFacts:
    recording = replay.read(file)
    return EquipmentFacts(
        signals=recording.signals,
        first_ns=recording.content[0].time_ns,
        last_ns=recording.content[-1].time_ns,
        rows=len(recording.content),
    )
