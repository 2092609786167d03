"""Equipment for a first scenario from a mapping: a model, or rows in the form of the mapping."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from broker.batch import NUMPY, Column, Series, Source
from broker.clock import NS_PER_S, Clock
from broker.errors import Invalid, Taken
from broker.recordings import bundle
from broker.recordings.bundle import RecordingFacts
from broker.recordings.manifest import RecordingCreator
from broker.streams import Dtype, Signal, StreamSpec
from gateway.mapping.model import Mapping
from simulators import catalogue
from testbed.terminal import invocation
from testbed_scenarios.model import DEFAULT_START_NS

LASTS_S = 300
PERIOD_S = 1.0
MOST_ROWS = 10_000
WAVE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedEquipment:
    """An equipment that stands for a stream of a mapping.

    model: whose signals are those of the stream, empty if there is none.  folder: of the recording
    with made-up rows that takes its place then.  sentence: what was chosen, for its user.
    """

    name: str
    spec: StreamSpec
    model: str
    folder: Path
    sentence: str

    @property
    def period_s(self) -> float:
        """Time between two rows."""
        if self.model:
            return catalogue.model(self.model).period_s
        return max(self.spec.period_s or PERIOD_S, LASTS_S / MOST_ROWS)


def choose(mapping: Mapping, folder: Path, scenario: str) -> list[MappedEquipment]:
    """The equipment for each stream of a mapping; `rig`, `rig-2` and so on.

    folder, scenario: of the scenario file, beside which recordings lie.  Raises Invalid for a
    stream that nothing can stand for.
    """
    chosen = []
    for number, stream in enumerate(mapping.streams, 1):
        address = stream.spec.address
        model = _model_of(stream.spec)
        rows = folder / f"{scenario}-{address.stream}"
        spec = stream.spec if model else _without_arrays(stream.spec)
        if model:
            sentence = f"{address} has the signals of the model {model}, which stands for it"
        else:
            sentence = (
                f"no model has the signals of {address}: {rows} has made-up rows in their form;"
                " put a recording of the machine in its place, by `testbed recording create"
                f" {rows.name} --stream {address}`"
            )
            if left_out := [each.name for each in stream.spec.signals if each.shape]:
                sentence += f"; arrays are left out: {', '.join(left_out)}"
        name = "rig" if number == 1 else f"rig-{number}"
        chosen.append(
            MappedEquipment(name=name, spec=spec, model=model, folder=rows, sentence=sentence)
        )
    return chosen


def _model_of(spec: StreamSpec) -> str:
    """The model with all signals of a stream, empty if there is none."""
    for name, info in catalogue.MODELS.items():
        signals = {signal.name: signal.type for signal in info.signals}
        if all(signals.get(signal.name) == signal.type for signal in spec.signals):
            return name
    return ""


def _without_arrays(spec: StreamSpec) -> StreamSpec:
    """The spec without arrays, which tables of recordings do not have; raises Invalid if none."""
    signals = tuple(signal for signal in spec.signals if not signal.shape)
    if not signals:
        raise Invalid(
            f"{spec.address} has arrays alone, and no model has its signals",
            hint="write the scenario from a model: --from-model",
        )
    return replace(spec, signals=signals)


def write_rows(equipment: MappedEquipment, clock: Clock) -> None:
    """Write a recording of made-up rows; raises Taken if there is something in its place."""
    if equipment.folder.exists():
        raise Taken(f"{equipment.folder} is there already", hint="choose another name")
    address = equipment.spec.address
    facts = RecordingFacts(
        name=equipment.folder.name,
        space="live",
        from_ns=DEFAULT_START_NS,
        to_ns=DEFAULT_START_NS + LASTS_S * NS_PER_S,
        created_ns=clock.now_ns(),
        creator=RecordingCreator(principal="testbed", organisation=address.organisation),
        software={invocation.PROJECT: "scenario init"},
        description=f"made-up rows in the form of {address}, measured nowhere",
        licence="made-up rows: free of any right",
    )
    count = round(LASTS_S / equipment.period_s)
    times_s = np.arange(count) * equipment.period_s
    time_ns = DEFAULT_START_NS + np.round(times_s * NS_PER_S).astype(np.int64)
    quality = np.zeros(count, np.uint8)
    with (
        bundle.create(equipment.folder, facts) as writer,
        writer.stream(equipment.spec, Source.SIMULATED) as table,
    ):
        table.append(
            {
                signal.name: Series(time_ns, _column(signal, times_s), quality)
                for signal in equipment.spec.signals
            }
        )


def _column(signal: Signal, times_s: np.ndarray) -> Column:
    """A slow wave in the middle of a signal's range; no truth, and no text."""
    count = len(times_s)
    if signal.dtype not in {Dtype.FLOAT64, Dtype.INT64}:
        return np.full(count, "" if signal.dtype is Dtype.STRING else False, NUMPY[signal.dtype])
    low = 0.0 if signal.low is None else signal.low
    high = low + 1.0 if signal.high is None else signal.high
    wave = (low + high) / 2 + (high - low) / 4 * np.sin(2 * np.pi * times_s / WAVE_S)
    values: Column = wave.astype(NUMPY[signal.dtype])
    return values
