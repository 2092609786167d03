"""How long a run took, and which member it waited for."""

from collections import Counter
from dataclasses import dataclass, field

from broker.clock import NS_PER_S


@dataclass(slots=True)
class ClockStatistics:
    """Time of the scenario and real time of a run, and the members' answers.

    virtual_ns, wall_ns: of the quanta so far.  answers_s: member -> real time of its answer to each
    quantum that it took part in.  slowest: member -> quanta in which all others waited for it.
    is_virtual: False for a run at wall time.
    """

    virtual_ns: int = 0
    wall_ns: int = 0
    answers_s: dict[str, list[float]] = field(default_factory=dict)
    slowest: Counter[str] = field(default_factory=Counter)
    is_virtual: bool = True

    @property
    def speed(self) -> float:
        """Seconds of virtual time a second of real time; 0 before the first quantum."""
        return self.virtual_ns / self.wall_ns if self.wall_ns else 0.0

    def note(self, quantum_ns: int, wall_ns: int, answers_s: dict[str, float]) -> None:
        """Count a quantum: its length, the real time it took, and that of each answer."""
        self.virtual_ns += quantum_ns
        self.wall_ns += wall_ns
        for name, answer_s in answers_s.items():
            self.answers_s.setdefault(name, []).append(answer_s)
        if answers_s:
            self.slowest[max(answers_s, key=lambda name: answers_s[name])] += 1

    def __str__(self) -> str:
        wall_s, virtual_s = self.wall_ns / NS_PER_S, self.virtual_ns / NS_PER_S
        if not self.is_virtual:
            return f"{virtual_s:g} s of the scenario in {wall_s:.1f} s of wall time"
        return f"{virtual_s:g} s of virtual time in {wall_s:.1f} s, {self.speed:.0f} times as fast"
