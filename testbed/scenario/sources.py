"""The equipment of a run in virtual time: the batches of each quantum, with their truth."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from broker import api_client, messages
from broker.batch import NO_SAMPLE, Batch, ColumnArray, MayRepeat, Source, Wide
from broker.bus import client
from broker.clock import NS_PER_S
from broker.errors import Invalid
from broker.namespace import EquipmentKind, StreamAddress, StreamTopic, Verb
from broker.streams import Dtype, Signal, StreamSpec, Trigger
from testbed.scenario.blocking_source import BlockingSource
from testbed.scenario.plan import RunPlan
from testbed.scenario.run_end import EquipmentRefused
from testbed.scenario.run_record import RunRecord
from testbed.scenario.sensor_link import EquipmentLink, FaultySensors
from testbed.scenario.source_rows import EquipmentSource, SourceColumns
from testbed_scenarios.observations import TruthInterval

ANOMALY, CAUSE = "anomaly", "cause"
TRUTH_SIGNALS = (
    Signal(ANOMALY, Dtype.BOOL, description="whether anything is wrong with it"),
    Signal(CAUSE, Dtype.STRING, description="the faults that it has, joined by +"),
)
MOST_VALUES = 5_000
"""Values of a batch: its text stays below the greatest message."""
EPOCH_LETTERS = 26


@dataclass(slots=True)
class _Numbering:
    """The numbers of a stream's batches: an epoch that the run's space decides, and seq."""

    address: StreamAddress
    epoch: str
    seq: int = 0

    @classmethod
    def of(cls, plan: RunPlan, address: StreamAddress) -> "_Numbering":
        digest = hashlib.sha256(f"{plan.space}/{address}".encode())
        return cls(address, digest.hexdigest()[:EPOCH_LETTERS])

    def next(self) -> int:
        self.seq += 1
        return self.seq


@dataclass(frozen=True, slots=True, kw_only=True)
class InputStepAt:
    """A new value of an input, from an instant on."""

    at_ns: int
    input: str
    value: float


@dataclass(slots=True, kw_only=True)
class SimulatedEquipment:
    """An equipment of a run.

    feeds: input -> the signal whose newest value it takes.  held: input -> the value that it stays
    at.  steps: new values, ascending in time.  truth: its faults, those of sensors too; None where
    they are not known.  usual_period_ns: between two rows; 0 where there is none.
    """

    name: str
    source: EquipmentSource
    sensors: FaultySensors
    link: EquipmentLink
    feeds: Mapping[str, str] = field(default_factory=dict)
    held: dict[str, float] = field(default_factory=dict)
    steps: Sequence[InputStepAt] = ()
    truth: tuple[TruthInterval, ...] | None = None
    usual_period_ns: int = 0

    def advance(self, from_ns: int, until_ns: int) -> SourceColumns:
        """The rows of its source between two instants, with the steps of its inputs."""
        pieces = []
        for step in (step for step in self.steps if from_ns <= step.at_ns < until_ns):
            pieces.append(self.source.advance(step.at_ns, self.held))
            self.held[step.input] = step.value
        pieces.append(self.source.advance(until_ns, self.held))
        return SourceColumns.joined(pieces)


class RunSources:
    """All equipment of a run; the coordinator asks it for the batches of one quantum after the
    other.
    """

    def __init__(
        self, plan: RunPlan, equipment: Sequence[SimulatedEquipment], record: RunRecord
    ) -> None:
        """record: gets what is published, and knows the signals that feed inputs."""
        self._plan = plan
        self._equipment = equipment
        self._record = record
        self._versions: dict[StreamAddress, int] = {}
        self._numberings: dict[StreamAddress, _Numbering] = {}

    @property
    def is_fed_back(self) -> bool:
        """Whether an input is fed by a signal, which must be published before its next rows."""
        return any(each.feeds for each in self._equipment)

    @property
    def truth(self) -> Mapping[str, tuple[TruthInterval, ...]]:
        """The faults of each equipment whose faults are known."""
        return {each.name: each.truth for each in self._equipment if each.truth is not None}

    async def register(self, api: api_client.Api) -> list[StreamSpec]:
        """Register the equipment and its streams; returns the specs under their versions."""
        registered: list[StreamSpec] = []
        specs = self._specs()
        for each in self._equipment:
            address = self._plan.deployment(each.name)
            await api.register_equipment(address, name=each.name, kind=EquipmentKind.SIMULATED)
            own = [spec for spec in specs if spec.address.owner == address]
            registered += await api.register_specs(own)
        return registered

    async def publish_specs(self, bus: client.Bus, specs: Sequence[StreamSpec]) -> None:
        """Publish the specs, retained, for readers to decode the batches with."""
        for spec in specs:
            topic = StreamTopic(self._plan.space, Verb.SPEC, spec.address)
            await bus.publish(str(topic), messages.encode_spec(spec), retain=True)

    def _specs(self) -> list[StreamSpec]:
        proposed = []
        for each in self._equipment:
            period_s = each.usual_period_ns / NS_PER_S
            measured = self._plan.stream(each.name)
            proposed.append(_spec(measured, each.source.signals, period_s))
            if each.truth is not None:
                proposed.append(_spec(self._plan.truth(each.name), TRUTH_SIGNALS, period_s))
        return proposed

    async def close(self) -> None:
        """End the processes that compute rows."""
        for each in self._equipment:
            if isinstance(each.source, BlockingSource):
                await each.source.close()

    def take_registered(self, specs: Sequence[StreamSpec]) -> None:
        """Take the specs under the versions that the registry gave them."""
        for spec in specs:
            self._versions[spec.address] = spec.version
            self._numberings[spec.address] = _Numbering.of(self._plan, spec.address)
        by_address = {spec.address: spec for spec in specs}
        for each in self._equipment:
            self._record.note_spec(each.name, by_address[self._plan.stream(each.name)])

    @property
    def last(self) -> Mapping[StreamAddress, Mapping[str, int]]:
        """The last batch of each stream: stream -> epoch -> seq."""
        return {
            numbering.address: {numbering.epoch: numbering.seq}
            for numbering in self._numberings.values()
            if numbering.seq
        }

    async def batches(self, quantum: int) -> list[tuple[StreamAddress, Batch]]:
        """The batches of a quantum, counted from 1; as the coordinator asks for them."""
        await self._record.settle()
        until_ns = self._plan.scenario.start_ns + quantum * self._plan.scenario.quantum_ns
        from_ns = until_ns - self._plan.scenario.quantum_ns
        batches: list[tuple[StreamAddress, Batch]] = []
        computed = [
            (each, await self._advanced(each, from_ns, until_ns)) for each in self._equipment
        ]
        for each, rows in computed:
            measured = self._plan.stream(each.name)
            names = [signal.name for signal in each.source.signals]
            arrived = each.link.carry(each.sensors.apply(rows, names), until_ns)
            frames = [_frames(part, each.source.signals) for part in _portions(arrived)]
            published = [self._batch(measured, part, each.link) for part in frames if part]
            self._record.note(each.name, published)
            batches += [(measured, batch) for batch in published]
            if each.truth is not None and len(rows):
                truth = self._plan.truth(each.name)
                for part in _portions(_truth_of(rows, each.truth)):
                    batches.append((truth, self._batch(truth, _frames(part, TRUTH_SIGNALS))))
        return batches

    async def _advanced(
        self, each: SimulatedEquipment, from_ns: int, until_ns: int
    ) -> SourceColumns:
        """The rows of an equipment in a quantum; raises EquipmentRefused where its source fails."""
        advance = partial(self._advance, each, from_ns, until_ns)
        try:
            if isinstance(each.source, BlockingSource):
                return await each.source.call(advance)
            return advance()
        except Invalid as exc:
            raise EquipmentRefused(exc.message, name=each.name, hint=exc.hint) from exc

    def _advance(self, each: SimulatedEquipment, from_ns: int, until_ns: int) -> SourceColumns:
        """The rows of an equipment in a quantum, with its inputs as they are then."""
        for name, signal in each.feeds.items():
            value = self._record.newest(signal)
            if value is not None:
                each.held[name] = value
        return each.advance(from_ns, until_ns)

    def _batch(
        self, address: StreamAddress, frames: tuple[Wide, ...], link: EquipmentLink | None = None
    ) -> Batch:
        numbering = self._numberings[address]
        return Batch(
            self._versions[address],
            frames,
            Source.SIMULATED,
            epoch=numbering.epoch,
            seq=numbering.next(),
            may_repeat=MayRepeat.TIMES if link is not None and link.is_skewed else None,
        )


def _spec(address: StreamAddress, signals: tuple[Signal, ...], period_s: float) -> StreamSpec:
    return StreamSpec(address, signals, trigger=Trigger.TIMESTAMP, period_s=period_s)


def _portions(rows: SourceColumns) -> Iterator[SourceColumns]:
    """Rows in portions of MOST_VALUES values at most, none for no rows."""
    a_row = sum(column.shape[1] if column.ndim > 1 else 1 for column in rows.values)
    most = max(1, MOST_VALUES // a_row)
    for begin in range(0, len(rows), most):
        yield rows.part(slice(begin, begin + most))


def _frames(rows: SourceColumns, signals: Sequence[Signal]) -> tuple[Wide, ...]:
    """Rows as the frames of a batch: one, and one more for each signal that lacks some samples."""
    is_whole = [not (codes == NO_SAMPLE).any() for codes in rows.quality]
    whole = [at for at, each in enumerate(is_whole) if each]
    frames = [_wide(rows, signals, whole)] if whole else []
    for at in (at for at, each in enumerate(is_whole) if not each):
        there = rows.part(rows.quality[at] != NO_SAMPLE)
        if len(there):
            frames.append(_wide(there, signals, [at]))
    return tuple(frames)


def _wide(rows: SourceColumns, signals: Sequence[Signal], chosen: Sequence[int]) -> Wide:
    """The chosen columns of rows as a frame."""
    names = tuple(signals[at].name for at in chosen)
    columns = [rows.values[at] for at in chosen]
    quality = {signals[at].name: rows.quality[at] for at in chosen if rows.quality[at].any()}
    if all(signals[at].type is Dtype.FLOAT64 for at in chosen):
        return Wide(rows.time_ns, ColumnArray(names, np.array(columns)), quality)
    return Wide(rows.time_ns, dict(zip(names, columns, strict=True)), quality)


def _truth_of(rows: SourceColumns, truth: Sequence[TruthInterval]) -> SourceColumns:
    """The truth about rows: whether anything is wrong, and what."""
    causes = np.full(len(rows), "", object)
    for each in truth:
        first, last = np.searchsorted(rows.time_ns, (each.from_ns, each.to_ns))
        for at in range(first, last):
            causes[at] = f"{causes[at]}+{each.kind}" if causes[at] else str(each.kind)
    return SourceColumns.good(rows.time_ns, (causes != "", causes))
