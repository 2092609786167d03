"""Reads what the kernel shows of a running container's program.  Linux only, as root."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from testbed_runner.hardening import SEPARATE, ContainerEvidence

PROC = Path("/proc")
_LIMIT_NAME_CHARS = 26
"""Width of the first column of /proc/PID/limits."""


def read(inspected: Mapping[str, Any]) -> ContainerEvidence:
    """The evidence of a container: of its program, not of the engine's own first process.

    inspected: what the engine says of it while it runs.  Raises OSError if it has ended.
    """
    process = PROC / str(program(int(inspected["State"]["Pid"])))
    return ContainerEvidence(
        inspected=inspected,
        status=dict(_status(process)),
        shared=frozenset(kind for kind in SEPARATE if _shares(process, kind)),
        mounts=(process / "mountinfo").read_text().splitlines(),
        limits=dict(_limits(process)),
    )


def program(first: int) -> int:
    """The process id of the program that a container's first process has started, or that one."""
    children = PROC / str(first) / "task" / str(first) / "children"
    with suppress(OSError):  # a kernel without this list
        if numbers := children.read_text().split():
            return int(numbers[0])
    return first


def _status(process: Path) -> Iterator[tuple[str, str]]:
    for line in (process / "status").read_text().splitlines():
        name, _, value = line.partition(":")
        yield name, value.strip()


def _shares(process: Path, kind: str) -> bool:
    """Whether a process has the same namespace of a kind as this one; kinds may be missing."""
    with suppress(FileNotFoundError):
        return (process / "ns" / kind).readlink() == (PROC / "self" / "ns" / kind).readlink()
    return False


def _limits(process: Path) -> Iterator[tuple[str, str]]:
    for line in (process / "limits").read_text().splitlines()[1:]:
        name, values = line[:_LIMIT_NAME_CHARS].strip(), line[_LIMIT_NAME_CHARS:].split()
        yield name, values[1]
