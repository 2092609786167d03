"""What each part has cost: CPU-seconds of its processes, as the kernel counts them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil

PARTS: Sequence[tuple[str, str]] = (
    ("benchmarks.source", "source"),
    ("telegraf-gateway.toml", "gateway"),
    ("telegraf-recorder.toml", "recorder"),
    ("tutorial/gateway.py", "gateway"),
    ("tutorial/recorder.py", "recorder"),
    ("benchmarks.stepped", "gateway"),
    ("gateway run", "gateway"),
    ("testbed recorder", "recorder"),
    ("testbed up", "api"),
    ("nats-server", "broker"),
    ("mosquitto", "broker"),
    ("influxd", "store"),
    ("postgres", "registry"),
)
"""What stands in a process's command line, and which part it is then; the first that fits."""
CHAIN = ("gateway", "broker", "recorder", "store")


@dataclass(frozen=True, slots=True)
class Reading:
    """CPU-seconds (user and system, all threads) and resident bytes of each part so far."""

    cpu_s: Mapping[str, float]
    bytes: Mapping[str, int]

    def since(self, before: "Reading") -> dict[str, float]:
        """CPU-seconds of each part between two readings."""
        return {part: used - before.cpu_s.get(part, 0.0) for part, used in self.cpu_s.items()}


def read() -> Reading:
    """All processes that this one has started, by part."""
    cpu_s: dict[str, float] = defaultdict(float)
    held: dict[str, int] = defaultdict(int)
    for process in psutil.Process().children(recursive=True):
        try:
            part = _part_of(" ".join(process.cmdline()))
            times = process.cpu_times()
            if part is not None:
                cpu_s[part] += times.user + times.system
                held[part] += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return Reading(cpu_s, held)


def pids(part: str) -> list[int]:
    """The processes of one part."""
    numbers = []
    for process in psutil.Process().children(recursive=True):
        try:
            if _part_of(" ".join(process.cmdline())) == part:
                numbers.append(process.pid)
        except psutil.NoSuchProcess:
            continue
    return numbers


def _part_of(command: str) -> str | None:
    return next((part for text, part in PARTS if text in command), None)
