"""Ends programs of others with everything that they have started, whatever happens to us.

A variable in their environment tells them: a program that forks, and leaves its process group or
its session, hands it on.  Linux only.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

MOST_ROUNDS = 50
"""A program that forks faster than it is ended is given up after so many looks."""
PROC = Path("/proc")
_REMOVE = """
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    rm -rf -- "$0"
    sleep 0.2
    [ -e "$0" ] || exit 0
done
"""


def end_all(variable: str, value: str) -> int:
    """Kill every process of this user in whose environment the variable has this value.

    Returns how many there were.
    """
    count = 0
    for _ in range(MOST_ROUNDS):
        numbers = list(_with(f"{variable}={value}".encode()))
        if not numbers:
            break
        count += len(numbers)
        for number in numbers:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(number, signal.SIGKILL)
    return count


def _with(entry: bytes) -> Iterator[int]:
    """Ids of the processes that have an entry in their environment, but for zombies and us."""
    for folder in PROC.iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            with suppress(OSError):  # of another user, or over by now
                if entry in (folder / "environ").read_bytes().split(b"\0"):
                    yield int(folder.name)


@asynccontextmanager
async def ended_with_us(variable: str, value: str) -> AsyncIterator[None]:
    """Have all programs with this variable ended on leaving, and also if we are killed before."""
    ending = 'exec "$0" -m testbed.processes.leftovers "$1" "$2"'
    try:
        async with _after_us(ending, sys.executable, variable, value):
            yield
    finally:
        end_all(variable, value)


@asynccontextmanager
async def removed_with_us(folder: Path) -> AsyncIterator[None]:
    """Have a temporary folder removed if we are killed before this is left.

    Our child processes end at the same time, and may write into it until they have.
    """
    async with _after_us(_REMOVE, str(folder)):
        yield


@asynccontextmanager
async def _after_us(script: str, *words: str) -> AsyncIterator[None]:
    """Have a shell run a script if this process ends before the block does, however it ends.

    It waits for the end of a pipe that only this process holds.  words: $0, $1, … of the script.
    """
    guard = await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", f"read -r _; {script}", *words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            guard.kill()
        await asyncio.shield(guard.wait())


if __name__ == "__main__":
    end_all(*sys.argv[1:3])
