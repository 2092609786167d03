"""Measures of control quality: overshoot, settling time, energy, cycle time.  Pure.

All take a signal that is held from each sample until the next, over one span; times of which no
value is known are left out.  Step responses are measured relative to the step from the value at the
beginning to the set-point.  Sources: Ogata, Modern Control Engineering (specifications of transient
responses: maximum percent overshoot, settling time into a band of 2 % or 5 %); for steps that do
not begin at 0, the definitions of MATLAB's stepinfo, with the set-point in the place of the
steady-state value.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from broker.clock import NS_PER_S
from testbed_scenarios.held_signal import HeldSignal


class StepResponse(NamedTuple):
    """The response of a signal to a step of its set-point, at the beginning of a span.

    start: value at the beginning, in the signal's unit.  overshoot: distance of the furthest value
    beyond the set-point, as a share of the step, 0 if there is none.  settling_ns: time until the
    signal is within the band around the set-point and stays there; None if it does not.  peak_ns:
    instant of the furthest value beyond the set-point.
    """

    start: float
    overshoot: float
    settling_ns: int | None
    peak_ns: int


def step_response(
    signal: HeldSignal, from_ns: int, *, set_point: float, band: float
) -> StepResponse | None:
    """Measure a step response over the pieces of a signal, which begin at `from_ns` or later.

    band: half of its width as a share of the step, above 0.  Returns None if no value is known, or
    if the signal is at its set-point from the beginning, so that there is no step.
    """
    known = signal.only_known()
    if not len(known):
        return None
    values = known.values.astype(np.float64)
    step = set_point - values[0]
    if step == 0:
        return None
    beyond = (values - set_point) / step
    peak = int(np.argmax(beyond))
    outside = np.flatnonzero(np.abs(values - set_point) > band * abs(step))
    settled = int(outside[-1]) + 1 if len(outside) else 0
    settling_ns = int(known.begin_ns[settled]) - from_ns if settled < len(known) else None
    return StepResponse(
        float(values[0]), max(0.0, float(beyond[peak])), settling_ns, int(known.begin_ns[peak])
    )


def integral(signal: HeldSignal) -> float:
    """The integral over time of a signal's known values, in its unit times seconds.

    Of a power in W it is the energy in J.  Each value counts for the time that it is held.
    """
    known = signal.only_known()
    durations_s = (known.end_ns - known.begin_ns) / NS_PER_S
    return math.fsum((known.values.astype(np.float64) * durations_s).tolist())


def rises(signal: HeldSignal) -> npt.NDArray[np.int64]:
    """The instants at which a signal rises: from false, or 0 or less, to true, or above 0.

    Only the value that is held counts where several samples have one time stamp.  A rise out of a
    time of which nothing is known is none, because it is not known when it was.
    """
    held = signal.end_ns > signal.begin_ns
    is_high = signal.values[held].astype(np.float64) > 0
    known, begin_ns = signal.known[held], signal.begin_ns[held]
    is_rise = known[1:] & is_high[1:] & known[:-1] & ~is_high[:-1]
    instants: npt.NDArray[np.int64] = begin_ns[1:][is_rise]
    return instants


def cycle_times_ns(signal: HeldSignal) -> npt.NDArray[np.int64]:
    """The times from each rise of a signal to the next one: one less than there are rises.

    A cycle in which some value is not known is left out, because a rise may be missing in it.
    """
    instants = rises(signal)
    unknown_ns = signal.begin_ns[~signal.known & (signal.end_ns > signal.begin_ns)]
    before = np.searchsorted(unknown_ns, instants)
    durations_ns: npt.NDArray[np.int64] = np.diff(instants)[np.diff(before) == 0]
    return durations_ns
