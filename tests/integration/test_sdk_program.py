"""A program that runs with `testbed_sdk.run` ends without a traceback, unless it has a bug."""

import asyncio
import signal
import sys

import pytest

from testbed_sdk import run
from tests import sources

PROGRAM = """
import asyncio
from testbed_sdk import Forbidden, Unavailable, run

async def work(error):
    raise error

async def main():
    print("ready", flush=True)
    {body}

run(main())
"""
PLAIN = """
import time
from testbed_sdk import Forbidden, Unavailable, run

def main():
    print("ready", flush=True)
    {body}

run(main)
"""
GROUP = "async with asyncio.TaskGroup() as tasks: tasks.create_task(work({error}))"
AWAY = 'Unavailable("the broker is away", hint="is it running?")'
REFUSED = 'Forbidden("you may not")'


async def ended(body: str, *, program: str = PROGRAM, interrupt: bool = False) -> tuple[int, str]:
    """Exit code and standard error of a program."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program.format(body=body)),
        cwd=sources.ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert await process.stdout.readline() == b"ready\n"
    if interrupt:
        process.send_signal(signal.SIGINT)
    _, error = await process.communicate()
    return process.returncode, error.decode()


async def test_ctrl_c_ends_it_without_a_word():
    assert await ended("await asyncio.sleep(60)", interrupt=True) == (130, "")


@pytest.mark.parametrize("form", ["raise {error}", GROUP], ids=["alone", "in a group"])
async def test_an_error_of_the_testbed_is_a_sentence_with_the_exit_code_of_its_branch(form):
    away = (3, "error: the broker is away\nhint: is it running?\n")
    assert await ended(form.format(error=AWAY)) == away
    assert await ended(form.format(error=REFUSED)) == (2, "error: you may not\n")


@pytest.mark.parametrize("form", ["raise {error}", GROUP], ids=["alone", "in a group"])
async def test_a_bug_of_the_program_keeps_its_traceback(form):
    code, error = await ended(form.format(error='KeyError("rig")'))
    assert code == 1
    assert "Traceback" in error
    assert "KeyError: 'rig'" in error


async def test_a_plain_function_ends_as_quietly():
    assert await ended("time.sleep(60)", program=PLAIN, interrupt=True) == (130, "")
    assert await ended(f"raise {REFUSED}", program=PLAIN) == (2, "error: you may not\n")
    code, error = await ended('raise KeyError("rig")', program=PLAIN)
    assert (code, "Traceback" in error) == (1, True)


def test_the_result_of_the_program_is_returned():
    async def main() -> int:
        return 7

    assert run(main()) == run(main) == run(lambda: 7) == 7
