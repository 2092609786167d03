"""A line of three stations with a buffer between each two, and blocking after service.

Discrete events, each handled at its exact instant, so the period changes nothing but when the line
is looked at:
- a station takes a part when it is free and the buffer before it has one, works on it, and gives it
  into the buffer behind it; where that is full it is *blocked* and keeps the part, where the buffer
  before it is empty it is *starved*.  Source: Buzacott and Shanthikumar, Stochastic Models of
  Manufacturing Systems, 1993 (flow lines with blocking after service).
- the time that a part takes is gamma distributed, with a mean and a coefficient of variation:
  0 always the mean, 1 exponential.  With 1, no breakdowns and no buffers three equal stations reach
  22/39 = 0.564 of a station's rate.  Source: Hunt, Sequential arrays of waiting lines, Operations
  Research 4 (1956).
- a station breaks down after an exponential time of work, not while it waits, and its repair takes
  an exponential time.  Two equal stations of rate 1, breakdown rate p and repair rate r with a
  buffer of N reach (N r (r + p) + 2 r) / (N (r + p)² + 2 r + 4 p) where material flows.  Source:
  Buzacott, Automatic transfer lines with buffer stocks, Int. J. of Production Research 5 (1967);
  Gershwin, Manufacturing Systems Engineering, 1994 (two machines, continuous material).
- power is that of the belts and of the drives of the stations that work.
Time, work and repair are integrated exactly: they are straight lines between events.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import exp, inf

import numpy as np

from broker.streams import Signal
from simulators.parameters import parameter
from simulators.stepped import ModelInfo

STATIONS = 3
MOST_BUFFER = 100


class StationState(IntEnum):
    """State of a station, as its signal shows it."""

    STARVED = 0
    WORKING = 1
    BLOCKED = 2
    DOWN = 3


_STATES = "0 starved, 1 working, 2 blocked, 3 down"
SIGNALS = (
    *(
        Signal(f"Station{at} State", low=0, high=3, resolution=1, description=_STATES)
        for at in (1, 2, 3)
    ),
    Signal("Buffer1", low=0, high=MOST_BUFFER, resolution=1, description="parts before station 2"),
    Signal("Buffer2", low=0, high=MOST_BUFFER, resolution=1, description="parts before station 3"),
    Signal("Parts In Line", low=0, high=2 * MOST_BUFFER + 3, resolution=1, description="in all"),
    Signal("Parts Done", low=0, high=1e9, resolution=1, description="since the start"),
    Signal(
        "Throughput",
        unit="/min",
        low=0,
        high=1000,
        resolution=0.001,
        description="parts done, averaged over about five minutes",
    ),
    Signal("Power", unit="kW", low=0, high=100, resolution=0.001, description="belts and drives"),
)
INPUTS = (
    Signal(
        "speed", low=0.1, high=1.5, description="of stations and belts, as a share of the rated"
    ),
    Signal("release", unit="/min", low=0, high=600, description="most parts that are let in"),
)
JAM, WEAR, BREAKDOWNS = "jam", "wear", "breakdowns"
FAULTS = {
    JAM: "the belt before station 2 jams: that station starves, and station 1 is blocked",
    WEAR: "station 3 is worn and slow: up to three times the time for a part, the line fills up",
    BREAKDOWNS: "station 2 breaks down up to thirty times as often",
}
SLOWER, MORE_OFTEN = 2.0, 29.0
"""Effects of the whole faults, added to 1."""
AVERAGE_S = 300.0
MIDDLE, LAST = 1, 2
_EPSILON = 1e-9
"""s; a station's work of less is done."""


@dataclass(frozen=True, slots=True)
class LineConstants:
    """The line's constants."""

    time_1: float = parameter(6, "s", 0.01, 600, "mean time of station 1 for a part")
    time_2: float = parameter(6, "s", 0.01, 600, "mean time of station 2 for a part")
    time_3: float = parameter(6, "s", 0.01, 600, "mean time of station 3 for a part")
    variation: float = parameter(0.3, "1", 0, 1, "coefficient of variation of these times")
    buffer_1: float = parameter(8, "1", 0, MOST_BUFFER, "places of the buffer before station 2")
    buffer_2: float = parameter(8, "1", 0, MOST_BUFFER, "places of the buffer before station 3")
    up_time: float = parameter(1200, "s", 10, 1e9, "mean time of work between breakdowns")
    down_time: float = parameter(45, "s", 0.1, 3600, "mean time of a repair")
    belt_power: float = parameter(0.8, "kW", 0, 50, "of the belts at rated speed")
    station_power: float = parameter(1.5, "kW", 0, 15, "of a station that works at rated speed")


class _Station:
    """A station: the work left on its part, and what is left until its breakdown or repair."""

    __slots__ = ("down_s", "has_part", "left_s", "up_s")

    def __init__(self, up_s: float) -> None:
        self.has_part = False
        self.left_s = 0.0  # of work at rated speed; 0 with a part: done, and perhaps blocked
        self.up_s = up_s  # of work until it breaks down
        self.down_s = 0.0  # until it is repaired

    @property
    def state(self) -> StationState:
        """Its state, as its signal shows it."""
        if self.down_s > 0:
            return StationState.DOWN
        if not self.has_part:
            return StationState.STARVED
        return StationState.WORKING if self.left_s > 0 else StationState.BLOCKED


