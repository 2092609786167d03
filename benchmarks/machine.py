"""What results were measured on, and of which code."""

import os
import platform
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parent.parent


def described() -> dict[str, Any]:
    """Processor, cores, memory in GiB, system and Python, as they go into a file of results.

    A processor's name may be that of many years: family, model and MHz tell them apart.
    """
    first, _, _ = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")
    lines = (line.partition(":") for line in first.splitlines())
    facts = {name.strip(): value.strip() for name, _, value in lines}
    kind = {name: facts[name] for name in ("cpu family", "model", "cpu MHz") if name in facts}
    return {
        "cpu": facts.get("model name", platform.machine()),
        "cpu_kind": ", ".join(f"{name.removeprefix('cpu ')} {kind[name]}" for name in kind),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def in_words(facts: Mapping[str, Any]) -> str:
    """What `described` says, for who reads it."""
    kind = f" ({facts['cpu_kind']})" if facts.get("cpu_kind") else ""
    return (
        f"{facts.get('cores')} cores of {facts.get('cpu')}{kind}, {facts.get('memory_gib')} GiB,"
        f" {facts.get('system')}, Python {facts.get('python')}"
    )


def loop_ms() -> float:
    """How long a million additions in a loop of Python take now, the best of five: two machines of
    one name differ, and one machine from hour to hour.
    """
    return round(min(_loop_s() for _ in range(5)) * 1e3, 1)


def _loop_s() -> float:
    began_s = time.perf_counter()
    total = 0
    for number in range(1_000_000):
        total += number
    return time.perf_counter() - began_s


def commit() -> str:
    """The commit that is checked out; `-dirty` behind it if files differ from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=10"]
    output = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a constant
    return output.stdout.strip() or "unknown"
