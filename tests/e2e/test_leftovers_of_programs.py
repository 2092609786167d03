"""Programs of others are ended with everything that they started, whatever happens to us."""

import asyncio
import os
import secrets
import subprocess
import sys

from broker.clock import WallClock
from testbed.processes import leftovers

FORKS = """
import os, time
os.fork()
os.setsid() if os.getpid() != os.getsid(0) else None
os.fork()
time.sleep(60)
"""


def start_forking(marker):
    environment = os.environ | {"TESTBED_RUN": marker}
    return subprocess.Popen([sys.executable, "-c", FORKS], env=environment, start_new_session=True)


def alive(marker):
    return set(leftovers._with(f"TESTBED_RUN={marker}".encode()))


async def become(count, marker):
    """Whether there are so many programs with a marker within some seconds."""
    for _ in range(1_000):
        if len(alive(marker)) == count:
            return True
        await WallClock().sleep(0.02)
    return False


async def test_a_program_that_forks_and_leaves_its_group_is_ended_whole():
    marker = secrets.token_hex(8)
    async with leftovers.ended_with_us("TESTBED_RUN", marker):
        program = start_forking(marker)
        assert await become(4, marker)
    assert await become(0, marker)
    program.wait()


GUARDED = """
import asyncio, sys
from testbed.processes import leftovers
async def main():
    async with leftovers.ended_with_us("TESTBED_RUN", sys.argv[1]):
        print("guarded", flush=True)
        await asyncio.get_running_loop().create_future()
asyncio.run(main())
"""


async def test_they_are_ended_when_we_are_killed():
    marker = secrets.token_hex(8)
    guarded = await asyncio.create_subprocess_exec(
        sys.executable, "-c", GUARDED, marker, stdout=asyncio.subprocess.PIPE
    )
    assert await guarded.stdout.readline() == b"guarded\n"
    program = start_forking(marker)
    assert await become(4, marker)
    guarded.kill()
    await guarded.wait()
    assert await become(0, marker)
    program.wait()
