"""A water circulation rig: motor, centrifugal pump, valve, and eight sensors named and ranged like
a real one.

Equations, in the order they are used; n is the speed as a share of the rated one:
- pump H = n² H0 - a Q², piping H = k Q² with k = k0 / opening², rising as the valve closes; the
  working point is where both meet.  Source: Gülich, Centrifugal Pumps, 4th ed., also for the
  affinity laws (H with n², P0 with n³, vibration with n²).
- power P = n³ P0 + rho g Q H / η, a worn bearing adding friction; current I = P / (√3 U cos φ).
  Source: Chapman, Electric Machinery Fundamentals (induction motors).
- motor body C dT/dt = losses - G (T - T_ambient), solved exactly over each step, and the water
  likewise, warmed by what the pump puts into it.  Source: Incropera et al., Fundamentals of Heat
  and Mass Transfer (transient conduction, lumped capacitance).
- cavitation: where NPSH falls below what the pump requires, it loses head (3 % define NPSH3; fully
  developed it is far more) and the flow flutters.  Source: ISO 9906; Gülich, ch. 6.
- vibration (RMS) grows with the square of the distance from the best flow, with cavitation and with
  bearing wear.  Source: ISO 10816-7; Gülich.
Noise and quantisation are those seen in the recordings of the Skoltech rig (Katser and Kozitsin,
2020), and the constants are fitted to the means of its `valve1` series.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from broker.streams import Signal
from simulators.faults import Fault
from simulators.parameters import parameter
from simulators.stepped import ModelInfo, RunSettings, SteppedModel, approach

SIGNALS = (
    Signal(
        "Accelerometer1RMS",
        unit="[g]",
        low=0.0,
        high=0.5,
        resolution=1e-6,
        description="vibration, motor side",
    ),
    Signal(
        "Accelerometer2RMS",
        unit="[g]",
        low=0.0,
        high=0.5,
        resolution=1e-6,
        description="vibration, pump side",
    ),
    Signal("Current", unit="A", low=0.0, high=4.0, resolution=1e-5, description="motor current"),
    Signal(
        "Pressure",
        unit="bar",
        low=-1.5,
        high=3.0,
        resolution=0.327927,
        description="pressure behind the pump",
    ),
    Signal(
        "Temperature", unit="Cel", low=15.0, high=120.0, resolution=1e-4, description="engine body"
    ),
    Signal(
        "Thermocouple",
        unit="Cel",
        low=10.0,
        high=60.0,
        resolution=1e-4,
        description="circulating fluid",
    ),
    Signal(
        "Voltage", unit="V", low=180.0, high=280.0, resolution=1e-3, description="motor voltage"
    ),
    Signal(
        "Volume Flow RateRMS",
        unit="L/min",
        low=0.0,
        high=150.0,
        resolution=1e-3,
        description="circulation",
    ),
)

INPUTS = (
    Signal("opening", low=0.1, high=1.0, description="opening of the discharge valve, 1 is open"),
    Signal("speed", low=0.2, high=1.2, description="speed of the pump, as a share of the rated"),
)
VALVE, CAVITATION, BEARING = "valve", "cavitation", "bearing"
FAULTS = {
    VALVE: "the discharge valve closes in part: less flow, more vibration",
    CAVITATION: "too little head at the inlet, vapour in the pump: less lift, fluttering flow and"
    " pressure, more vibration, less power",
    BEARING: "a worn bearing: more vibration, more power, and so a warmer motor",
}

GRAVITY = 9.81
"""m/s²"""
DENSITY = 998.0
"""kg/m³, water at 21 °C."""
PRESSURE_STEP = 0.327927
"""bar, one step of the rig's pressure sensor; its zero lies at PRESSURE_ZERO."""
PRESSURE_ZERO = 0.054711
PRESSURE_DOWN, PRESSURE_UP = 4, 8
"""Number of its steps below and above."""


