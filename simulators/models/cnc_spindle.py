"""A motor spindle that mills: speed, load, heat, and the spectrum of its vibration.

Equations; those with a time constant are solved in closed form over each step:
- speed follows its set point with a time constant.  Cutting power P_c = Q k_c with the rate of
  metal Q = a_p a_e v_f, and k_c = k_c1.1 h^-m_c falling with the chip's mean thickness
  h = f_z √(a_e/D), f_z = v_f/(n z).  Source: Kienzle, Die Bestimmung von Kräften und Leistungen an
  spanenden Werkzeugen und Werkzeugmaschinen, VDI-Z 94 (1952); Altintas, Manufacturing Automation,
  2nd ed.
- torque P/ω; load is power over the rated power; friction of the bearings grows with n².
- the front bearing C dT/dt = friction + a share of the cutting power - G (T - T_ambient).  Source:
  Incropera et al., Fundamentals of Heat and Mass Transfer (transient conduction, lumped
  capacitance).
- lines of the spectrum, f_r = n/60: unbalance at f_r, its velocity growing with n³; tooth passing
  at z f_r and 2 z f_r, growing with the tooth's force; a damaged outer race at k BPFO, an inner
  race at k BPFI with side bands at ± f_r, for k = 1, 2, 3, where
  BPFO = N/2 f_r (1 - d/D_p cos φ), BPFI = N/2 f_r (1 + d/D_p cos φ).
  Source: Randall and Antoni, Rolling element bearing diagnostics: a tutorial, Mech. Syst. Signal
  Process. 25 (2011); ISO 20816-1 for velocity in mm/s as what is measured.
- each line is seen through a Hann window, and the floor is Rayleigh distributed in each bin, as
  that of a discrete Fourier transform of noise.  The effective value is √(Σ A²/2 / 1.5), 1.5 bins
  being the noise bandwidth of that window.  Source: Harris, On the use of windows for harmonic
  analysis with the discrete Fourier transform, Proc. IEEE 66 (1978).
The constants are plausible ones of a spindle of 15 kW with a cutter of 50 mm in steel.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import cos, pi, radians, sin, sqrt
from typing import Any

import numpy as np

from broker.streams import Signal
from simulators.model import SourceValue
from simulators.parameters import parameter
from simulators.stepped import ModelInfo, approach

BINS = 256
"""Bins of the spectrum; the first is at 0 Hz."""
_MM_S = "mm/s"
Spectrum = np.ndarray[Any, np.dtype[np.float64]]
SIGNALS = (
    Signal("Speed", unit="/min", low=0, high=20_000, resolution=0.1, description="of the spindle"),
    Signal("Load", unit="%", low=0, high=200, resolution=0.01, description="of the rated power"),
    Signal("Torque", unit="N.m", low=0, high=500, resolution=0.001, description="of the motor"),
    Signal("Power", unit="kW", low=0, high=60, resolution=0.001, description="of the motor"),
    Signal(
        "Temperature",
        unit="Cel",
        low=0,
        high=150,
        resolution=0.01,
        description="of the front bearing",
    ),
    Signal(
        "VibrationRMS",
        unit=_MM_S,
        low=0,
        high=100,
        resolution=0.001,
        description="effective velocity, over the whole spectrum",
    ),
    *(
        Signal(f"{name} Band", unit=_MM_S, low=0, high=100, resolution=0.001, description=text)
        for name, text in (
            ("Rotation", "effective velocity around the speed of rotation"),
            ("Tooth", "effective velocity around the tooth passing frequency"),
            ("Outer Race", "effective velocity around BPFO and twice and three times it"),
            ("Inner Race", "effective velocity around BPFI and twice and three times it"),
        )
    ),
    Signal(
        "Spectrum",
        unit=_MM_S,
        low=0,
        high=100,
        resolution=0.0001,
        description="amplitude of velocity in equal bins from 0 Hz to the bandwidth",
        shape=(BINS,),
    ),
)
INPUTS = (
    Signal("speed", unit="/min", low=0, high=12_000, description="set point of the speed"),
    Signal("feed", unit="mm/min", low=0, high=4000, description="feed of the cutter"),
)
TOOL, UNBALANCE, OUTER, INNER, LUBRICATION = "tool", "unbalance", "outer", "inner", "lubrication"
FAULTS = {
    TOOL: "the cutter is blunt: up to 60 % more cutting force, so more load and tooth passing",
    UNBALANCE: "a chip in the tool holder: up to five times the vibration at the speed of rotation",
    OUTER: "a pit in the outer race of the front bearing: lines at multiples of BPFO",
    INNER: "a pit in the inner race of the front bearing: lines at and beside multiples of BPFI",
    LUBRICATION: "the front bearing runs dry: up to four times the friction, so it becomes hot",
}
BLUNT, UNBALANCED, PITTED, DRY = 0.6, 4.0, 1.2, 3.0
"""Effects of the whole faults: three that are added to 1, and mm/s of a race's first line."""
HANN_BINS = 1.5
_NEAR = 1e-6
REFERENCE_SPEED = 6000.0
"""/min, at which `unbalance` is given."""


