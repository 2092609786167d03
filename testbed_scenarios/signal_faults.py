"""Faults of sensors and links, as pure functions on columns of samples.

The functions take the samples of one signal and the span of the fault; samples outside of it stay
as they are.  Random numbers come from a generator that is an argument: `generator(seed, entry)` is
the one of an entry of a timeline.  One number is drawn for each sample in the span, in their order,
so that a fault gives the same samples however they are cut into batches.

`FaultySensor` keeps what a fault needs from one batch to the next.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from broker.batch import BAD, Column, Series, Times
from broker.errors import Invalid
from broker.units import UnitConversion
from testbed_scenarios.held_signal import TimeSpan

_STREAM = 0x7E57
"""Tells the random numbers of faults from others that are drawn from the same seed."""

_UNCHANGED = UnitConversion(1.0)


def generator(seed: int, entry: int) -> np.random.Generator:
    """The random numbers of one entry of a timeline, by its index: the same on every machine."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, entry, _STREAM])))


def in_span(time_ns: Times, span: TimeSpan) -> npt.NDArray[np.bool_]:
    """Which of n instants lie in a span: bool[n]."""
    return (time_ns >= span.from_ns) & (time_ns < span.to_ns)


def stuck(series: Series, span: TimeSpan, before: Series) -> Series:
    """Repeat the last sample before the fault, value and quality, at the times of the fault's.

    before: the last sample before these, or none: then the first one in the span is repeated.
    """
    faulty = in_span(series.time_ns, span)
    earlier = np.flatnonzero(~faulty & (series.time_ns < span.from_ns))
    if len(earlier):
        before = _taken(series, earlier[-1:])
    elif not len(before.time_ns):
        before = _taken(series, np.flatnonzero(faulty)[:1])
    if not len(before.time_ns):
        return series
    values, quality = series.values.copy(), series.quality.copy()
    values[faulty], quality[faulty] = before.values[-1], before.quality[-1]
    return Series(series.time_ns, values, quality)


def drift(series: Series, span: TimeSpan, by: float) -> Series:
    """Add an offset that grows evenly from 0 at the fault's beginning to `by` at its end."""
    elapsed = (series.time_ns - span.from_ns) / span.length_ns
    return _shifted(series, in_span(series.time_ns, span), by * elapsed)


def noise(series: Series, span: TimeSpan, by: float, random: np.random.Generator) -> Series:
    """Add normal noise with the standard deviation `by`."""
    faulty = in_span(series.time_ns, span)
    added = np.zeros(len(faulty))
    added[faulty] = by * random.standard_normal(int(faulty.sum()))
    return _shifted(series, faulty, added)


def spikes(
    series: Series, span: TimeSpan, by: float, share: float, random: np.random.Generator
) -> Series:
    """Add `by` to, or take it from, a share of the samples: each by its own chance."""
    faulty = in_span(series.time_ns, span)
    added = np.zeros(len(faulty))
    chance = random.random(int(faulty.sum()))
    height = np.where(chance < share / 2, by, -by)
    added[faulty] = np.where(chance < share, height, 0.0)
    return _shifted(series, faulty, added)


def dropout(series: Series, span: TimeSpan, share: float, random: np.random.Generator) -> Series:
    """Leave out a share of the samples: each by its own chance, all where the share is 1."""
    faulty = in_span(series.time_ns, span)
    lost = faulty.copy()
    lost[faulty] = random.random(int(faulty.sum())) < share
    return _taken(series, np.flatnonzero(~lost))


def wrong_unit(series: Series, span: TimeSpan, conversion: UnitConversion) -> Series:
    """Convert values as a sensor does that was set to another unit; the spec's unit stays.

    conversion: of `broker.units.conversion(right, wrong)`, or a factor that the scenario states.
    """
    faulty = in_span(series.time_ns, span)
    numbers = _numbers(series)
    return _replaced(series, faulty, numbers * conversion.factor + conversion.offset)


def bad_quality(series: Series, span: TimeSpan, quality: int = BAD) -> Series:
    """Give samples another quality; of a bad one the value is taken away too.

    A sample never becomes better than it was.
    """
    faulty = in_span(series.time_ns, span)
    qualities = np.where(faulty, np.maximum(series.quality, quality), series.quality)
    values = series.values.copy()
    values[faulty & (qualities == BAD)] = _no_value(values)
    return Series(series.time_ns, values, qualities.astype(np.uint8))


def skewed(time_ns: Times, span: TimeSpan, by_ns: int) -> Times:
    """The time stamps of a machine whose clock is ahead by this, or behind if it is below 0.

    At the end of the span time stamps may go back, as those of a clock do that is set right.
    """
    return time_ns + in_span(time_ns, span) * np.int64(by_ns)


def delayed_until(time_ns: Times, span: TimeSpan, by_ns: int, before_ns: int) -> Times:
    """The instants at which samples arrive over a link that is slower by this, as int64[n].

    time_ns: when they were sent, ascending.  before_ns: arrival of the sample before these.  A link
    keeps their order: what is sent after the fault arrives behind what was sent in it.
    """
    arrival_ns = time_ns + in_span(time_ns, span) * np.int64(by_ns)
    return np.maximum.accumulate(np.maximum(arrival_ns, before_ns))