class _Line:
    """The line, empty at first."""

    draws = 1

    def __init__(self, constants: LineConstants, events: np.random.Generator) -> None:
        self._c = constants
        self._random = events
        self._means_s = (constants.time_1, constants.time_2, constants.time_3)
        self._places = (round(constants.buffer_1), round(constants.buffer_2))
        self._stations = [_Station(self._up_s()) for _ in range(STATIONS)]
        self._buffers = [0, 0]
        self._wait_s = 0.0  # until the next part may be let in
        self._done = 0
        self._average = 0.0

    def step(
        self,
        duration_s: float,
        inputs: Mapping[str, float],
        levels: Mapping[str, float],
        gauss: Sequence[float],
    ) -> tuple[float, ...]:
        """See `Equations`."""
        speed, release = inputs["speed"], inputs["release"]
        interval_s = 60 / release if release > 0 else inf
        self._wait_s = min(self._wait_s, interval_s)
        rates = [speed, speed, speed / (1 + SLOWER * levels[WEAR])]
        wear = [1.0, 1 + MORE_OFTEN * levels[BREAKDOWNS], 1.0]
        jammed = levels[JAM] >= 0.5
        left_s, done = duration_s, self._done
        while left_s > 0:
            self._move(interval_s, jammed=jammed)
            piece_s = min(left_s, self._next_s(rates, wear))
            self._pass(piece_s, rates, wear)
            left_s -= piece_s
        self._move(interval_s, jammed=jammed)
        share = exp(-duration_s / AVERAGE_S)
        rate = 60 * (self._done - done) / duration_s
        self._average = rate + (self._average - rate) * share
        return self._sensed(speed, gauss)

    def _next_s(self, rates: Sequence[float], wear: Sequence[float]) -> float:
        """Time until the next event."""
        next_s = self._wait_s if self._wait_s > 0 else inf
        for station, rate, factor in zip(self._stations, rates, wear, strict=True):
            if station.down_s > 0:
                next_s = min(next_s, station.down_s)
            elif station.left_s > 0:
                next_s = min(next_s, station.left_s / rate, station.up_s / factor)
        return next_s

    def _pass(self, duration_s: float, rates: Sequence[float], wear: Sequence[float]) -> None:
        """Let time pass in which nothing happens before its end."""
        self._wait_s = max(0.0, self._wait_s - duration_s)
        for station, rate, factor in zip(self._stations, rates, wear, strict=True):
            if station.down_s > 0:
                station.down_s -= duration_s
                if station.down_s < _EPSILON:
                    station.down_s = 0.0
            elif station.left_s > 0:
                station.left_s -= duration_s * rate
                station.up_s -= duration_s * factor
                if station.left_s < _EPSILON:
                    station.left_s = 0.0
                if station.up_s < _EPSILON:
                    station.up_s = self._up_s()
                    station.down_s = self._random.exponential(self._c.down_time) + _EPSILON

    def _move(self, interval_s: float, *, jammed: bool) -> None:
        """Move every part that can go on, from the end of the line to its beginning.

        One pass is enough: a place becomes free only behind a part that has just moved on.
        """
        for at in reversed(range(STATIONS)):
            station = self._stations[at]
            if station.has_part and station.left_s == 0 and station.down_s == 0:
                self._give(at, jammed=jammed)
            if not station.has_part and station.down_s == 0:
                self._take(at, interval_s, jammed=jammed)

    def _give(self, at: int, *, jammed: bool) -> None:
        """Let a station give its part to what is behind it, if that has a place."""
        station = self._stations[at]
        if at == LAST:
            self._done += 1
            station.has_part = False
            return
        following = self._stations[at + 1]
        stopped = jammed and at + 1 == MIDDLE
        if not (following.has_part or following.down_s or self._buffers[at] or stopped):
            self._load(at + 1)
        elif self._buffers[at] < self._places[at]:
            self._buffers[at] += 1
        else:
            return
        station.has_part = False

    def _take(self, at: int, interval_s: float, *, jammed: bool) -> None:
        """Let a free station take a part from before it, if there is one."""
        if at == 0:
            if self._wait_s == 0 and interval_s < inf:
                self._wait_s = interval_s
                self._load(0)
        elif self._buffers[at - 1] and not (jammed and at == MIDDLE):
            self._buffers[at - 1] -= 1
            self._load(at)

    def _load(self, at: int) -> None:
        """Put a part on a station."""
        station, variation = self._stations[at], self._c.variation
        work_s = self._means_s[at]
        if variation > 0:
            work_s *= self._random.gamma(variation**-2, variation**2)
        station.has_part = True
        station.left_s = max(work_s, _EPSILON)

    def _up_s(self) -> float:
        return float(self._random.exponential(self._c.up_time)) + _EPSILON

    def _sensed(self, speed: float, gauss: Sequence[float]) -> tuple[float, ...]:
        states = [station.state for station in self._stations]
        working = states.count(StationState.WORKING)
        in_line = sum(self._buffers) + sum(station.has_part for station in self._stations)
        power = speed * (self._c.belt_power + self._c.station_power * working)
        return (
            *map(float, states),
            *map(float, self._buffers),
            float(in_line),
            float(self._done),
            round(self._average, 3),
            round(power * (1 + 0.01 * gauss[0]), 3),
        )


MODEL = ModelInfo(
    name="conveyor-line",
    description="three stations with two buffers between them: parts, blocking and breakdowns",
    stream="line",
    period_s=1.0,
    signals=SIGNALS,
    inputs=INPUTS,
    input_defaults={"speed": 1.0, "release": 60.0},
    faults=FAULTS,
    constants=LineConstants,
    equations=_Line,
)
