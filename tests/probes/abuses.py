"""What programs in containers do to have others suffer, and how the quiet tries are run.

The quiet ones are `testbed_runner.abuses`.  `benchmarks` runs the noisy ones beside a testbed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from testbed_runner import abuses

REFUSED = "restart the machine", "another kernel", "set the clock"
"""Tries that are not made where they would succeed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """A program in Python that takes what it can of one thing.

    harm: what it must not do to others.  hits: the limits that it is said to have hit: `memory`,
    `pids`, `disk`.  ends: whether it ends by itself.
    """

    name: str
    harm: str
    text: str
    hits: frozenset[str] = frozenset()
    ends: bool = False


NOISES: Sequence[Noise] = (
    Noise(
        name="fork bomb",
        harm="fill the machine's table of processes",
        text="import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        hits=frozenset({"pids"}),
    ),
    Noise(
        name="threads without end",
        harm="fill the machine's table of processes",
        text="import threading, time\n"
        "while True:\n"
        "    try: threading.Thread(target=time.sleep, args=(600,)).start()\n"
        "    except RuntimeError: time.sleep(0.1)",
        hits=frozenset({"pids"}),
    ),
    Noise(
        name="memory bomb",
        harm="take memory from others, or have the kernel end them",
        text="content = []\nwhile True: content.append(b'x' * 2**20)",
        hits=frozenset({"memory"}),
        ends=True,
    ),
    Noise(
        name="memory of children",
        harm="take memory from others in many small parts",
        text="import os, time\n"
        "for _ in range(20):\n"
        "    if not os.fork(): content = b'x' * 2**24; time.sleep(600)\n"
        "while True: time.sleep(1)",
        hits=frozenset({"memory"}),
    ),
    Noise(
        name="full disk",
        harm="fill the machine's disk or memory",
        text="import time\nfile = open('/tmp/full', 'wb', buffering=0)\n"
        "try:\n    while True: file.write(bytes(2**16))\n"
        "except OSError as exc: print(exc, flush=True); time.sleep(600)",
        hits=frozenset({"disk"}),
    ),
    Noise(
        name="full shared memory",
        harm="fill the machine's memory past the disk",
        text="file = open('/dev/shm/full', 'wb', buffering=0)\nimport time; time.sleep(0.5)\n"
        "while True: file.write(bytes(2**16))",
        hits=frozenset({"disk"}),
        ends=True,
    ),
    Noise(
        name="a million files",
        harm="use up the kernel's memory for files",
        text="import os, time\ntime.sleep(0.5)\n"
        "for number in range(10**6): os.close(os.open(f'/tmp/{number}', os.O_CREAT))",
        hits=frozenset({"disk"}),
        ends=True,
    ),
    Noise(
        name="open files",
        harm="use up the machine's table of open files",
        text="import os\nfiles = []\nwhile True: files.append(os.open('/dev/null', 0))",
        ends=True,
    ),
    Noise(
        name="all cores busy",
        harm="take processor time from others",
        text="import os\nos.fork(); os.fork()\nwhile True: pass",
    ),
    Noise(
        name="output without end",
        harm="fill the disk with its log, or keep the engine busy",
        text="import os\nlines = (b'x' * 79 + b'\\n') * 800\nwhile True: os.write(1, lines)",
    ),
    Noise(
        name="a line without end",
        harm="have others hold it in memory",
        text="import os\nline = b'x' * 2**16\nwhile True: os.write(1, line)",
    ),
    Noise(
        name="control characters",
        harm="write to terminals and logs of others in its own way",
        text="import os, time\n"
        'while True: os.write(2, b\'\\x1b[2J\\x1b]0;owned\\x07\\r\\n\\0{"level":"x"}\\n\');'
        " time.sleep(0.01)",
    ),
    Noise(
        name="signals to all",
        harm="end processes of others",
        text="import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "while True:\n    try: os.kill(-1, signal.SIGTERM)\n"
        "    except OSError: pass\n    time.sleep(0.01)",
    ),
    Noise(
        name="a flood of crashes",
        harm="fill a disk with dumps",
        text="import os, time\n"
        "while True:\n    if not os.fork(): os.abort()\n    os.wait(); time.sleep(0.01)",
    ),
    Noise(
        name="watches and queues",
        harm="use up what the kernel counts by user",
        text="import ctypes, time\nlibc = ctypes.CDLL(None)\n"
        "while libc.inotify_init1(0) >= 0: pass\n"
        "while libc.msgget(0, 0o1600) >= 0: pass\ntime.sleep(600)",
    ),
    Noise(
        name="connections without end",
        harm="use up the runner's open files",
        text="import socket, time\nopened = []\n"
        "while True:\n"
        "    try: opened.append(socket.create_connection(('127.0.0.1', 8600), 1))\n"
        "    except OSError: time.sleep(0.05)",
    ),
    Noise(
        name="system calls without end",
        harm="take the kernel's time from others",
        text="import os\nwhile True: os.stat('/'); os.getppid(); os.sched_yield()",
    ),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a try."""

    succeeded: bool
    detail: str


def order(targets: Mapping[str, Any]) -> str:
    """The value of the variable ABUSES for `testbed_runner.abuses.RUNNER`, for all quiet tries."""
    tries = [(each.name, each.text) for each in abuses.ABUSES]
    return orjson.dumps([{**abuses.NOWHERE, **targets}, tries, abuses.SECONDS]).decode()


def harmless_order(targets: Mapping[str, Any]) -> str:
    """Likewise, without those that are not made where they would succeed."""
    tries = [(each.name, each.text) for each in abuses.ABUSES if each.name not in REFUSED]
    return orjson.dumps([{**abuses.NOWHERE, **targets}, tries, abuses.SECONDS]).decode()


def outcomes(printed: str) -> dict[str, Outcome]:
    """The outcome of each try, by name, from what RUNNER printed."""
    lines = [orjson.loads(line) for line in printed.splitlines() if line.startswith("[")]
    return {name: Outcome(succeeded, detail) for name, succeeded, detail in lines}
