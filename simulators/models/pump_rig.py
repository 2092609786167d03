"""A water circulation rig: motor, centrifugal pump, valve, and eight sensors named and ranged like
a real one.

Equations, in the order they are used; the pump turns at one speed:
- pump H = H0 - a Q², piping H = k Q² with k = k0 / opening², rising as the valve closes; the
  working point is where both meet.  Source: Gülich, Centrifugal Pumps, 4th ed., ch. 1 and 11.
- power P = P0 + rho g Q H / η, a worn bearing adding friction to it; current I = P / (√3 U cos φ).
  Source: Chapman, Electric Machinery Fundamentals, 5th ed., ch. 6.
- motor body C dT/dt = losses - G (T - T_ambient), solved exactly over each step, and the water
  likewise, warmed by what the pump puts into it.  Source: Incropera et al., Fundamentals of Heat
  and Mass Transfer, 7th ed., ch. 5 (lumped capacitance).
- cavitation: where NPSH falls below what the pump requires, it loses head (3 % define NPSH3; fully
  developed it is far more) and the flow flutters.  Source: ISO 9906; Gülich ch. 6.
- vibration (RMS) grows with the square of the distance from the best flow, with cavitation and with
  bearing wear.  Source: ISO 10816-7; Gülich ch. 10.
Noise and quantisation are those seen in the recordings of the Skoltech rig (Katser and Kozitsin,
2020), and the constants are fitted to the means of its `valve1` series.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from broker.errors import Invalid
from broker.streams import Signal
from simulators import faults
from simulators.faults import Fault, FaultKind, RecurringFaults
from simulators.model import SourceRow

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

GRAVITY = 9.81
"""m/s²"""
DENSITY = 998.0
"""kg/m³, water at 21 °C."""
MICROSECOND_S = 1e-6
PRESSURE_STEP = 0.327927
"""bar, one step of the rig's pressure sensor; its zero lies at PRESSURE_ZERO."""
PRESSURE_ZERO = 0.054711
PRESSURE_DOWN, PRESSURE_UP = 4, 8
"""Number of its steps below and above."""


@dataclass(frozen=True, slots=True)
class Rig:
    """The rig's constants.  Flows in L/min, heads in m, powers in W, temperatures in °C, voltage in
    V, heat capacities in J/K, conductance in W/K, times in s.
    """

    shut_off_head: float = 1.25
    best_flow: float = 32.0
    best_head: float = 0.85
    shut_opening: float = 0.78
    """Opening of a shut valve: the recorded experiments close it only in part."""
    lift_lost: float = 0.15
    """Share of the shut-off head that fully developed cavitation takes away."""
    idle_power: float = 130.0
    bearing_power: float = 60.0
    hydraulic_efficiency: float = 0.05
    voltage: float = 231.0
    power_factor: float = 0.56
    ambient: float = 22.0
    loss_share: float = 0.45
    conductance: float = 1.73
    motor_capacity: float = 210.0
    water_warming: float = 0.0175
    """K above ambient that a W warms the water by, in the end."""
    water_time_s: float = 600.0


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


class PumpRig:
    """A `RowSource`: one row every `period_s` of the rig's time, `count` in all."""

    signals: tuple[Signal, ...] = SIGNALS

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
        """seed: of all noise, 0 or more.  faults: in seconds of the rig's time; a row within a
        fault is an anomaly.  fault_every_s: time in which one random fault comes beside them, None
        for none.  Raises Invalid.
        """
        if seed < 0:
            raise Invalid(f"seed {seed}", hint="0 or more")
        if not MICROSECOND_S <= period_s < math.inf:
            raise Invalid(f"period {period_s:g} s", hint="seconds, a microsecond at least")
        if count < 1:
            raise Invalid(f"{count} rows", hint="1 or more")
        self._seed = seed
        self._period_s = period_s
        self._count = count
        self._faults = tuple(faults)
        self._recurring = None if fault_every_s is None else RecurringFaults(seed, fault_every_s)
        self._rig = rig or Rig()

    def rows(self) -> Iterator[SourceRow]:
        """Yield the rows, from a warm rig on; equal arguments give equal rows."""
        noise = np.random.default_rng(self._seed)
        state = _settled(self._rig)
        for at in range(self._count):
            time_s = at * self._period_s
            active = self._active(time_s)
            levels = {kind: faults.level(active, kind, time_s) for kind in FaultKind}
            causes = [kind for kind, level in levels.items() if level > 0]
            state = _stepped(self._rig, state, self._period_s, levels)
            yield SourceRow(
                round(time_s / MICROSECOND_S) * 1000,
                _sensed(noise, self._rig, state),
                anomaly=bool(causes),
                cause="+".join(causes),
            )

    def _active(self, time_s: float) -> Sequence[Fault]:
        """The faults that may be there at a time."""
        if self._recurring is None:
            return self._faults
        return (*self._faults, self._recurring.at(time_s))


