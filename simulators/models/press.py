"""A heated hydraulic press that moulds parts: platens, a cylinder, its oil, and a tool that wears.

Equations, each solved in closed form over every piece of a step in which the phase of the stroke
does not change, so any period is stable, and exact where inputs and faults stand still:
- platens C dT/dt = P - G (T - T_ambient) - G_part (T - T_charge), the last while a charge is
  pressed.  Source: Incropera et al., Fundamentals of Heat and Mass Transfer (transient conduction,
  lumped capacitance).
- pressure V/β dp/dt = K (p_set - p) - L p: what the valve lets in, less what leaks past the seal,
  and likewise towards the return line where the press is open.  Source: Merritt, Hydraulic Control
  Systems, 1967 (continuity with the bulk modulus β).
- force F = p A of the piston; the pump's power p (K (p_set - p) + idle flow) / η, which ends in the
  oil as heat, likewise a lumped capacitance.  Source: Merritt.
- tool wear grows with each stroke by h = k p_contact s (hardness in k): depth, coefficient, contact
  pressure, sliding distance; the cavity, and so the part, becomes thicker by it.  Source: Archard,
  Contact and Rubbing of Flat Surfaces, J. Appl. Phys. 24 (1953).
- a part is thicker, too, where the force is low: thickness falls by a compliance times the force.
The ram's way is a straight line in time in each phase.  The constants are plausible ones of a press
of 500 kN with platens of 60 kg of steel, of no particular machine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from broker.streams import Signal
from simulators.parameters import parameter
from simulators.stepped import ModelInfo, approach

SIGNALS = (
    Signal(
        "Platen Temperature", unit="Cel", low=0, high=400, resolution=0.01, description="platens"
    ),
    Signal("Oil Temperature", unit="Cel", low=0, high=120, resolution=0.01, description="tank"),
    Signal("Pressure", unit="bar", low=0, high=400, resolution=0.01, description="in the cylinder"),
    Signal("Force", unit="kN", low=0, high=1300, resolution=0.01, description="of the ram"),
    Signal(
        "Position", unit="mm", low=-5, high=305, resolution=0.01, description="opening of the tool"
    ),
    Signal(
        "Heater Power", unit="kW", low=0, high=15, resolution=0.001, description="of both platens"
    ),
    Signal(
        "Motor Power", unit="kW", low=0, high=40, resolution=0.001, description="of the oil pump"
    ),
    Signal(
        "Part Thickness",
        unit="mm",
        low=0,
        high=10,
        resolution=0.001,
        description="of the last part",
    ),
    Signal("Strokes", unit="1", low=0, high=1e9, resolution=1, description="parts since the start"),
)
INPUTS = (
    Signal("heater", unit="kW", low=0, high=6, description="power of the heater of both platens"),
    Signal("pressure", unit="bar", low=20, high=250, description="set point of the pressing phase"),
)
HEATER, LEAK, VALVE, ABRASION = "heater", "leak", "valve", "abrasion"
FAULTS = {
    HEATER: "heater rods burn out, half of them at most: the platens cool down slowly",
    LEAK: "the cylinder's seal leaks: less pressure and force, more motor power, warmer oil",
    VALVE: "the pressure valve sticks: pressure comes up to twenty times as slowly",
    ABRASION: "hard particles in the charge: the tool wears 300 times as fast, and parts stay"
    " thicker",
}
BAR, KILO = 1e5, 1e3
LITRES_A_MINUTE = 1e-3 / 60
"""m³/s"""
RETURN_BAR = 10.0
"""Pressure that the pump works against while nothing is pressed."""
HEATER_LOST, LEAKAGE, STICKING, ABRASIVE = 0.5, 0.03, 19.0, 299.0
"""Effects of the whole faults: share, L/min/bar, and two factors that are added to 1."""
SCATTER_MM = 0.002
"""Standard deviation of parts from a press that does not change."""


@dataclass(frozen=True, slots=True)
class PressConstants:
    """The press's constants."""

    ambient: float = parameter(22, "Cel", 0, 45, "temperature of the hall")
    platen_capacity: float = parameter(29, "kJ/K", 1, 200, "heat capacity of both platens")
    platen_conductance: float = parameter(12, "W/K", 1, 100, "heat lost to the hall")
    part_conductance: float = parameter(9, "W/K", 0, 100, "heat taken by the charge in the press")
    charge: float = parameter(25, "Cel", 0, 200, "temperature of the charge")
    closing: float = parameter(4, "s", 0.5, 60, "time to close")
    pressing: float = parameter(20, "s", 1, 600, "time under pressure")
    opening: float = parameter(4, "s", 0.5, 60, "time to open")
    loading: float = parameter(8, "s", 0.5, 600, "time to take the part out and put a charge in")
    way: float = parameter(300, "mm", 10, 300, "way of the ram")
    piston_area: float = parameter(314, "cm2", 50, 500, "area of the piston")
    oil_volume: float = parameter(5, "L", 0.5, 50, "oil under pressure")
    bulk_modulus: float = parameter(1.4, "GPa", 0.5, 2, "of the oil with its air")
    valve_gain: float = parameter(
        0.072, "L/min/bar", 0.01, 1, "flow through the valve per pressure"
    )
    seal_leakage: float = parameter(
        0.0012, "L/min/bar", 0, 0.05, "flow past a good seal per pressure"
    )
    idle_flow: float = parameter(0.2, "L/s", 0, 1, "flow that goes around at the pump's pressure")
    pump_efficiency: float = parameter(0.8, "1", 0.3, 1, "of pump and motor")
    oil_capacity: float = parameter(170, "kJ/K", 10, 2000, "heat capacity of the oil and its tank")
    oil_conductance: float = parameter(120, "W/K", 10, 2000, "heat lost by tank and cooler")
    thickness: float = parameter(4, "mm", 1, 8, "of a part at no force, from a new tool")
    compliance: float = parameter(0.2, "um/kN", 0, 2, "how much thinner a part is per force")
    tool_area: float = parameter(400, "cm2", 20, 5000, "area of the tool on the part")
    sliding: float = parameter(40, "mm", 1, 300, "way that the charge slides in a stroke")
    wear_coefficient: float = parameter(
        1e-7, "1/MPa", 0, 1e-5, "Archard's coefficient over the tool's hardness"
    )


