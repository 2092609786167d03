"""The rows of an equipment at wall time: those that it has in virtual time, one after the other."""

from collections.abc import Iterator
from typing import Any

from broker.batch import BAD
from broker.streams import Signal
from simulators.model import SourceRow
from testbed.scenario.plan import RunPlan
from testbed.scenario.source_rows import SourceColumns
from testbed.scenario.sources import SimulatedEquipment


class MachineRows:
    """A `RowSource` of an equipment of a run, with the faults of its sensors."""

    def __init__(self, plan: RunPlan, equipment: SimulatedEquipment) -> None:
        """equipment: without inputs that are fed by a signal."""
        self._scenario = plan.scenario
        self._quanta = plan.quanta
        self._equipment = equipment

    @property
    def signals(self) -> tuple[Signal, ...]:
        """Its signals."""
        return self._equipment.source.signals

    def rows(self) -> Iterator[SourceRow]:
        """Yield all rows of the run, computed a quantum at a time.

        Raises Invalid where an FMU crashes, hangs or fails.
        """
        each, quantum_ns = self._equipment, self._scenario.quantum_ns
        names = [signal.name for signal in self.signals]
        for quantum in range(self._quanta):
            from_ns = self._scenario.start_ns + quantum * quantum_ns
            columns = each.advance(from_ns, from_ns + quantum_ns, lambda _: None)
            yield from _rows(each.sensors.apply(columns, names))


def _rows(columns: SourceColumns) -> Iterator[SourceRow]:
    """Columns as rows; a value that stands for none is none."""
    cells = [_cells(*pair) for pair in zip(columns.values, columns.quality, strict=True)]
    codes = [column.tolist() for column in columns.quality]
    for at, time_ns in enumerate(columns.time_ns.tolist()):
        quality = tuple(column[at] for column in codes)
        values = tuple(column[at] for column in cells)
        yield SourceRow(time_ns, values, quality=quality if any(quality) else ())


def _cells(values: Any, quality: Any) -> list[Any]:
    cells = values.tolist()
    if values.ndim > 1:
        cells = [tuple(cell) for cell in cells]
    usable = (quality != BAD).tolist()
    return [cell if is_usable else None for cell, is_usable in zip(cells, usable, strict=True)]
