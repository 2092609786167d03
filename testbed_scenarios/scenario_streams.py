"""The streams of a scenario and their signals, as far as they are known before a run."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from broker.field_findings import unknown
from broker.streams import Signal
from testbed_scenarios import quantities
from testbed_scenarios.catalogue import EquipmentFacts, Path
from testbed_scenarios.findings import ScenarioFinding
from testbed_scenarios.model import Scenario


@dataclass(frozen=True, slots=True)
class ScenarioStreams:
    """Streams of a scenario: name of the stream -> its signals by name.

    None in their place where nobody knows them yet: of a prototype's outputs, and of an equipment
    whose model or file is wrong.
    """

    signals: Mapping[str, Mapping[str, Signal] | None]

    @classmethod
    def of(cls, scenario: Scenario, facts: Mapping[str, EquipmentFacts]) -> Self:
        """The streams of the equipment and of the prototypes of a scenario."""
        streams: dict[str, Mapping[str, Signal] | None] = dict.fromkeys(scenario.equipment)
        for name, equipment in facts.items():
            streams[name] = {signal.name: signal for signal in equipment.signals}
        for name, prototype in scenario.prototypes.items():
            streams |= dict.fromkeys(f"{name}/{output}" for output in prototype.outputs)
        return cls(streams)

    def of_stream(self, path: Path, stream: str) -> Iterator[ScenarioFinding]:
        """The finding about a reference to a stream that is not there."""
        if stream in self.signals:
            return
        outputs = [name for name in self.signals if name.startswith(f"{stream}/")]
        if outputs:
            sentence = f"{stream!r} is a prototype: write which of its streams, {outputs[0]}"
        else:
            sentence = unknown(f"there is no stream {stream!r}", stream, self.signals)
        yield ScenarioFinding(path, sentence)

    def of_signal(self, path: Path, reference: str) -> Iterator[ScenarioFinding]:
        """The finding about a reference to a signal that is not there."""
        stream, name = quantities.signal_parts(reference)
        if f"{stream}/{name}" in self.signals:
            sentence = f"{reference!r} is a stream: write which of its signals, {reference}/SIGNAL"
            yield ScenarioFinding(path, sentence)
            return
        if stream not in self.signals:
            yield from self.of_stream(path, stream)
            return
        signals = self.signals[stream]
        if signals is not None and name not in signals:
            sentence = f"{stream} has no signal {name!r}"
            yield ScenarioFinding(path, unknown(sentence, name, signals))

    def signal(self, reference: str) -> Signal | None:
        """The signal of a reference, None where it is not there or not known yet."""
        stream, name = quantities.signal_parts(reference)
        return (self.signals.get(stream) or {}).get(name)
