"""A water circulation rig: motor, centrifugal pump, valve, and eight sensors named and ranged like
a real one.

Equations, in the order they are used:
- affinity laws and a quadratic pump curve, H = H0 - a Q²; the piping takes H = k Q², k rising as
  the valve closes, k = k0 / opening².  The working point is where both meet.  Source: Gülich,
  Centrifugal Pumps, 4th ed., ch. 1 and 11.
- shaft power P = P0 + rho g Q H / η; current I = P / (√3 U cos φ).  Source: any text on induction
  motors.
- motor body: C dT/dt = losses - G (T - T_ambient), first order; the water is warmed by what the
  pump puts into it.
- vibration (RMS): grows with the distance from the best flow squared, with bearing wear, and with
  the shortage of suction head in cavitation, which also takes away flow and makes it flutter.
  Source: ISO 10816-7, Gülich ch. 6. Noise and quantisation are those seen in the recordings of the
  Skoltech rig (Katser and Kozitsin, 2020).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from broker.streams import Signal
from simulators import faults
from simulators.faults import Fault, FaultKind
from simulators.model import Row

SIGNALS = (
    Signal(
        "Accelerometer1RMS",
        unit="g",
        low=0.0,
        high=0.5,
        resolution=1e-6,
        description="vibration, motor side",
    ),
    Signal(
        "Accelerometer2RMS",
        unit="g",
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
DENSITY = 998.0
PRESSURE_STEP = 0.327927
"""bar, one step of the rig's pressure sensor; its zero lies at PRESSURE_ZERO."""
PRESSURE_ZERO = 0.054711


@dataclass(frozen=True, slots=True)
class Rig:
    """The rig's constants.  Flows in L/min, heads in m, powers in W, temperatures in °C."""

    shut_off_head: float = 1.25
    best_flow: float = 32.0
    best_head: float = 0.85
    idle_power: float = 130.0
    hydraulic_efficiency: float = 0.05
    power_factor: float = 0.56
    ambient: float = 22.0
    loss_share: float = 0.45
    conductance: float = 1.73
    motor_capacity: float = 210.0
    water_warming: float = 0.0175
    water_capacity: float = 600.0
    shut_opening: float = 0.78
    """How far a shut valve still lets through: the recorded experiments close it in part."""


class PumpRig:
    """A `Source`: one row every `period_s` of the rig's time, `count` in all."""

    signals: tuple[Signal, ...] = SIGNALS

    def __init__(
        self,
        *,
        seed: int = 0,
        period_s: float = 1.0,
        count: int = 800,
        faults: Sequence[Fault] = (),
        rig: Rig | None = None,
    ) -> None:
        """seed: of all noise.  faults: in seconds of the rig's time; a row is an anomaly while one
        is there.
        """
        self._seed = seed
        self._period_s = period_s
        self._count = count
        self._faults = tuple(faults)
        self._rig = rig or Rig()

    def rows(self) -> Iterator[Row]:
        """From the warm rig on; equal arguments give equal rows."""
        noise = np.random.default_rng(self._seed)
        rig = self._rig
        healthy = (
            rig.idle_power + _hydraulic_power(*_working_point(rig, 0, 0)) / rig.hydraulic_efficiency
        )
        motor_c = rig.ambient + rig.loss_share * healthy / rig.conductance
        water_c = rig.ambient + rig.water_warming * healthy
        for at in range(self._count):
            time_s = at * self._period_s
            valve, cavitation, wear = (
                faults.level(self._faults, kind, time_s) for kind in FaultKind
            )
            flow, head = _working_point(rig, valve, cavitation)
            power = (
                rig.idle_power
                + _hydraulic_power(flow, head) / rig.hydraulic_efficiency
                + 60.0 * wear
            )
            motor_c += (
                self._period_s
                * (rig.loss_share * power - rig.conductance * (motor_c - rig.ambient))
                / rig.motor_capacity
            )
            water_c += (
                self._period_s
                * (rig.water_warming * power - (water_c - rig.ambient))
                / rig.water_capacity
            )
            rough = 1 + 8 * (1 - flow / rig.best_flow) ** 2 + 0.6 * cavitation + 0.9 * wear
            values = _sensed(noise, rig, flow, head, power, motor_c, water_c, rough, cavitation)
            present = [fault.kind for fault in self._faults if fault.level(time_s) > 0]
            yield Row(round(time_s * 1e9), values, anomaly=bool(present), cause="+".join(present))


def _working_point(rig: Rig, valve: float, cavitation: float) -> tuple[float, float]:
    """Flow in L/min and head in m where pump and piping meet."""
    curve = (rig.shut_off_head - rig.best_head) / rig.best_flow**2
    opening = 1 - (1 - rig.shut_opening) * valve
    piping = rig.best_head / rig.best_flow**2 / opening**2
    lift = rig.shut_off_head * (1 - 0.15 * cavitation)
    flow = math.sqrt(lift / (curve + piping))
    return flow, piping * flow**2


def _hydraulic_power(flow: float, head: float) -> float:
    return DENSITY * GRAVITY * head * flow / 60_000


def _sensed(  # noqa: PLR0913 - eight sensors see as many quantities
    noise: np.random.Generator,
    rig: Rig,
    flow: float,
    head: float,
    power: float,
    motor_c: float,
    water_c: float,
    rough: float,
    cavitation: float,
) -> tuple[float, ...]:
    """What the eight sensors show of it."""
    voltage = 231.0 + 10.3 * noise.standard_normal()
    current = power / (math.sqrt(3) * 231.0 * rig.power_factor) + 0.27 * noise.standard_normal()
    pressure = DENSITY * GRAVITY * head / 1e5 + 0.24 * (1 + cavitation) * noise.standard_normal()
    flutter = 0.4 * (1 + 4 * cavitation) * noise.standard_normal()
    return (
        round(0.0266 * rough * (1 + 0.012 * noise.standard_normal()), 6),
        round(0.0400 * rough * (1 + 0.016 * noise.standard_normal()), 6),
        round(max(current, 0.0), 5),
        round(PRESSURE_ZERO + PRESSURE_STEP * round((pressure - PRESSURE_ZERO) / PRESSURE_STEP), 6),
        round(motor_c + 0.15 * noise.standard_normal(), 4),
        round(water_c + 0.01 * noise.standard_normal(), 4),
        round(voltage, 3),
        round(float(np.round(flow + flutter)) + 0.004 * noise.standard_normal(), 3),
    )
