"""The robot cell against the kinematics and dynamics of two links, and its cycle's arithmetic."""

from math import cos, degrees, hypot, pi, radians, sin

import numpy as np
import pytest

from simulators.catalogue import MODELS
from simulators.models.robot_cell import (
    BELT,
    TABLE,
    CellConstants,
    joint_angles,
    tool_place,
    torques,
)

CELL = MODELS["robot-cell"]
NAMES = [signal.name for signal in CELL.signals]
ALONE = {"other_away": 600, "other_hold": 0}
ARM = CellConstants()


def columns(rows):
    return dict(zip(NAMES, np.array([row.values for row in rows]).T, strict=True))


@pytest.mark.parametrize(
    ("angles", "place"),
    [
        ((0, 0), (0.7, 0)),
        ((90, 0), (0, 0.7)),
        ((0, 90), (0.4, 0.3)),
        ((0, 180), (0.1, 0)),
        ((30, -60), (0.4 * cos(pi / 6) + 0.3 * cos(pi / 6), 0.4 * 0.5 - 0.3 * 0.5)),
    ],
)
def test_the_tool_is_where_two_links_put_it(angles, place):
    assert tool_place(ARM, *map(radians, angles)) == pytest.approx(place)


@pytest.mark.parametrize("place", [BELT, TABLE, (0.3, 0.3), (-0.2, 0.4)])
def test_inverse_kinematics_gives_angles_that_lead_to_the_place(place):
    assert tool_place(ARM, *joint_angles(ARM, *place)) == pytest.approx(place)


def test_torques_are_those_of_a_stretched_arm_and_of_lagranges_equations():
    # all mass in one line: tau_1 = (m1 l1² + m2 (l1 + l2)²) a
    stretched = torques(ARM, 0.0, (0, 0), (2.0, 0.0), 0.0)
    assert stretched[0] == pytest.approx(2 * (6 * 0.4**2 + 2.5 * 0.7**2))

    # power into the arm is the change of its kinetic energy
    def energy(q1, q2, v1, v2):
        elbow = (-0.4 * sin(q1) * v1, 0.4 * cos(q1) * v1)
        turn = v1 + v2
        tool = (elbow[0] - 0.3 * sin(q1 + q2) * turn, elbow[1] + 0.3 * cos(q1 + q2) * turn)
        return 0.5 * 6 * hypot(*elbow) ** 2 + 0.5 * 2.5 * hypot(*tool) ** 2

    q2, (v1, v2), (a1, a2), h = 0.8, (1.5, -2.0), (3.0, 4.0), 1e-6
    t1, t2 = torques(ARM, q2, (v1, v2), (a1, a2), 0.0)
    later = energy(v1 * h, q2 + v2 * h, v1 + a1 * h, v2 + a2 * h)
    earlier = energy(-v1 * h, q2 - v2 * h, v1 - a1 * h, v2 - a2 * h)
    assert t1 * v1 + t2 * v2 == pytest.approx((later - earlier) / (2 * h), rel=1e-5)


def test_the_robot_stands_at_the_belt_to_grip_and_at_the_table_to_release():
    rows = columns(CELL.make(seed=1).advance(3000, {}))
    for states, place in (((0, 1, 2), BELT), ((4,), TABLE)):
        there = np.isin(rows["State"], states)
        assert there.sum() > 100
        assert np.abs(rows["ToolX"][there] - place[0]).max() < 1e-4
        assert np.abs(rows["ToolY"][there] - place[1]).max() < 1e-4
    x, y = tool_place(ARM, *np.radians([rows["Joint1"][7], rows["Joint2"][7]]))
    assert (x, y) == pytest.approx((rows["ToolX"][7], rows["ToolY"][7]), abs=1e-4)


def test_a_move_reaches_fifteen_eighths_of_its_mean_speed():
    # Biagiotti and Melchiorri, 2008, ch. 2: the polynomial of the fifth degree
    fine = CELL.make(period_s=0.001, parameters=ALONE | {"move_time": 2})
    rows = columns(fine.advance(2800, {}))
    moving = np.flatnonzero(rows["State"] == 3)
    speeds = np.diff(rows["Joint1"][moving]) / 0.001
    way = degrees(joint_angles(ARM, *TABLE)[0] - joint_angles(ARM, *BELT)[0])
    assert np.abs(speeds).max() == pytest.approx(15 / 8 * abs(way) / 2, rel=0.02)
    assert len(moving) == pytest.approx(2000, abs=2)


@pytest.mark.parametrize(("feed", "speed"), [(60, 1.0), (60, 0.5), (10, 1.0)])
def test_jobs_an_hour_are_the_feed_or_the_cycle_time_whichever_is_less(feed, speed):
    cell = CELL.make(period_s=60, parameters=ALONE)
    rows = columns(cell.advance(60, {"feed": feed, "speed": speed}))
    cycle_s = 0.4 + 0.3 + 2 * 0.9 / speed
    assert rows["Jobs Done"][-1] == pytest.approx(min(3600 / cycle_s, 60 * feed), abs=2)
    assert rows["Conflicts"][-1] == 0


def test_energy_does_not_depend_on_how_often_one_looks():
    fine, coarse = (CELL.make(period_s=period_s) for period_s in (0.01, 10))
    short, long = columns(fine.advance(6000, {})), columns(coarse.advance(6, {}))
    assert long["Energy"][-1] == pytest.approx(short["Energy"][-1], rel=1e-3)
    assert long["Jobs Done"][-1] == short["Jobs Done"][-1]
    integral_kj = short["Power"].sum() * 0.01 / 1000
    assert short["Energy"][-1] == pytest.approx(integral_kj, rel=2e-3)


def test_never_do_both_robots_have_the_table_and_a_conflict_is_a_wait():
    busy = {"other_away": 1, "other_hold": 3}
    rows = columns(CELL.make(seed=2, parameters=busy).advance(6000, {}))
    at_table = np.isin(rows["State"], (3, 4))
    assert (rows["Table"][at_table] == 1).all()
    assert (rows["Table"][rows["State"] == 2] == 2).all()
    began = np.count_nonzero(np.diff((rows["State"] == 2).astype(int)) == 1)
    assert rows["Conflicts"][-1] >= began > 50


def test_a_controller_holds_the_jobs_an_hour_with_the_speed():
    cell, speed = CELL.make(period_s=30, parameters=ALONE), 1.0
    done = [0.0]
    for _ in range(60):
        (row,) = cell.advance(1, {"feed": 60, "speed": speed})
        done.append(row.values[NAMES.index("Jobs Done")])
        speed += 0.02 * (8 - (done[-1] - done[-2]))
    assert (done[-1] - done[-31]) / 30 == pytest.approx(8, abs=0.3)