@dataclass(frozen=True, slots=True)
class SpindleConstants:
    """The constants of the spindle, its tool and its cut."""

    rated_power: float = parameter(15, "kW", 1, 50, "power that is a load of 100 %")
    speed_time: float = parameter(0.8, "s", 0.05, 20, "time constant of the speed")
    teeth: float = parameter(3, "1", 1, 12, "teeth of the cutter")
    diameter: float = parameter(50, "mm", 4, 200, "of the cutter")
    depth: float = parameter(2, "mm", 0.05, 20, "axial depth of cut")
    width: float = parameter(30, "mm", 0.1, 200, "radial width of cut, at most the diameter")
    specific_force: float = parameter(1700, "N/mm2", 300, 4000, "k_c1.1 of the metal")
    chip_exponent: float = parameter(0.25, "1", 0, 0.5, "m_c of the metal")
    friction: float = parameter(0.4, "kW", 0, 5, "of all bearings at 6000 /min")
    ambient: float = parameter(22, "Cel", 0, 45, "temperature of the hall")
    capacity: float = parameter(6, "kJ/K", 0.5, 100, "heat capacity of the bearing and its seat")
    conductance: float = parameter(20, "W/K", 1, 200, "heat that the cooling takes away")
    bearing_share: float = parameter(0.9, "1", 0, 1, "share of the friction in the front bearing")
    cutting_share: float = parameter(0.02, "1", 0, 0.2, "share of the cutting power that warms it")
    balls: float = parameter(19, "1", 5, 40, "rolling elements of the front bearing")
    ball_diameter: float = parameter(11.1, "mm", 1, 19, "of a rolling element")
    pitch_diameter: float = parameter(90, "mm", 20, 300, "of the circle of their centres")
    contact_angle: float = parameter(15, "deg", 0, 45, "of the rolling elements")
    unbalance: float = parameter(0.4, "mm/s", 0, 10, "line at the speed of rotation, at 6000 /min")
    tooth_line: float = parameter(0.5, "um/s/N", 0, 10, "tooth passing per force of a tooth")
    floor: float = parameter(0.01, "mm/s", 0.0001, 1, "mean of a bin without lines")
    bandwidth: float = parameter(5000, "Hz", 100, 20_000, "upper end of the spectrum")


@dataclass(frozen=True, slots=True)
class DefectFrequencies:
    """Frequencies of a bearing as multiples of the speed of rotation: BPFO and BPFI."""

    outer: float
    inner: float


def defect_frequencies(constants: SpindleConstants) -> DefectFrequencies:
    """The ball pass frequencies of the outer and the inner race; Randall and Antoni, 2011."""
    ratio = constants.ball_diameter / constants.pitch_diameter
    ratio *= cos(radians(constants.contact_angle))
    half = constants.balls / 2
    return DefectFrequencies(half * (1 - ratio), half * (1 + ratio))