@dataclass(frozen=True, slots=True)
class Rig:
    """The rig's constants."""

    shut_off_head: float = parameter(1.25, "m", 0.9, 10, "head of the pump against a shut valve")
    best_flow: float = parameter(32.0, "L/min", 5, 140, "flow with the valve open, the pump's best")
    best_head: float = parameter(0.85, "m", 0.1, 0.9, "head at that flow")
    shut_opening: float = parameter(
        0.78, "1", 0.1, 1, "opening that the fault valve leaves: the experiments close it in part"
    )
    lift_lost: float = parameter(
        0.15, "1", 0, 0.9, "share of the shut-off head that fully developed cavitation takes away"
    )
    idle_power: float = parameter(130.0, "W", 10, 400, "electrical power that moves no water")
    bearing_power: float = parameter(60.0, "W", 0, 200, "friction of a bearing that is worn out")
    hydraulic_efficiency: float = parameter(
        0.05, "1", 0.02, 0.9, "hydraulic power in the electrical power that moves water"
    )
    voltage: float = parameter(231.0, "V", 200, 250, "mean voltage between the lines")
    power_factor: float = parameter(0.56, "1", 0.3, 1, "cos φ of the motor")
    ambient: float = parameter(22.0, "Cel", 15, 45, "temperature of the room")
    loss_share: float = parameter(0.45, "1", 0.05, 1, "share of the power that warms the motor")
    conductance: float = parameter(1.73, "W/K", 0.5, 20, "heat that the motor gives to the room")
    motor_capacity: float = parameter(210.0, "J/K", 20, 20_000, "heat capacity of the motor")
    water_warming: float = parameter(
        0.0175, "K/W", 0, 0.1, "how far a watt warms the water above the room in the end"
    )
    water_time_s: float = parameter(600.0, "s", 10, 100_000, "time constant of the water")


@dataclass(frozen=True, slots=True)
class _State:
    """Physical state of the rig, before sensor noise."""

    flow: float
    head: float
    power: float
    motor_c: float
    water_c: float
    cavitation: float
    wear: float


class _Rig:
    """The rig, from a warm and healthy state on."""

    draws = 9

    def __init__(self, rig: Rig, _events: np.random.Generator) -> None:
        self._rig = rig
        self._state = _settled(rig)

    def step(
        self,
        duration_s: float,
        inputs: Mapping[str, float],
        levels: Mapping[str, float],
        gauss: Sequence[float],
    ) -> tuple[float, ...]:
        """See `Equations`."""
        self._state = _stepped(self._rig, self._state, duration_s, _Act(inputs, levels))
        return _sensed(self._rig, self._state, inputs["speed"], gauss)


class _Act:
    """The inputs and faults that act on the rig, under short names."""

    __slots__ = ("cavitation", "opening", "speed", "valve", "wear")

    def __init__(self, inputs: Mapping[str, float], levels: Mapping[str, float]) -> None:
        self.opening, self.speed = inputs["opening"], inputs["speed"]
        self.valve, self.cavitation, self.wear = levels[VALVE], levels[CAVITATION], levels[BEARING]


MODEL = ModelInfo(
    name="pump-rig",
    description="a water circulation rig: motor, centrifugal pump, valve and eight sensors",
    stream="rig",
    period_s=1.0,
    signals=SIGNALS,
    inputs=INPUTS,
    input_defaults={"opening": 1.0, "speed": 1.0},
    faults=FAULTS,
    constants=Rig,
    equations=_Rig,
)


class PumpRig(SteppedModel):
    """The rig as a `Model`: one row every `period_s` of its time, `count` in all."""

    def __init__(
        self,
        *,
        seed: int = 0,
        period_s: float = 1.0,
        count: int = 800,
        faults: Sequence[Fault] = (),
        fault_every_s: float | None = None,
        rig: Rig | None = None,
    ) -> None:
        """See `RunSettings`.  Raises Invalid."""
        settings = RunSettings(
            seed=seed,
            period_s=period_s,
            count=count,
            faults=tuple(faults),
            fault_every_s=fault_every_s,
        )
        super().__init__(MODEL, rig or Rig(), settings)


