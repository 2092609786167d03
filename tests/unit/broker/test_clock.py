"""Clocks whose wall time may be set, and pauses between attempts."""

import asyncio

import pytest

from broker.clock import (
    DAY_NS,
    HOUR_S,
    MOST_JUMP_NS,
    NS_PER_S,
    Backoff,
    ForwardClock,
    SteadyTime,
    StepDetector,
    SteppedClock,
    WallClock,
)

NOON_NS = 1_700_000_000 * NS_PER_S
HOUR_NS = HOUR_S * NS_PER_S
CENTURY_S = 100 * 366 * 24 * HOUR_S


@pytest.mark.parametrize("step_s", [-HOUR_S, HOUR_S, CENTURY_S])
async def test_a_wall_time_that_is_set_wakes_no_sleeper_and_keeps_none(step_s):
    clock = SteppedClock(NOON_NS)
    async with asyncio.TaskGroup() as tasks:
        sleeping = tasks.create_task(clock.sleep(2), name="sleeper")
        await clock.advance(1)
        clock.set_wall(step_s)
        await clock.advance(0.9)
        assert not sleeping.done()
        assert clock.now_ns() - NOON_NS == step_s * NS_PER_S + round(1.9 * NS_PER_S)
        assert clock.monotonic_ns() == round(1.9 * NS_PER_S)
        await clock.advance(0.1)
        assert sleeping.done()


def test_the_monotonic_time_of_the_machine_only_grows():
    clock = WallClock()
    times = [clock.monotonic_ns() for _ in range(1_000)]
    assert times == sorted(times)


async def test_instants_never_go_back_and_catch_up_with_the_machine():
    machine = SteppedClock(NOON_NS)
    clock = ForwardClock(machine)
    await machine.advance(10)
    assert clock.now_ns() == machine.now_ns()
    machine.set_wall(-HOUR_S)
    before_ns = clock.now_ns()
    assert before_ns == machine.now_ns() + HOUR_NS
    await machine.advance(HOUR_S)
    assert clock.now_ns() == before_ns + HOUR_NS // 2
    assert clock.ahead_ns() == HOUR_NS // 2
    await machine.advance(HOUR_S)
    assert clock.now_ns() == machine.now_ns()
    await machine.advance(HOUR_S)
    assert clock.now_ns() == machine.now_ns()


async def test_a_step_ahead_is_followed_and_a_jump_of_a_century_is_not():
    machine = SteppedClock(NOON_NS)
    clock = ForwardClock(machine)
    machine.set_wall(HOUR_S)
    assert clock.now_ns() == NOON_NS + HOUR_NS
    machine.set_wall(CENTURY_S)
    await machine.advance(60)
    assert clock.now_ns() == NOON_NS + HOUR_NS + 60 * NS_PER_S
    machine.set_wall(-CENTURY_S)
    await machine.advance(60)
    assert clock.now_ns() == machine.now_ns()
    await machine.advance(2 * MOST_JUMP_NS / NS_PER_S)  # nobody looked for years
    assert clock.now_ns() == machine.now_ns()


def test_a_clock_begins_no_earlier_than_its_former_life_ended():
    machine = SteppedClock(NOON_NS)
    assert ForwardClock(machine, NOON_NS - DAY_NS).ahead_ns() == 0
    assert ForwardClock(machine, NOON_NS + DAY_NS).ahead_ns() == DAY_NS


@pytest.mark.parametrize("step_s", [-HOUR_S, HOUR_S, CENTURY_S])
async def test_steady_time_knows_nothing_of_steps(step_s):
    clock = SteppedClock(NOON_NS)
    time = SteadyTime(clock)
    clock.set_wall(step_s)
    await clock.advance(5)
    assert time.now_ns() == NOON_NS + 5 * NS_PER_S


async def test_a_step_is_found_once_and_slewing_is_none():
    clock = SteppedClock(NOON_NS)
    detector = StepDetector(clock, least_s=2.0)
    for _ in range(10):
        await clock.advance(1)
        clock.set_wall(0.5)
        assert detector.look() == 0
    clock.set_wall(-HOUR_S)
    assert detector.look() == -HOUR_NS
    assert detector.look() == 0
    clock.set_wall(2.0)
    assert detector.look() == 2 * NS_PER_S


def test_the_limit_of_a_pause_doubles_up_to_the_longest():
    backoff = Backoff(SteppedClock(), first_s=0.5, longest_s=3.0, jitter=False)
    assert [backoff.next_s() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_pauses_begin_anew_after_a_success():
    backoff = Backoff(SteppedClock(), first_s=0.5, longest_s=3.0, jitter=False)
    for _ in range(4):
        backoff.next_s()
    backoff.reset()
    assert backoff.next_s() == 0.5


@pytest.mark.parametrize(("at", "limit_s"), [(0, 0.5), (1, 1.0), (4, 3.0)])
def test_with_jitter_a_pause_is_anything_up_to_the_limit(at, limit_s):
    pauses_s = []
    for _ in range(300):
        backoff = Backoff(SteppedClock(), first_s=0.5, longest_s=3.0)
        pauses_s.append([backoff.next_s() for _ in range(at + 1)][at])
    assert 0 <= min(pauses_s) < 0.2 * limit_s
    assert 0.8 * limit_s < max(pauses_s) <= limit_s


async def test_a_pause_sleeps_on_the_given_clock():
    clock = SteppedClock()
    backoff = Backoff(clock, first_s=2.0, longest_s=2.0, jitter=False)
    async with asyncio.TaskGroup() as tasks:
        pausing = tasks.create_task(backoff.pause(), name="pause")
        await clock.advance(1.9)
        assert not pausing.done()
        await clock.advance(0.2)
        assert pausing.done()