class _Spindle:
    """The spindle at its default speed, with its bearing at the temperature of equilibrium."""

    draws = 7

    def __init__(self, constants: SpindleConstants, events: np.random.Generator) -> None:
        self._c = constants
        self._random = events
        self._defects = defect_frequencies(constants)
        self._width_hz = constants.bandwidth / (BINS - 1)
        self._squares = np.zeros(BINS)  # (mm/s)², of the amplitude in each bin
        self._speed = MODEL.input_defaults["speed"]
        healthy = dict.fromkeys(FAULTS, 0.0)
        cutting_w, friction_w = self._powers_w(MODEL.input_defaults["feed"], healthy)
        self._bearing_c = self._end_c(cutting_w, friction_w)

    def step(
        self,
        duration_s: float,
        inputs: Mapping[str, float],
        levels: Mapping[str, float],
        gauss: Sequence[float],
    ) -> tuple[SourceValue, ...]:
        """See `Equations`."""
        c = self._c
        self._speed = approach(self._speed, inputs["speed"], duration_s / c.speed_time)
        cutting_w, friction_w = self._powers_w(inputs["feed"], levels)
        constants_passed = duration_s * c.conductance / (c.capacity * 1000)
        end_c = self._end_c(cutting_w, friction_w)
        self._bearing_c = approach(self._bearing_c, end_c, constants_passed)
        self._shake(cutting_w, levels, gauss[4:])
        measured = np.minimum(np.round(self.spectrum, 4), 100.0)
        return *self._sensed(cutting_w + friction_w, gauss), tuple(measured.tolist())

    def _powers_w(self, feed: float, levels: Mapping[str, float]) -> tuple[float, float]:
        """Power of the cut and of the friction.  feed: mm/min."""
        c, turns = self._c, self._speed
        friction_w = c.friction * 1000 * (turns / REFERENCE_SPEED) ** 2
        friction_w *= 1 + DRY * levels[LUBRICATION]
        if feed <= 0 or turns < 1:
            return 0.0, friction_w
        width = min(c.width, c.diameter)
        chip = feed / (turns * round(c.teeth)) * sqrt(width / c.diameter)
        specific = c.specific_force * chip**-c.chip_exponent * (1 + BLUNT * levels[TOOL])
        return c.depth * width * feed / 60 * specific / 1000, friction_w

    def _end_c(self, cutting_w: float, friction_w: float) -> float:
        c = self._c
        heat_w = c.bearing_share * friction_w + c.cutting_share * cutting_w
        return c.ambient + heat_w / c.conductance

    @property
    def spectrum(self) -> Spectrum:
        """Amplitude of the velocity in each of `BINS` bins at the last step, mm/s."""
        return np.sqrt(self._squares)

    def _shake(self, cutting_w: float, levels: Mapping[str, float], gauss: Sequence[float]) -> None:
        """Make the spectrum anew: its floor, and the lines of the present speed, which waver."""
        c, turn_hz = self._c, self._speed / 60
        self._squares = self._random.standard_exponential(BINS) * (4 / pi * c.floor**2)
        share = self._speed / REFERENCE_SPEED
        unbalance = c.unbalance * share**3 * (1 + UNBALANCED * levels[UNBALANCE])
        self._draw(turn_hz, unbalance * (1 + 0.1 * gauss[0]))
        for at_hz, size in self._tooth_lines(cutting_w, turn_hz):
            self._draw(at_hz, size * (1 + 0.1 * gauss[1]))
        pit = PITTED * share * max(0.0, 1 + 0.25 * gauss[2])
        for k in (1, 2, 3):
            if levels[OUTER] > 0:
                self._draw(k * self._defects.outer * turn_hz, pit * levels[OUTER] / k)
            if levels[INNER] > 0:
                at_hz, size = k * self._defects.inner * turn_hz, pit * levels[INNER] / k
                self._draw(at_hz, size)
                self._draw(at_hz - turn_hz, size / 2)
                self._draw(at_hz + turn_hz, size / 2)

    def _tooth_lines(self, cutting_w: float, turn_hz: float) -> list[tuple[float, float]]:
        if cutting_w <= 0:
            return []
        radius_m = self._c.diameter / 2000
        force = cutting_w / (2 * pi * turn_hz * radius_m)
        size, at_hz = self._c.tooth_line * force / 1000, round(self._c.teeth) * turn_hz
        return [(at_hz, size), (2 * at_hz, size / 3)]

    def _draw(self, at_hz: float, size: float) -> None:
        """Add a line to the four bins that a Hann window shows it in; beyond the end it is lost."""
        place = at_hz / self._width_hz
        first = int(place) - 1
        for at in range(max(first, 0), min(first + 4, BINS)):
            self._squares[at] += (size * hann_response(at - place)) ** 2

    def _effective(self, sums: Sequence[float], *at_hz: float) -> float:
        """Effective velocity in the five bins around each of these frequencies together.

        sums: of the squares in all bins below each, `BINS` + 1.
        """
        power = 0.0
        for each in at_hz:
            place = min(round(each / self._width_hz), BINS + 2)
            power += sums[min(place + 3, BINS)] - sums[max(place - 2, 0)]
        return round(sqrt(max(power, 0.0) / 2 / HANN_BINS), 3)

    def _sensed(self, power_w: float, gauss: Sequence[float]) -> tuple[float, ...]:
        c, turn_hz = self._c, self._speed / 60
        tooth_hz = round(c.teeth) * turn_hz
        outer_hz, inner_hz = self._defects.outer * turn_hz, self._defects.inner * turn_hz
        sums = [0.0, *np.cumsum(self._squares).tolist()]
        power_kw = power_w / 1000 * (1 + 0.01 * gauss[0])
        torque = power_w / (2 * pi * turn_hz) if self._speed >= 1 else 0.0
        return (
            round(max(self._speed + 0.5 * gauss[1], 0.0), 1),
            round(100 * power_kw / c.rated_power, 2),
            round(torque * (1 + 0.01 * gauss[2]), 3),
            round(power_kw, 3),
            round(self._bearing_c + 0.05 * gauss[3], 2),
            round(sqrt(sums[-1] / 2 / HANN_BINS), 3),
            self._effective(sums, turn_hz),
            self._effective(sums, tooth_hz, 2 * tooth_hz),
            self._effective(sums, outer_hz, 2 * outer_hz, 3 * outer_hz),
            self._effective(sums, inner_hz, 2 * inner_hz, 3 * inner_hz),
        )


def hann_response(bins: float) -> float:
    """Amplitude of a line of 1 that lies so many bins away, seen through a Hann window.

    Source: Harris, as in the module's docstring.
    """
    if abs(bins) < _NEAR:
        return 1.0
    if abs(abs(bins) - 1) < _NEAR:
        return 0.5
    return abs(sin(pi * bins) / (pi * bins * (1 - bins * bins)))


MODEL = ModelInfo(
    name="cnc-spindle",
    description="a motor spindle that mills: load, heat, and its vibration's spectrum with bands",
    stream="spindle",
    period_s=1.0,
    signals=SIGNALS,
    inputs=INPUTS,
    input_defaults={"speed": 6000.0, "feed": 1200.0},
    faults=FAULTS,
    constants=SpindleConstants,
    equations=_Spindle,
)
