"""What results were measured on."""

import os
import platform
from pathlib import Path
from typing import Any

import psutil


def described() -> dict[str, Any]:
    """Processor, cores, memory in GiB, system and Python, as they go into a file of results."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [one.partition(":")[2].strip() for one in lines if one.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
