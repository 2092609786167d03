"""Everything that is observed in a run, in memory: for its verdict, and for fed-back inputs."""

import math
from collections.abc import Mapping, Sequence

import structlog

from broker import api_client, codec
from broker.batch import BAD, Batch
from broker.codec import Document
from broker.errors import BedError, Corrupt
from broker.namespace import StreamAddress
from broker.streams import StreamSpec
from testbed.scenario.plan import RunPlan
from testbed_scenarios import observations
from testbed_scenarios.observations import Observations, ResourceSamples, RunEvent, TruthInterval

log = structlog.get_logger()


class RunRecord:
    """The batches of all streams of a run, by the names that its file has for them."""

    def __init__(
        self,
        plan: RunPlan,
        api: api_client.Api,
        names: Mapping[StreamAddress, str] | None = None,
    ) -> None:
        """api: with a credential that reads the specs of what is observed.  names: of observed
        streams that are no outputs of prototypes.
        """
        self.problems: list[str] = []
        """Sentences about outputs that could not be read."""
        self._plan = plan
        self._api = api
        self._names = {address: name for name, address in plan.outputs().items()}
        self._names |= names or {}
        self._specs: dict[tuple[StreamAddress, int], StreamSpec] = {}
        self._newest_spec: dict[str, StreamSpec] = {}
        self._batches: dict[str, list[Batch]] = {}
        self._undecoded: list[tuple[StreamAddress, Document]] = []
        self._last: dict[StreamAddress, dict[str, int]] = {}

    def note_spec(self, name: str, spec: StreamSpec) -> None:
        """Make the spec of a stream known."""
        self._newest_spec[name] = spec
        self._batches.setdefault(name, [])

    def note(self, name: str, batches: Sequence[Batch]) -> None:
        """Add batches of a stream whose spec is known."""
        self._batches[name] += batches

    def observe(self, _quantum: int, outputs: Sequence[tuple[StreamAddress, Document]]) -> None:
        """Add what prototypes published; as `testbed.scenario.coordinator` calls it."""
        self._undecoded += outputs

    async def settle(self) -> None:
        """Decode what was observed since; what does not fit its spec is a problem of the run."""
        undecoded, self._undecoded = self._undecoded, []
        for address, document in undecoded:
            name = self._names[address]
            if document.epoch is not None and document.seq is not None:
                self._last.setdefault(address, {})[document.epoch] = document.seq
            try:
                spec = await self._spec(address, document.spec_version)
                batch, misfits = codec.fit(document, spec)
            except (Corrupt, BedError) as exc:
                self._problem(f"a batch of {name} cannot be read: {exc}")
                continue
            if misfits:
                self._problem(
                    f"{len(misfits)} samples of {name} do not fit its spec: {misfits[0].reason}"
                )
            self.note_spec(name, spec)
            self.note(name, [batch])

    async def _spec(self, address: StreamAddress, version: int) -> StreamSpec:
        if (address, version) not in self._specs:
            self._specs[address, version] = await self._api.spec(address, version)
        return self._specs[address, version]

    def _problem(self, sentence: str) -> None:
        if sentence not in self.problems:
            log.warning("output was not read", reason=sentence)
            self.problems.append(sentence)

    def since(self, name: str, count: int) -> Sequence[Batch]:
        """The batches of a stream after the first `count` of them."""
        return self._batches.get(name, [])[count:]

    def spec(self, name: str) -> StreamSpec | None:
        """The spec of a stream; None while nothing of it was published."""
        return self._newest_spec.get(name)

    @property
    def last_outputs(self) -> Mapping[StreamAddress, Mapping[str, int]]:
        """The last batch of each output: stream -> epoch -> seq."""
        return self._last

    @property
    def samples(self) -> int:
        """The number of all samples so far."""
        return sum(len(batch) for batches in self._batches.values() for batch in batches)

    def newest(self, signal: str) -> float | None:
        """The newest value of a signal such as `controller/valve/opening`; None without one."""
        stream, _, name = signal.rpartition("/")
        for batch in reversed(self._batches.get(stream, ())):
            series = batch[name]
            usable = series.quality != BAD
            if usable.any():
                value = float(series.values[usable][-1])
                return value if math.isfinite(value) else None
        return None

    def observed(
        self,
        end_ns: int,
        truth: Mapping[str, tuple[TruthInterval, ...]],
        events: tuple[RunEvent, ...],
        resources: Mapping[str, ResourceSamples],
    ) -> Observations:
        """All of it, for the verdict; end_ns: the instant that the run came to."""
        return Observations(
            start_ns=self._plan.scenario.start_ns,
            end_ns=end_ns,
            streams={
                name: observations.joined(batches, self._newest_spec[name])
                for name, batches in self._batches.items()
            },
            signals={
                name: {signal.name: signal for signal in spec.signals}
                for name, spec in self._newest_spec.items()
            },
            truth=truth,
            events=events,
            gaps={
                name: tuple(gap for batch in batches for gap in batch.gaps)
                for name, batches in self._batches.items()
            },
            resources=resources,
        )
