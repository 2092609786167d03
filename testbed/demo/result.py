"""The result of a demo: as JSON, as rows of a table, as sentences, and as an exit code."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.demo.rating import Rating
from testbed.demo.verdict import Counters
from testbed.terminal.run import Exit

COUNTERS: Mapping[str, str] = {
    "lost": "on the gateway's disk, and neither stored nor rejected with a reason",
    "duplicated": "stored more than once",
    "wrong": "stored with another value, time or quality",
    "silent": "offered by the machine, and neither stored nor reported as missing",
}
"""Meaning of each of the four counters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """The counters of a demo, its latency, and how well the prototype found the faults.

    problems: sentences about what kept the prototype from being judged as it was meant.  notes:
    sentences that are worth knowing about it.
    """

    samples_offered: int
    samples_stored: int
    counters: Counters
    latency_ms: Mapping[str, float | None]
    rating: Rating
    report: Path
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The result with the keys that scripts rely on."""
        return {
            "samples_offered": self.samples_offered,
            "samples_stored": self.samples_stored,
            "lost": self.counters.lost,
            "duplicated": self.counters.duplicated,
            "wrong": self.counters.wrong,
            "silent": self.counters.silent,
            "latency_ms": self.latency_ms,
            **self.rating.as_json(),
            "problems": self.problems,
            "notes": self.notes,
            "report": str(self.report),
        }

    def rows(self) -> dict[str, str]:
        """The result as labels and texts, in the order of a table."""
        fields = self.as_json()
        without = "not scored" if self.rating.has_labels else "no labels"
        scored = self.rating.as_json() if self.rating.is_scored else {}
        rates = {"F1": "f1", "false-alarm rate": "far", "missed-alarm rate": "mar"}
        return {
            "samples offered": f"{fields['samples_offered']:,}",
            "samples stored": f"{fields['samples_stored']:,}",
            **{name: str(fields[name]) for name in COUNTERS},
            "latency p50 / p99": self.latency,
            **{
                name: without if (rate := scored.get(key)) is None else f"{rate:.3f}"
                for name, key in rates.items()
            },
        }

    @property
    def latency(self) -> str:
        """Median and 99th percentile of the latency as text, such as `3.1 ms / 7.4 ms`."""
        return " / ".join(
            f"{latency:.1f} ms" if latency is not None else "-"
            for latency in self.latency_ms.values()
        )

    @property
    def loss(self) -> str:
        """The answer to the question whether anything was lost, in a sentence or two."""
        offered, stored = f"{self.samples_offered:,}", f"{self.samples_stored:,}"
        if not self.counters.clean:
            counts = ", ".join(f"{getattr(self.counters, name)} {name}" for name in COUNTERS)
            return (
                f"Yes, or it was stored wrongly. Of {offered} samples that the machine offered,"
                f" {stored} are stored: {counts}. That is a fault of the testbed."
            )
        if self.samples_stored < self.samples_offered:
            return (
                f"Not without a word. Of {offered} samples that the machine offered, {stored} are"
                " stored, and each of the others is in a stated gap or was rejected with a reason."
            )
        return f"No. All {offered} samples that the machine offered are stored, once and unchanged."

    def exit_code(self, *, min_f1: float | None, is_visitors: bool) -> Exit:
        """The exit code of the command.

        min_f1: smallest F1 that counts as reached; it decides alone where it is set.  is_visitors:
        whether a visitor's program was judged; then samples that are lost are the testbed's fault.
        """
        if not self.counters.clean:
            return Exit.FAULT if is_visitors else Exit.NEGATIVE
        if self.problems and not is_visitors:
            return Exit.FAULT
        if min_f1 is None:
            return Exit.NEGATIVE if self.problems else Exit.DONE
        return Exit.DONE if self.rating.reaches(min_f1) else Exit.NEGATIVE
