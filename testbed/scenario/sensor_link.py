"""Faults between a machine and the testbed: of its sensors, and of the link that its rows take."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from broker import units as units_of_ucum
from broker.batch import BAD, NO_SAMPLE, UNCERTAIN, Column, Quality, Series, Times
from broker.units import UnitConversion
from testbed.scenario.source_rows import SourceColumns
from testbed_scenarios import signal_faults
from testbed_scenarios.held_signal import TimeSpan
from testbed_scenarios.signal_faults import FaultySensor, SensorFault
from testbed_scenarios.timeline import PlannedEntry
from testbed_scenarios.timeline_model import (
    FaultQuality,
    LinkFault,
    LinkFaultKind,
    SignalFault,
)


class FaultySensors:
    """The sensors of an equipment, with the faults that a timeline gives them."""

    def __init__(self, faults: Mapping[str, Sequence[FaultySensor]]) -> None:
        """faults: signal -> its faults, in the order in which they act."""
        self._faults = faults

    @classmethod
    def of(
        cls,
        timeline: Sequence[PlannedEntry],
        equipment: str,
        units: Mapping[str, str],
        *,
        start_ns: int,
        seed: int,
    ) -> "FaultySensors":
        """The faults of a timeline that are on signals of an equipment; units: of the signals."""
        faults: dict[str, list[FaultySensor]] = {}
        for index, entry in enumerate(timeline):
            if isinstance(entry, SignalFault):
                owner, _, signal = entry.on.partition("/")
                if owner == equipment:
                    fault = _sensor_fault(entry, start_ns, units[signal])
                    sensor = FaultySensor(fault, seed, index)
                    faults.setdefault(signal, []).append(sensor)
        return cls(faults)

    def apply(self, rows: SourceColumns, names: Sequence[str]) -> SourceColumns:
        """The rows as the sensors send them; names: of the signals, in the order of the columns."""
        if not self._faults or not len(rows):
            return rows
        values, quality = list(rows.values), list(rows.quality)
        for at, name in enumerate(names):
            series = Series(rows.time_ns, values[at], quality[at])
            for fault in self._faults.get(name, ()):
                series = fault.apply(series)
            values[at], quality[at] = _over(rows.time_ns, series)
        return SourceColumns(rows.time_ns, tuple(values), tuple(quality))


def _over(time_ns: Times, series: Series) -> tuple[Column, Quality]:
    """Values and qualities at n instants; NO_SAMPLE at those that have none of the samples."""
    if len(series.time_ns) == len(time_ns):
        return series.values, series.quality
    values = np.zeros((len(time_ns), *series.values.shape[1:]), series.values.dtype)
    quality = np.full(len(time_ns), NO_SAMPLE, np.uint8)
    at = np.searchsorted(time_ns, series.time_ns)
    values[at], quality[at] = series.values, series.quality
    return values, quality


def _sensor_fault(entry: SignalFault, start_ns: int, unit: str) -> SensorFault:
    return SensorFault(
        kind=entry.fault,
        span=TimeSpan(start_ns + entry.from_ns, start_ns + entry.to_ns),
        by=0.0 if entry.by is None else entry.by.number,
        share=entry.faulty_share,
        conversion=_conversion(entry, unit),
        quality=BAD if entry.quality is FaultQuality.BAD else UNCERTAIN,
    )


def _conversion(entry: SignalFault, unit: str) -> UnitConversion:
    """The conversion of a wrong-unit, none of other faults."""
    if entry.unit is not None:
        return units_of_ucum.conversion(unit, entry.unit)
    return UnitConversion(1.0 if entry.factor is None else entry.factor)


@dataclass(slots=True)
class EquipmentLink:
    """The way of an equipment's rows: they arrive in order, late where a fault says so.

    A row that would arrive after the end of the run never does.
    """

    start_ns: int
    faults: Sequence[LinkFault] = ()
    _waiting: list[SourceColumns] = field(default_factory=list)
    _due: list[Times] = field(default_factory=list)
    _newest_due_ns: int = -(2**63)

    @property
    def is_skewed(self) -> bool:
        """Whether the machine's clock is wrong at times, so that time stamps may repeat."""
        return any(fault.fault is LinkFaultKind.CLOCK_SKEW for fault in self.faults)

    def carry(self, rows: SourceColumns, until_ns: int) -> SourceColumns:
        """The rows that arrive before an instant, of those that are sent now and were before."""
        if not self.faults:
            return rows
        if len(rows):
            due_ns = self._due_of(rows.time_ns)
            self._newest_due_ns = int(due_ns[-1])
            self._waiting.append(self._stamped(rows))
            self._due.append(due_ns)
        if not self._waiting:
            return rows
        waiting, due_ns = SourceColumns.joined(self._waiting), np.concatenate(self._due)
        count = int(np.searchsorted(due_ns, until_ns))
        self._waiting, self._due = [waiting.part(slice(count, None))], [due_ns[count:]]
        return waiting.part(slice(count))

    def _due_of(self, time_ns: Times) -> Times:
        """The instants at which rows arrive."""
        due_ns = time_ns
        for fault, span in self._spans(LinkFaultKind.DELAY):
            late_ns = signal_faults.delayed_until(time_ns, span, fault.by or 0, -(2**63))
            due_ns = np.maximum(due_ns, late_ns)
        for _, span in self._spans(LinkFaultKind.CUT):
            due_ns = np.maximum(due_ns, signal_faults.cut_until(time_ns, span))
        arrived_ns: Times = np.maximum.accumulate(np.maximum(due_ns, self._newest_due_ns))
        return arrived_ns

    def _stamped(self, rows: SourceColumns) -> SourceColumns:
        """Rows with the time stamps of the machine's clock."""
        stamps_ns = rows.time_ns
        for fault, span in self._spans(LinkFaultKind.CLOCK_SKEW):
            skewed_ns = signal_faults.skewed(rows.time_ns, span, fault.by or 0)
            stamps_ns = stamps_ns + skewed_ns - rows.time_ns
        return SourceColumns(stamps_ns, rows.values, rows.quality)

    def _spans(self, kind: LinkFaultKind) -> Iterator[tuple[LinkFault, TimeSpan]]:
        for fault in self.faults:
            if fault.fault is kind:
                yield (
                    fault,
                    TimeSpan(self.start_ns + fault.from_ns, self.start_ns + fault.to_ns),
                )