PHASES = CLOSING, PRESSING, OPENING, LOADING = range(4)


class _Press:
    """The press, closing for the first time, with platens at the temperature of equilibrium."""

    draws = 7

    def __init__(self, constants: PressConstants, events: np.random.Generator) -> None:
        self._c = constants
        self._events = events
        phases_s = constants.closing, constants.pressing, constants.opening, constants.loading
        self._ends_s = tuple(accumulate(phases_s))
        self._time_s, self._phase = 0.0, CLOSING
        share = constants.pressing / self._ends_s[-1]
        lost = constants.platen_conductance * constants.ambient
        taken = share * constants.part_conductance
        heat = MODEL.input_defaults["heater"] * KILO + lost + taken * constants.charge
        self._platen_c = heat / (constants.platen_conductance + taken)
        self._oil_c = constants.ambient + 20
        self._bar = 0.0
        self._motor_w = 0.0
        self._wear_mm = 0.0
        self._strokes = 0
        self._thickness_mm = constants.thickness

    def step(
        self,
        duration_s: float,
        inputs: Mapping[str, float],
        levels: Mapping[str, float],
        gauss: Sequence[float],
    ) -> tuple[float, ...]:
        """See `Equations`."""
        heater_w = inputs["heater"] * KILO * (1 - HEATER_LOST * levels[HEATER])
        left_s = duration_s
        while left_s > 0:
            phase = self._phase
            rest_s = self._ends_s[phase] - self._time_s
            piece_s = min(left_s, rest_s)
            self._warm(piece_s, heater_w, pressing=phase == PRESSING)
            self._press(piece_s, inputs["pressure"] if phase == PRESSING else 0.0, levels)
            left_s -= piece_s
            self._time_s += piece_s
            if piece_s == rest_s:
                self._end(phase, levels)
        return self._sensed(heater_w, gauss)

    def _warm(self, duration_s: float, heater_w: float, *, pressing: bool) -> None:
        c = self._c
        taken = c.part_conductance if pressing else 0.0
        conductance = c.platen_conductance + taken
        heat = heater_w + c.platen_conductance * c.ambient + taken * c.charge
        time_s = c.platen_capacity * KILO / conductance
        self._platen_c = approach(self._platen_c, heat / conductance, duration_s / time_s)

    def _press(self, duration_s: float, set_bar: float, levels: Mapping[str, float]) -> None:
        """Move pressure and oil on, the oil by the motor's mean power of the piece."""
        c = self._c
        gain = c.valve_gain / (1 + STICKING * levels[VALVE])
        leakage = c.seal_leakage + LEAKAGE * levels[LEAK]
        end_bar = gain * set_bar / (gain + leakage)
        stiffness = c.bulk_modulus * 1e9 / (c.oil_volume * 1e-3)  # Pa per m³
        time_constants = duration_s * stiffness * (gain + leakage) * LITRES_A_MINUTE / BAR
        before_bar, self._bar = self._bar, approach(self._bar, end_bar, time_constants)
        mean_bar = end_bar + (before_bar - self._bar) / time_constants
        flow = gain * max(set_bar - mean_bar, 0.0) * LITRES_A_MINUTE + c.idle_flow * 1e-3
        self._motor_w = max(set_bar, RETURN_BAR) * BAR * flow / c.pump_efficiency
        warm_c = c.ambient + self._motor_w / c.oil_conductance
        oil_time_s = c.oil_capacity * KILO / c.oil_conductance
        self._oil_c = approach(self._oil_c, warm_c, duration_s / oil_time_s)

    def _end(self, phase: int, levels: Mapping[str, float]) -> None:
        """End a phase: a part is ready after pressing, and the next stroke begins after loading."""
        self._phase = (phase + 1) % len(PHASES)
        self._time_s = 0.0 if phase == LOADING else self._ends_s[phase]
        if phase != PRESSING:
            return
        c, force_kn = self._c, self._force_kn()
        contact_mpa = force_kn * KILO / (c.tool_area * 1e-4) / 1e6
        rate = c.wear_coefficient * (1 + ABRASIVE * levels[ABRASION])
        self._wear_mm += rate * contact_mpa * c.sliding
        scatter_mm = SCATTER_MM * self._events.standard_normal()
        thin_mm = c.compliance / KILO * force_kn
        self._thickness_mm = c.thickness - thin_mm + self._wear_mm + scatter_mm
        self._strokes += 1

    def _force_kn(self) -> float:
        return self._bar * BAR * self._c.piston_area * 1e-4 / KILO

    def _position_mm(self) -> float:
        """The opening of the tool: a straight line in time."""
        c, time_s = self._c, self._time_s
        if time_s < self._ends_s[CLOSING]:
            return c.way * (1 - time_s / c.closing)
        if time_s < self._ends_s[PRESSING]:
            return 0.0
        return c.way * min(1.0, (time_s - self._ends_s[PRESSING]) / c.opening)

    def _sensed(self, heater_w: float, gauss: Sequence[float]) -> tuple[float, ...]:
        return (
            round(self._platen_c + 0.1 * gauss[0], 2),
            round(self._oil_c + 0.05 * gauss[1], 2),
            round(self._bar + 0.3 * gauss[2], 2),
            round(self._force_kn() + 0.8 * gauss[3], 2),
            round(self._position_mm() + 0.02 * gauss[4], 2),
            round(heater_w / KILO * (1 + 0.005 * gauss[5]), 3),
            round(self._motor_w / KILO * (1 + 0.01 * gauss[6]), 3),
            round(self._thickness_mm, 3),
            float(self._strokes),
        )


MODEL = ModelInfo(
    name="press",
    description="a heated hydraulic press that moulds parts, with a tool that wears",
    stream="press",
    period_s=0.5,
    signals=SIGNALS,
    inputs=INPUTS,
    input_defaults={"heater": 2.7, "pressure": 160.0},
    faults=FAULTS,
    constants=PressConstants,
    equations=_Press,
)