def _settled(rig: Rig) -> _State:
    """Return the state of the healthy rig when it is warm."""
    flow, head = _working_point(rig, 0, 0)
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


def _stepped(
    rig: Rig, before: _State, duration_s: float, levels: Mapping[FaultKind, float]
) -> _State:
    """Return the state `duration_s` later under these levels of the faults."""
    cavitation, wear = levels[FaultKind.CAVITATION], levels[FaultKind.BEARING]
    flow, head = _working_point(rig, levels[FaultKind.VALVE], cavitation)
    power = (
        rig.idle_power
        + _hydraulic_power(flow, head) / rig.hydraulic_efficiency
        + rig.bearing_power * wear
    )
    motor_end_c = rig.ambient + rig.loss_share * power / rig.conductance
    motor_time_s = rig.motor_capacity / rig.conductance
    water_end_c = rig.ambient + rig.water_warming * power
    return _State(
        flow,
        head,
        power,
        motor_c=_approach(before.motor_c, motor_end_c, duration_s / motor_time_s),
        water_c=_approach(before.water_c, water_end_c, duration_s / rig.water_time_s),
        cavitation=cavitation,
        wear=wear,
    )


def _approach(start: float, end: float, time_constants: float) -> float:
    """Solve a first-order balance after a number of time constants: exact for any step."""
    return end + (start - end) * math.exp(-time_constants)


def _working_point(rig: Rig, valve: float, cavitation: float) -> tuple[float, float]:
    """Return flow in L/min and head in m of the working point of pump and piping."""
    curve = (rig.shut_off_head - rig.best_head) / rig.best_flow**2
    opening = 1 - (1 - rig.shut_opening) * valve
    piping = rig.best_head / rig.best_flow**2 / opening**2
    lift = rig.shut_off_head * (1 - rig.lift_lost * cavitation)
    flow = math.sqrt(lift / (curve + piping))
    return flow, piping * flow**2


def _hydraulic_power(flow: float, head: float) -> float:
    return DENSITY * GRAVITY * head * flow / 60_000  # L/min to m³/s


def _sensed(noise: np.random.Generator, rig: Rig, state: _State) -> tuple[float, ...]:
    """Return the eight sensor values of a state, with noise and quantisation."""
    gauss = noise.standard_normal
    rough = (
        1 + 8 * (1 - state.flow / rig.best_flow) ** 2 + 0.6 * state.cavitation + 0.9 * state.wear
    )
    voltage = rig.voltage + 10.3 * gauss()
    current = state.power / (math.sqrt(3) * rig.voltage * rig.power_factor) + 0.27 * gauss()
    pressure = DENSITY * GRAVITY * state.head / 1e5 + 0.24 * (1 + state.cavitation) * gauss()
    steps = round((pressure - PRESSURE_ZERO) / PRESSURE_STEP)
    flow = state.flow + 0.4 * (1 + 4 * state.cavitation) * gauss()
    values = (
        round(0.0271 * rough * (1 + 0.012 * gauss()), 6),
        round(0.0402 * rough * (1 + 0.016 * gauss()), 6),
        round(current, 5),
        round(PRESSURE_ZERO + PRESSURE_STEP * min(max(steps, -PRESSURE_DOWN), PRESSURE_UP), 6),
        round(state.motor_c + 0.15 * gauss(), 4),
        round(state.water_c + 0.01 * gauss(), 4),
        round(voltage, 3),
        round(round(flow) + 0.004 * gauss(), 3),
    )
    return tuple(map(_saturated, SIGNALS, values))


def _saturated(signal: Signal, value: float) -> float:
    """Limit a value to the range of its sensor."""
    low = value if signal.low is None else signal.low
    high = value if signal.high is None else signal.high
    return min(max(value, low), high)
