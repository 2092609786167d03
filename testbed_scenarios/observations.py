"""The data of a run that its verdict is computed from.  Pure.

Names are those of the scenario file: `rig` is the stream of the equipment `rig`, `detector/score` a
stream of the prototype `detector`, and `rig/Pressure` or `detector/score/anomaly` a signal.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from broker.batch import NUMPY, Batch, Gap, Quality, Series, Times
from broker.streams import Signal, StreamSpec


@dataclass(frozen=True, slots=True)
class TruthInterval:
    """A fault that was there, from `from_ns` on and before `to_ns`.

    kind: as the scenario names it.  signal: the signal that a fault of a sensor was on; empty for
    one of the equipment itself.
    """

    kind: str
    from_ns: int
    to_ns: int
    signal: str = ""


@dataclass(frozen=True, slots=True)
class RunEvent:
    """Something that happened at an instant of a run, such as a server's restart.

    on: the equipment that it happened to; empty for one that concerns all.
    """

    kind: str
    at_ns: int
    on: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class ResourceSamples:
    """The resources that one prototype took, as columns of n measurements; in any order.

    time_ns: int64[n], instants of the run's time.  cpu: float64[n], share of one core since the
    measurement before.  memory: float64[n], bytes.  lag_ns: int64[n], wall time until it answered.
    """

    time_ns: Times
    cpu: npt.NDArray[np.float64]
    memory: npt.NDArray[np.float64]
    lag_ns: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observations:
    """Everything that was observed in a run, from `start_ns` on and before `end_ns`.

    streams: stream -> signal -> all its samples, in any order.  signals: stream -> signal -> its
    part of the spec, with unit and resolution.  truth: equipment -> its faults; one is missing
    whose faults are not known.  gaps: stream -> the gaps that were stated.
    resources: by prototype.
    """

    start_ns: int
    end_ns: int
    streams: Mapping[str, Mapping[str, Series]]
    signals: Mapping[str, Mapping[str, Signal]] = field(default_factory=dict)
    truth: Mapping[str, tuple[TruthInterval, ...]] = field(default_factory=dict)
    events: tuple[RunEvent, ...] = ()
    gaps: Mapping[str, tuple[Gap, ...]] = field(default_factory=dict)
    resources: Mapping[str, ResourceSamples] = field(default_factory=dict)

    def series(self, name: str) -> Series:
        """The samples of a signal such as `rig/Pressure`; empty if there are none."""
        stream, _, signal = name.rpartition("/")
        return self.streams.get(stream, {}).get(signal, empty_series())

    def unit(self, name: str) -> str:
        """The UCUM code of a signal's unit, `1` where it has none or is not known."""
        stream, _, signal = name.rpartition("/")
        spec = self.signals.get(stream, {}).get(signal)
        return "1" if spec is None else spec.unit

    def known_signals(self, name: str) -> str:
        """The end of a sentence about a signal without samples that its stream does not have.

        It lists the signals that the stream has; empty where the signal is one of them.
        """
        stream, _, signal = name.rpartition("/")
        known = self.streams.get(stream, {}).keys() | self.signals.get(stream, {}).keys()
        if signal in known or not known:
            return ""
        return f"; the signals of {stream} are {', '.join(sorted(known))}"

    def gaps_of(self, name: str) -> tuple[Gap, ...]:
        """The gaps of a signal such as `rig/Pressure`."""
        stream, _, signal = name.rpartition("/")
        return tuple(
            gap for gap in self.gaps.get(stream, ()) if not gap.signals or signal in gap.signals
        )


def empty_series() -> Series:
    """A series without samples."""
    return Series(np.empty(0, np.int64), np.empty(0), np.empty(0, np.uint8))


def joined(batches: Iterable[Batch], spec: StreamSpec) -> dict[str, Series]:
    """Join the batches of one stream into one series for each signal of its spec.

    A signal that no batch has gets an empty series of its dtype.
    """
    pieces: dict[str, list[Series]] = {signal.name: [] for signal in spec.signals}
    for batch in batches:
        for name, series in batch.series():
            pieces[name].append(series)
    return {
        signal.name: _concatenated(pieces[signal.name], NUMPY[signal.dtype])
        for signal in spec.signals
    }


def _concatenated(pieces: list[Series], dtype: np.dtype[np.generic]) -> Series:
    times: list[Times] = [piece.time_ns for piece in pieces]
    qualities: list[Quality] = [piece.quality for piece in pieces]
    if not pieces:
        return Series(np.empty(0, np.int64), np.empty(0, dtype), np.empty(0, np.uint8))
    values = np.concatenate([piece.values for piece in pieces])
    return Series(
        np.concatenate(times), values.astype(dtype, copy=False), np.concatenate(qualities)
    )