def cut_until(time_ns: Times, span: TimeSpan) -> Times:
    """The instants at which samples arrive over a link that is cut: after it, in their order."""
    return np.where(in_span(time_ns, span), span.to_ns, time_ns)


class SensorFaultKind(StrEnum):
    """Kind of a sensor's fault, by its word in a scenario file."""

    DROPOUT = "dropout"
    """Samples are missing."""
    STUCK = "stuck"
    """The sensor repeats the last value before the fault."""
    DRIFT = "drift"
    """An offset grows evenly, from 0 to `by` at the fault's end."""
    NOISE = "noise"
    """Normal noise of the standard deviation `by` is added."""
    SPIKE = "spike"
    """A `share` of the samples is off by `by`, up or down at random."""
    WRONG_UNIT = "wrong-unit"
    """Values are in `unit` and not in the signal's, or are multiplied by `factor`."""
    BAD_QUALITY = "bad-quality"
    """Samples have the quality `quality`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorFault:
    """A fault of one signal.

    by: of drift, noise and spike, in the signal's unit.  share: of spike and dropout.  conversion:
    of wrong-unit.  quality: of bad-quality.
    """

    kind: SensorFaultKind
    span: TimeSpan
    by: float = 0.0
    share: float = 1.0
    conversion: UnitConversion = _UNCHANGED
    quality: int = BAD

    def __post_init__(self) -> None:
        if not self.span.length_ns:
            raise Invalid(f"a fault {self.kind} without a duration", hint="end it after it begins")
        if not 0 < self.share <= 1:
            raise Invalid(f"a share of {self.share:g} in a fault", hint="above 0, at most 1")


class FaultySensor:
    """One fault on one signal, whose samples come batch by batch, in the order of time."""

    def __init__(self, fault: SensorFault, seed: int, entry: int) -> None:
        """seed: of the run.  entry: index of the fault in the run's timeline."""
        self._fault = fault
        self._random = generator(seed, entry)
        self._before = Series(np.empty(0, np.int64), np.empty(0), np.empty(0, np.uint8))

    def apply(self, series: Series) -> Series:
        """Return the samples that the faulty sensor sends in the place of these.

        Raises Invalid if the fault needs a number and the signal has none.
        """
        fault, span, random = self._fault, self._fault.span, self._random
        match fault.kind:
            case SensorFaultKind.STUCK:
                faulty = self._stuck(series)
            case SensorFaultKind.DRIFT:
                faulty = drift(series, span, fault.by)
            case SensorFaultKind.NOISE:
                faulty = noise(series, span, fault.by, random)
            case SensorFaultKind.SPIKE:
                faulty = spikes(series, span, fault.by, fault.share, random)
            case SensorFaultKind.DROPOUT:
                faulty = dropout(series, span, fault.share, random)
            case SensorFaultKind.WRONG_UNIT:
                faulty = wrong_unit(series, span, fault.conversion)
            case SensorFaultKind.BAD_QUALITY:
                faulty = bad_quality(series, span, fault.quality)
        return faulty

    def _stuck(self, series: Series) -> Series:
        faulty = stuck(series, self._fault.span, self._before)
        healthy_or_stuck = np.flatnonzero(series.time_ns < self._fault.span.to_ns)
        if len(healthy_or_stuck):
            self._before = _taken(faulty, healthy_or_stuck[-1:])
        return faulty


def _taken(series: Series, at: npt.NDArray[np.intp]) -> Series:
    return Series(series.time_ns[at], series.values[at], series.quality[at])


def _numbers(series: Series) -> npt.NDArray[np.float64]:
    """The values as floats; raises Invalid for bools and texts."""
    if series.values.dtype.kind not in "if":
        raise Invalid(
            "the fault changes a number, and the signal holds none",
            hint="choose stuck, dropout or bad-quality, or a signal of numbers",
        )
    return series.values.astype(np.float64)


def _shifted(
    series: Series, faulty: npt.NDArray[np.bool_], added: npt.NDArray[np.float64]
) -> Series:
    numbers = _numbers(series)
    by_sample = added.reshape(-1, *(1,) * (numbers.ndim - 1))
    return _replaced(series, faulty, numbers + by_sample)


def _replaced(
    series: Series, faulty: npt.NDArray[np.bool_], numbers: npt.NDArray[np.float64]
) -> Series:
    """Samples with other numbers where they are faulty and have a value; integers are rounded."""
    at = faulty & (series.quality != BAD)
    values = series.values.copy()
    new = numbers[at]
    values[at] = np.rint(new) if values.dtype.kind == "i" else new
    return Series(series.time_ns, values, series.quality)


def _no_value(values: Column) -> object:
    """The placeholder in a column for a sample without a value."""
    return {"f": float("nan"), "i": 0, "b": False, "O": ""}[values.dtype.kind]
