"""The verdict: what the source offered, held against what became of it.

The four counters are those of docs/reference/counters.md.  A gap that reaches more than one period
past what is missing is wrong, as is one that covers a stored sample.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from broker.batch import Gap, Series
from broker.clock import NS_PER_S
from testbed.demo import verdict
from testbed.demo.verdict import Counters

Id = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What became of one stream.

    offered: (signal, time_ns) -> value, from the source's ledger.  stored, gaps: from the API.
    spooled: what the gateway had committed.  dead: dead letters with a signal and a time.  down:
    spans, both ends included, in which the source itself was not there to offer anything.
    """

    offered: Mapping[Id, float]
    stored: Mapping[str, Series]
    spooled: Sequence[Id]
    dead: Sequence[Id]
    gaps: Sequence[Gap]
    period_ns: int
    down: Sequence[tuple[int, int]] = ()


def judge(evidence: Iterable[Evidence]) -> Counters:
    """The sum over all streams."""
    total = Counters(0, 0, 0, 0)
    for run in evidence:
        counters = verdict.counters(
            run.offered, run.stored, run.spooled, dead=run.dead, gaps=run.gaps
        )
        wrong = counters.wrong + sum(_overreach(gap, run) for gap in run.gaps)
        wrong += sum(letter in run.offered for letter in run.dead)
        total = Counters(
            total.lost + counters.lost,
            total.duplicated + counters.duplicated,
            total.wrong + wrong,
            total.silent + counters.silent,
        )
    return total


def not_stored(names: Iterable[str], evidence: Iterable[Evidence]) -> Iterator[str]:
    """Say for each stream with an offered sample that is not stored how many, and when in the run.

    For whoever looks into a failure: samples in a gap, a dead letter or the spool count here too.
    """
    for name, run in zip(names, evidence, strict=True):
        stored = {(key, at) for key, series in run.stored.items() for at in series.time_ns.tolist()}
        every = sorted(time_ns for _, time_ns in run.offered)
        missing = sorted(time_ns for _, time_ns in run.offered.keys() - stored)
        if missing:
            first_s, last_s, whole_s = (
                (time_ns - every[0]) / NS_PER_S for time_ns in (missing[0], missing[-1], every[-1])
            )
            yield (
                f"{name}: {len(missing)} of {len(every)} not stored, from {first_s:.1f} to"
                f" {last_s:.1f} s of {whole_s:.1f} s; {len(run.spooled)} in the spool"
            )


def _overreach(gap: Gap, run: Evidence) -> int:
    """How many signals have no missing sample within a period of both of the gap's ends."""
    stored = {name: set(series.time_ns.tolist()) for name, series in run.stored.items()}
    count = 0
    for name in gap.signals or tuple(run.stored):
        missing = [
            time_ns
            for signal, time_ns in run.offered
            if signal == name
            and gap.from_ns <= time_ns <= gap.to_ns
            and time_ns not in stored[name]
        ]
        for begin_ns, end_ns in run.down:
            if begin_ns <= gap.to_ns and end_ns >= gap.from_ns:
                missing += [max(begin_ns, gap.from_ns), min(end_ns, gap.to_ns)]
        count += not missing or (
            min(missing) - gap.from_ns > run.period_ns or gap.to_ns - max(missing) > run.period_ns
        )
    return count


def gap_seconds(gaps: Iterable[Gap], since_ns: int, until_ns: int) -> float:
    """How much of a span gaps cover together, in s."""
    covered, end_ns = 0, since_ns
    for gap in sorted(gaps, key=lambda each: each.from_ns):
        begin_ns, stop_ns = max(gap.from_ns, end_ns), min(gap.to_ns, until_ns)
        covered += max(stop_ns - begin_ns, 0)
        end_ns = max(end_ns, stop_ns)
    return covered / 1e9
