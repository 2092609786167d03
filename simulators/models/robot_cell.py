"""A robot of two links that carries parts to a table, which it shares with another robot.

Equations:
- each move is a polynomial of the fifth degree in each joint, from rest to rest: q = q_0 + Δq s(u),
  s = 10 u³ - 15 u⁴ + 6 u⁵, with u the share of the move's time; greatest speed 15/8 Δq/T.  Source:
  Biagiotti and Melchiorri, Trajectory Planning for Automatic Machines and Robots, 2008.
- place of the tool x = l1 cos q1 + l2 cos(q1 + q2), y likewise with sin; joint angles of a place by
  the inverse.  Source: Craig, Introduction to Robotics, 3rd ed., ch. 3 and 4.
- torques of the two links in a level plane, τ = M(q) q̈ + V(q, q̇) + friction, with the masses at the
  ends of the links and the part's at the tool.  Source: Craig, ch. 6.
- current τ/k_t; power of the drives is the torque times the speed where they drive (braking is not
  fed back) over their efficiency, beside what the cell always takes.
Cycle: wait for a part at the belt, grip it, wait for the table, carry it there, release, return.
The other robot takes the table for a while again and again; both wanting it at once is a conflict,
and who comes second waits.  Moves and waits are followed in continuous time and are exact; energy
is the power's integral by Simpson's rule over an eighth of a move at most.
The constants are plausible ones of a SCARA robot for 5 kg.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import acos, atan2, ceil, cos, degrees, inf, sin

import numpy as np

from broker.streams import Signal
from simulators.parameters import parameter
from simulators.stepped import ModelInfo


class CellState(IntEnum):
    """State of the robot, as its signal shows it."""

    WAITING = 0
    """At the belt, for a part."""
    GRIPPING = 1
    BLOCKED = 2
    """At the belt with a part, until the table is free."""
    CARRYING = 3
    RELEASING = 4
    RETURNING = 5


SIGNALS = (
    Signal("Joint1", unit="deg", low=-180, high=180, resolution=0.001, description="at the base"),
    Signal("Joint2", unit="deg", low=-180, high=180, resolution=0.001, description="at the elbow"),
    Signal("ToolX", unit="m", low=-2, high=2, resolution=1e-5, description="place of the tool"),
    Signal("ToolY", unit="m", low=-2, high=2, resolution=1e-5, description="place of the tool"),
    Signal("Current1", unit="A", low=-60, high=60, resolution=0.001, description="of joint 1"),
    Signal("Current2", unit="A", low=-60, high=60, resolution=0.001, description="of joint 2"),
    Signal("Power", unit="W", low=0, high=10_000, resolution=0.01, description="of the cell"),
    Signal("Energy", unit="kJ", low=0, high=1e9, resolution=0.001, description="since the start"),
    Signal(
        "State",
        low=0,
        high=5,
        resolution=1,
        description="0 waiting, 1 gripping, 2 blocked, 3 carrying, 4 releasing, 5 returning",
    ),
    Signal("Table", low=0, high=2, resolution=1, description="0 free, 1 taken, 2 by the other"),
    Signal("Jobs Done", low=0, high=1e9, resolution=1, description="parts on the table so far"),
    Signal("Conflicts", low=0, high=1e9, resolution=1, description="times that it had to wait"),
)
INPUTS = (
    Signal("speed", low=0.05, high=1, description="of the robot's moves, as a share of the rated"),
    Signal("feed", unit="/min", low=0, high=60, description="parts that come on the belt"),
)
FRICTION, GRIPPER, CONFLICT = "friction", "gripper", "conflict"
FAULTS = {
    FRICTION: "the gear of joint 2 is worn: up to six times the friction, so more current",
    GRIPPER: "the gripper loses vacuum: it needs up to five times as long to grip",
    CONFLICT: "the other robot keeps the table up to six times as long: more conflicts and waiting",
}
WORN, SLOW_GRIP, LONG_HOLD = 5.0, 4.0, 5.0
"""Effects of the whole faults, added to 1."""
MOST_PARTS = 10
"""Parts that wait on the belt, which stops when it is full."""
SIMPSON_SHARE = 0.125
_EPSILON = 1e-9
"""s, or share of a move; what is less is over."""


@dataclass(frozen=True, slots=True)
class CellConstants:
    """The constants of the robot, of its places and of the other robot."""

    link_1: float = parameter(0.4, "m", 0.35, 0.6, "from base to elbow")
    link_2: float = parameter(0.3, "m", 0.3, 0.5, "from elbow to tool")
    mass_1: float = parameter(6, "kg", 0.5, 50, "of the elbow with its drive")
    mass_2: float = parameter(2.5, "kg", 0.2, 20, "of the tool")
    part_mass: float = parameter(1.5, "kg", 0, 10, "of a part")
    friction_1: float = parameter(4, "N.m.s", 0, 50, "viscous friction of joint 1, per rad")
    friction_2: float = parameter(1.5, "N.m.s", 0, 20, "viscous friction of joint 2, per rad")
    torque_constant: float = parameter(6, "N.m/A", 0.5, 50, "torque of a joint per current")
    efficiency: float = parameter(0.7, "1", 0.1, 1, "of the drives")
    idle_power: float = parameter(180, "W", 0, 2000, "of control and brakes")
    move_time: float = parameter(0.9, "s", 0.2, 20, "of a move between belt and table")
    grip_time: float = parameter(0.4, "s", 0.01, 20, "to grip a part")
    release_time: float = parameter(0.3, "s", 0.01, 20, "to release a part")
    other_hold: float = parameter(2, "s", 0, 60, "time that the other robot has the table")
    other_away: float = parameter(6, "s", 0.1, 600, "mean time between, exponential")


BELT = (0.55, -0.3)
TABLE = (0.05, 0.35)
"""Places of belt and table, m from the base."""


def tool_place(constants: CellConstants, q1: float, q2: float) -> tuple[float, float]:
    """Place of the tool in m, for joint angles in rad: the forward kinematics."""
    l1, l2 = constants.link_1, constants.link_2
    return l1 * cos(q1) + l2 * cos(q1 + q2), l1 * sin(q1) + l2 * sin(q1 + q2)


def joint_angles(constants: CellConstants, x: float, y: float) -> tuple[float, float]:
    """Joint angles in rad with the elbow to the right, for a place in m that the arm reaches."""
    l1, l2 = constants.link_1, constants.link_2
    cosine = (x * x + y * y - l1 * l1 - l2 * l2) / (2 * l1 * l2)
    q2 = acos(min(max(cosine, -1.0), 1.0))
    return atan2(y, x) - atan2(l2 * sin(q2), l1 + l2 * cos(q2)), q2


def torques(
    constants: CellConstants,
    q2: float,
    speeds: tuple[float, float],
    accelerations: tuple[float, float],
    part: float,
) -> tuple[float, float]:
    """Torques in N m of both joints without friction; Craig, ch. 6, without gravity.

    q2: rad.  speeds: rad/s.  accelerations: rad/s².  part: mass at the tool, kg.
    """
    l1, l2, m1, m2 = constants.link_1, constants.link_2, constants.mass_1, constants.mass_2 + part
    (v1, v2), (a1, a2) = speeds, accelerations
    c2, s2 = cos(q2), sin(q2)
    coupling = m2 * l1 * l2
    far = m2 * l2 * l2 * (a1 + a2)
    first = far + coupling * (c2 * (2 * a1 + a2) - s2 * (v2 * v2 + 2 * v1 * v2))
    return first + (m1 + m2) * l1 * l1 * a1, far + coupling * (c2 * a1 + s2 * v1 * v1)


_MOVES = frozenset({CellState.CARRYING, CellState.RETURNING})


class _OtherRobot:
    """The robot that shares the table: away, waiting for it, or at it, for so many seconds yet."""

    __slots__ = ("away_s", "held_s", "holds")

    def __init__(self, away_s: float) -> None:
        self.away_s = away_s
        self.held_s = 0.0
        self.holds = False

    @property
    def next_s(self) -> float:
        """Time until it comes or leaves; infinite while it waits."""
        if self.away_s > 0:
            return self.away_s
        return self.held_s if self.holds else inf

    def let_pass(self, duration_s: float) -> None:
        """Let time pass, at most `next_s`."""
        if self.away_s > 0:
            self.away_s = _less(self.away_s, duration_s)
        elif self.holds:
            self.held_s = _less(self.held_s, duration_s)


class _Cell:
    """The cell, with the robot at the belt and the first part coming."""

    draws = 2

    def __init__(self, constants: CellConstants, events: np.random.Generator) -> None:
        self._c = constants
        self._random = events
        self._belt, table = (joint_angles(constants, *at) for at in (BELT, TABLE))
        self._way = (table[0] - self._belt[0], table[1] - self._belt[1])
        self._state = CellState.WAITING
        self._left = 0.0  # of the state: seconds at its rate, or the share of a move
        self._other = _OtherRobot(self._away_s())
        self._holds = False
        self._arrival_s = 0.0
        self._parts = self._done = self._conflicts = 0
        self._energy_j = 0.0

    def step(
        self,
        duration_s: float,
        inputs: Mapping[str, float],
        levels: Mapping[str, float],
        gauss: Sequence[float],
    ) -> tuple[float, ...]:
        """See `Equations`."""
        interval_s = 60 / inputs["feed"] if inputs["feed"] > 0 else inf
        self._arrival_s = min(self._arrival_s, interval_s)
        friction = self._c.friction_2 * (1 + WORN * levels[FRICTION])
        rest_s = duration_s
        while True:
            self._go_on(interval_s, levels[CONFLICT])
            rate = self._rate(inputs["speed"], levels[GRIPPER])
            if rest_s <= 0:
                return self._sensed(rate, friction, gauss)
            piece_s = min(rest_s, self._next_s(rate))
            self._pass(piece_s, rate, friction)
            rest_s -= piece_s

    def _rate(self, speed: float, slow_grip: float) -> float:
        """How much of what is left of the state goes by in a second."""
        if self._state in _MOVES:
            return speed / self._c.move_time
        return 1 / (1 + SLOW_GRIP * slow_grip) if self._state == CellState.GRIPPING else 1.0

    def _next_s(self, rate: float) -> float:
        """Time until the next event."""
        own_s = self._left / rate if self._left > 0 else inf
        arrival_s = self._arrival_s if self._parts < MOST_PARTS else inf
        return min(own_s, arrival_s, self._other.next_s)

    def _pass(self, duration_s: float, rate: float, friction: float) -> None:
        """Let time pass in which nothing happens before its end."""
        before, self._left = self._left, _less(self._left, duration_s * rate)
        self._energy_j += duration_s * self._c.idle_power
        if self._state in _MOVES:
            self._energy_j += duration_s * self._mean_w(before, rate, friction)
        self._arrival_s = _less(self._arrival_s, duration_s)
        self._other.let_pass(duration_s)

    def _mean_w(self, before: float, rate: float, friction: float) -> float:
        """Mean power of the drives from when so much was left of a move until now."""
        pieces = max(1, ceil((before - self._left) / SIMPSON_SHARE))
        steps = [(before - self._left) * at / (2 * pieces) for at in range(2 * pieces + 1)]
        powers = [self._motion(before - step, rate, friction)[1] for step in steps]
        weighted = powers[0] + powers[-1] + 4 * sum(powers[1::2]) + 2 * sum(powers[2:-1:2])
        return weighted / (6 * pieces)

    def _go_on(self, interval_s: float, long_hold: float) -> None:
        """Let everything happen that is due: arrivals, the other robot, and its own steps."""
        if self._arrival_s == 0 and self._parts < MOST_PARTS:
            self._parts += 1
            self._arrival_s = interval_s
        other = self._other
        if other.holds and other.held_s == 0:
            other.holds, other.away_s = False, self._away_s()
        if self._state == CellState.BLOCKED and not other.holds:
            self._holds = True  # it came first
            self._begin(CellState.CARRYING, 1.0)
        while self._left == 0 and self._step_on():
            pass
        if other.away_s == 0 and not other.holds and not self._holds:
            other.holds = True
            other.held_s = max(self._c.other_hold * (1 + LONG_HOLD * long_hold), _EPSILON)

    def _step_on(self) -> bool:
        """Go from a state that is over to the next; whether there was one."""
        match self._state:
            case CellState.WAITING if self._parts:
                self._parts -= 1
                self._begin(CellState.GRIPPING, self._c.grip_time)
            case CellState.GRIPPING:
                if self._other.holds:
                    self._conflicts += 1
                    self._begin(CellState.BLOCKED, 0.0)
                    return False
                self._holds = True
                self._begin(CellState.CARRYING, 1.0)
            case CellState.CARRYING:
                self._begin(CellState.RELEASING, self._c.release_time)
            case CellState.RELEASING:
                self._done += 1
                self._holds = False
                self._begin(CellState.RETURNING, 1.0)
            case CellState.RETURNING:
                self._begin(CellState.WAITING, 0.0)
            case _:
                return False
        return True

    def _begin(self, state: CellState, left: float) -> None:
        self._state, self._left = state, left

    def _away_s(self) -> float:
        return float(self._random.exponential(self._c.other_away)) + _EPSILON

    def _motion(
        self, left: float, rate: float, friction: float
    ) -> tuple[tuple[float, float], float]:
        """Torques of the joints in N m, and electrical power of the drives in W, in a move."""
        c, u = self._c, 1 - left
        carries = self._state == CellState.CARRYING
        sign = 1 if carries else -1
        slope = sign * 30 * u * u * (1 - u) * (1 - u) * rate
        bend = sign * 60 * u * (1 - u) * (1 - 2 * u) * rate * rate
        v1, v2 = self._way[0] * slope, self._way[1] * slope
        a1, a2 = self._way[0] * bend, self._way[1] * bend
        part = c.part_mass if carries else 0.0
        t1, t2 = torques(c, self._angles(left)[1], (v1, v2), (a1, a2), part)
        t1, t2 = t1 + c.friction_1 * v1, t2 + friction * v2
        return (t1, t2), (max(t1 * v1, 0.0) + max(t2 * v2, 0.0)) / c.efficiency

    def _angles(self, left: float) -> tuple[float, float]:
        """Joint angles in rad, with so much left of the state."""
        u = 1 - left
        share = u * u * u * (10 - 15 * u + 6 * u * u)
        if self._state == CellState.RETURNING:
            share = 1 - share
        elif self._state != CellState.CARRYING:
            share = 1.0 if self._state == CellState.RELEASING else 0.0
        return self._belt[0] + share * self._way[0], self._belt[1] + share * self._way[1]

    def _sensed(self, rate: float, friction: float, gauss: Sequence[float]) -> tuple[float, ...]:
        q1, q2 = self._angles(self._left)
        x, y = tool_place(self._c, q1, q2)
        moments, drive_w = (0.0, 0.0), 0.0
        if self._state in _MOVES:
            moments, drive_w = self._motion(self._left, rate, friction)
        return (
            round(degrees(q1), 3),
            round(degrees(q2), 3),
            round(x, 5),
            round(y, 5),
            round(moments[0] / self._c.torque_constant + 0.05 * gauss[0], 3),
            round(moments[1] / self._c.torque_constant + 0.05 * gauss[1], 3),
            round(self._c.idle_power + drive_w, 2),
            round(self._energy_j / 1000, 3),
            float(self._state),
            1.0 if self._holds else 2.0 if self._other.holds else 0.0,
            float(self._done),
            float(self._conflicts),
        )


def _less(left: float, passed: float) -> float:
    """Return the rest after some has passed, 0 where that is next to nothing."""
    rest = left - passed
    return rest if rest > _EPSILON else 0.0


MODEL = ModelInfo(
    name="robot-cell",
    description="a robot that carries parts to a table, which it shares with another robot",
    stream="cell",
    period_s=0.1,
    signals=SIGNALS,
    inputs=INPUTS,
    input_defaults={"speed": 1.0, "feed": 12.0},
    faults=FAULTS,
    constants=CellConstants,
    equations=_Cell,
)
