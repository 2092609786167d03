"""Ctrl-C: the first ends a command in order, further ones do not disturb its end."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from broker.clock import WallClock
from broker.errors import Unavailable
from testbed.terminal import run


@pytest.fixture(autouse=True)
def handler():
    """Python's own handler before and after: a command that was interrupted ignores all others."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


async def interrupted(steps, times):
    """A command that is interrupted, and again while it ends."""
    try:
        interrupt()
        await asyncio.get_running_loop().create_future()
    finally:
        for _ in range(times):
            interrupt()
            await WallClock().sleep(0.001)
        steps.append("ended in order")


@pytest.mark.parametrize("times", [0, 1, 4])
def test_a_command_ends_in_order_however_often_it_is_interrupted(times, capfd):
    steps = []
    with pytest.raises(SystemExit) as ended:
        run.run(interrupted(steps, times))
    assert (ended.value.code, steps) == (130, ["ended in order"])
    assert capfd.readouterr() == ("", "")
    interrupt()  # as Python ends


async def blocked(steps):
    """A command whose loop never hears of the first interrupt."""
    try:
        interrupt()
        interrupt()
        steps.append("went on")
    finally:
        interrupt()
        steps.append("ended")


def test_a_second_interrupt_ends_a_call_that_blocks(capfd):
    steps = []
    with pytest.raises(SystemExit) as ended:
        run.run(blocked(steps))
    assert (ended.value.code, steps) == (130, ["ended"])
    assert capfd.readouterr() == ("", "")


async def failing():
    try:
        interrupt()
        await asyncio.get_running_loop().create_future()
    finally:
        raise Unavailable("the server has ended, as it was interrupted too")


def test_what_fails_because_of_the_interrupt_is_no_error(capfd):
    with pytest.raises(SystemExit) as ended:
        run.run(failing())
    assert ended.value.code == 130
    assert capfd.readouterr() == ("", "")


async def done():
    return 4


def test_a_command_that_nobody_interrupts_leaves_the_handler_as_it_was():
    assert run.run(done()) == 4
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


HANGING = """
import asyncio, os, signal
from testbed.terminal import interruption, run

interruption.AT_ONCE_AFTER_S = 0.0

async def hanging():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.get_running_loop().create_future()
    finally:
        asyncio.get_running_loop().call_later(0.01, os.kill, os.getpid(), signal.SIGINT)
        await asyncio.get_running_loop().create_future()

run.run(hanging())
"""


def test_an_end_that_hangs_is_cut_short_by_a_late_interrupt():
    done = subprocess.run(  # noqa: S603 - our own
        [sys.executable, "-c", HANGING], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


@pytest.mark.parametrize(("serves", "code"), [(False, 130), (True, 0)])
def test_sigterm_is_the_right_end_only_of_what_runs_until_it_is_stopped(serves, code):
    async def terminated():
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.get_running_loop().create_future()

    with pytest.raises(SystemExit) as ended:
        run.run(terminated(), serves=serves)
    assert ended.value.code == code
