"""Pauses between attempts."""

import asyncio

import pytest

from broker.clock import Backoff, SteppedClock


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
