"""The plan of a run: a scenario's timeline with its draws resolved by a seed.

Random numbers are those of numpy's PCG64, seeded by the run's seed and the entry's index, so that
an entry that is added at the end changes none before it, and every machine draws alike.
"""

from collections.abc import Iterator

import numpy as np

from testbed_scenarios.model import Scenario
from testbed_scenarios.timeline_model import (
    FaultDraw,
    InputStep,
    LinkFault,
    ModelFault,
    ServerRestart,
    SignalFault,
)

PlannedEntry = ModelFault | SignalFault | LinkFault | ServerRestart | InputStep
MS_NS, US_NS = 1_000_000, 1_000


def planned(scenario: Scenario, seed: int) -> tuple[PlannedEntry, ...]:
    """All faults and events of a run, in the order of their beginning; equal ones as in the file.

    seed: of the run, 0 or more.
    """
    entries: list[PlannedEntry] = []
    for index, entry in enumerate(scenario.timeline):
        if isinstance(entry, FaultDraw):
            entries += _drawn(entry, scenario.duration_ns, np.random.default_rng([seed, index]))
        else:
            entries.append(entry)
    return tuple(sorted(entries, key=begin_ns))


def begin_ns(entry: PlannedEntry) -> int:
    """The moment at which a fault begins or an event happens, in ns since the beginning."""
    return entry.at_ns if isinstance(entry, ServerRestart | InputStep) else entry.from_ns


def _drawn(
    entry: FaultDraw, duration_ns: int, random: np.random.Generator
) -> Iterator[ModelFault | SignalFault | LinkFault]:
    """One fault in each whole `every` of the draw's span, inside it.

    Moments are whole milliseconds where the entry's own times are.
    """
    end_ns = duration_ns if entry.to_ns is None else entry.to_ns
    times_ns = (entry.from_ns, entry.every_ns, entry.lasting.low_ns, entry.lasting.high_ns)
    step_ns = US_NS if any(time_ns % MS_NS for time_ns in times_ns) else MS_NS
    for begin in range(entry.from_ns, end_ns - entry.every_ns + 1, entry.every_ns):
        kind = entry.draw[random.integers(len(entry.draw))]
        low, high = entry.lasting.low_ns // step_ns, entry.lasting.high_ns // step_ns
        lasting_ns = int(random.integers(low, high, endpoint=True)) * step_ns
        latest = (entry.every_ns - lasting_ns) // step_ns
        from_ns = begin + int(random.integers(0, latest, endpoint=True)) * step_ns
        yield entry.fault(kind, from_ns, from_ns + lasting_ns)
