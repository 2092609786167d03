"""The fault suite with tests side by side: most of them wait.

`python -m tests.faults --jobs 4 …` collects what pytest would run with the rest of the line, and
runs each test in a pytest of its own, `--jobs` at a time.  Those that need the machine for
themselves, as they compare latencies or time how long processes take to start, come one by one when
all others have ended.
"""

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import machine

HERE = Path(__file__).parent
ALONE = ("test_crowds.py", "weeks", "killed", "falls_silent", "lost_all", "registrations")
"""Words in the names of those that need the machine for themselves."""
FIRST = ("cut", "mqtt", "silent", "blackhole", "late")
"""Words in the names of the longest: begun first, so that nobody waits for one in the end."""
NONE_COLLECTED = 5


async def collected(arguments: Sequence[str]) -> list[str]:
    """The tests that are chosen, the long ones first."""
    pytest = [sys.executable, "-m", "pytest", str(HERE), "--collect-only", "-q", "-r", "N"]
    process = await asyncio.create_subprocess_exec(
        *pytest, *arguments, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    if process.returncode not in {0, NONE_COLLECTED}:
        sys.stdout.buffer.write(said)
        sys.exit(process.returncode)
    tests = [line for line in said.decode().splitlines() if "::" in line]
    return sorted(tests, key=lambda each: not any(word in each for word in FIRST))


async def run(test: str, arguments: Sequence[str]) -> bool:
    """Run one test; whether it passed.  What it said is shown when it has failed."""
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pytest", "-q", f"--basetemp={folder}/tests"),
            *(*rest(arguments), test),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=os.environ,
        )
        try:
            said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)  # it ends what it has started
                await process.communicate()
    passed = process.returncode == 0
    verdict = "passed" if passed else "FAILED"
    sys.stdout.write(f"{verdict} {test} in {time.monotonic() - began_s:.0f} s\n")
    if not passed:
        sys.stdout.write(said.decode(errors="replace"))
    sys.stdout.flush()
    return passed


def rest(arguments: Sequence[str]) -> Iterator[str]:
    """The line without `-k` and `-m`, which have done their work."""
    words = iter(arguments)
    for word in words:
        if word in {"-k", "-m"}:
            next(words, None)
        else:
            yield word


async def main(jobs: int, arguments: Sequence[str]) -> int:
    """Run all; 1 if any failed or there was none."""
    tests = await collected(arguments)
    apart = [each for each in tests if any(word in each for word in ALONE)]
    together = [each for each in tests if each not in apart]
    passed: list[bool] = []

    async def work() -> None:
        while together:
            passed.append(await run(together.pop(0), arguments))

    async with asyncio.TaskGroup() as tasks:
        for number in range(jobs):
            tasks.create_task(work(), name=f"job {number}")
    for test in apart:
        passed.append(await run(test, arguments))  # noqa: PERF401 - one by one
    sys.stdout.write(f"{sum(passed)} of {len(tests)} passed\n")
    return 0 if tests and all(passed) else 1


if __name__ == "__main__":
    _, option, count, *others = sys.argv
    if option != "--jobs":
        sys.exit("usage: python -m tests.faults --jobs N [what pytest takes]")
    os.environ["FAULTS_COMMIT"] = machine.commit()  # before a result makes it dirty
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(asyncio.run(main(int(count), others)))
    except KeyboardInterrupt:
        sys.exit("interrupted: results of the tests that ended are written")
