"""Resources that the programs of a run take: CPU, memory, and the time until they answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import psutil

from broker.clock import NS_PER_S, Clock
from testbed.processes.program import PrototypeProcess
from testbed_scenarios.observations import ResourceSamples

EVERY_S = 0.2
"""Real time between two measurements."""


@dataclass(slots=True)
class _Measured:
    """The measurements of one program; cpu_s: CPU time until the last one, at monotonic time."""

    time_ns: list[int] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    lag_ns: list[int] = field(default_factory=list)
    answers: int = 0
    cpu_s: float = 0.0
    measured_ns: int = 0


class ResourceMeter:
    """Measures programs with all their children now and then.

    now_ns: the present instant of the run.  answers: by program, the real time of each answer so
    far, in s.
    """

    def __init__(
        self,
        clock: Clock,
        now_ns: Callable[[], int],
        answers: Callable[[], Mapping[str, list[float]]],
    ) -> None:
        self._clock = clock
        self._now_ns = now_ns
        self._answers = answers
        self._processes: dict[str, psutil.Process] = {}
        self._columns: dict[str, _Measured] = {}

    def add_all(self, programs: Mapping[str, PrototypeProcess]) -> None:
        """Measure programs from now on."""
        for name, program in programs.items():
            try:
                self._processes[name] = psutil.Process(program.pid)
            except psutil.NoSuchProcess:
                continue  # it has ended at once
            self._columns[name] = _Measured(measured_ns=self._clock.monotonic_ns())

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            await self._clock.sleep(EVERY_S)
            self.measure()

    def measure(self) -> None:
        """Measure every program that still runs."""
        for name, process in self._processes.items():
            try:
                self._measure(self._columns[name], name, process)
            except psutil.Error:
                continue  # it has ended

    def _measure(self, columns: _Measured, name: str, process: psutil.Process) -> None:
        own = process.cpu_times()
        cpu_s = own.user + own.system + own.children_user + own.children_system
        memory = process.memory_info().rss
        for child in process.children(recursive=True):
            times = child.cpu_times()
            cpu_s += times.user + times.system
            memory += child.memory_info().rss
        monotonic_ns = self._clock.monotonic_ns()
        passed_s = (monotonic_ns - columns.measured_ns) / NS_PER_S
        if passed_s <= 0:
            return
        answers = self._answers().get(name, [])
        lag_s = max(answers[columns.answers :], default=0.0)
        columns.time_ns.append(self._now_ns())
        columns.cpu.append(max(cpu_s - columns.cpu_s, 0.0) / passed_s)
        columns.memory.append(float(memory))
        columns.lag_ns.append(round(lag_s * NS_PER_S))
        columns.answers, columns.cpu_s, columns.measured_ns = len(answers), cpu_s, monotonic_ns

    def samples(self) -> dict[str, ResourceSamples]:
        """All measurements by program."""
        return {
            name: ResourceSamples(
                np.array(columns.time_ns, np.int64),
                np.array(columns.cpu, np.float64),
                np.array(columns.memory, np.float64),
                np.array(columns.lag_ns, np.int64),
            )
            for name, columns in self._columns.items()
        }