def _settled(rig: Rig) -> _State:
    """Return the state of the healthy rig when it is warm."""
    flow, head = _working_point(rig, _Act(MODEL.input_defaults, dict.fromkeys(FAULTS, 0.0)))
    power = rig.idle_power + _hydraulic_power(flow, head) / rig.hydraulic_efficiency
    return _State(
        flow,
        head,
        power,
        motor_c=rig.ambient + rig.loss_share * power / rig.conductance,
        water_c=rig.ambient + rig.water_warming * power,
        cavitation=0,
        wear=0,
    )


def _stepped(rig: Rig, before: _State, duration_s: float, act: _Act) -> _State:
    """Return the state `duration_s` later under these inputs and faults."""
    flow, head = _working_point(rig, act)
    power = (
        rig.idle_power * act.speed**3
        + _hydraulic_power(flow, head) / rig.hydraulic_efficiency
        + rig.bearing_power * act.wear
    )
    motor_end_c = rig.ambient + rig.loss_share * power / rig.conductance
    motor_time_s = rig.motor_capacity / rig.conductance
    water_end_c = rig.ambient + rig.water_warming * power
    return _State(
        flow,
        head,
        power,
        motor_c=approach(before.motor_c, motor_end_c, duration_s / motor_time_s),
        water_c=approach(before.water_c, water_end_c, duration_s / rig.water_time_s),
        cavitation=act.cavitation,
        wear=act.wear,
    )


def _working_point(rig: Rig, act: _Act) -> tuple[float, float]:
    """Return flow in L/min and head in m of the working point of pump and piping."""
    curve = (rig.shut_off_head - rig.best_head) / rig.best_flow**2
    opening = act.opening * (1 - (1 - rig.shut_opening) * act.valve)
    piping = rig.best_head / rig.best_flow**2 / opening**2
    lift = rig.shut_off_head * act.speed**2 * (1 - rig.lift_lost * act.cavitation)
    flow = math.sqrt(lift / (curve + piping))
    return flow, piping * flow**2


def _hydraulic_power(flow: float, head: float) -> float:
    return DENSITY * GRAVITY * head * flow / 60_000  # L/min to m³/s


def _sensed(rig: Rig, state: _State, speed: float, gauss: Sequence[float]) -> tuple[float, ...]:
    """Return the eight sensor values of a state, with noise and quantisation."""
    rough = speed**2 * (
        1
        + 8 * (1 - state.flow / (rig.best_flow * speed)) ** 2
        + 0.6 * state.cavitation
        + 0.9 * state.wear
    )
    voltage = rig.voltage + 10.3 * gauss[0]
    current = state.power / (math.sqrt(3) * rig.voltage * rig.power_factor) + 0.27 * gauss[1]
    pressure = DENSITY * GRAVITY * state.head / 1e5 + 0.24 * (1 + state.cavitation) * gauss[2]
    steps = round((pressure - PRESSURE_ZERO) / PRESSURE_STEP)
    flow = state.flow + 0.4 * (1 + 4 * state.cavitation) * gauss[3]
    return (
        round(0.0271 * rough * (1 + 0.012 * gauss[4]), 6),
        round(0.0402 * rough * (1 + 0.016 * gauss[5]), 6),
        round(current, 5),
        round(PRESSURE_ZERO + PRESSURE_STEP * min(max(steps, -PRESSURE_DOWN), PRESSURE_UP), 6),
        round(state.motor_c + 0.15 * gauss[6], 4),
        round(state.water_c + 0.01 * gauss[7], 4),
        round(voltage, 3),
        round(round(flow) + 0.004 * gauss[8], 3),
    )
