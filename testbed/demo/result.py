"""The result of a demo, as JSON and as rows of a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.demo.verdict import Counters, Detection


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """The counters of a demo, its latency, and how well the prototype found the faults."""

    samples_offered: int
    samples_stored: int
    counters: Counters
    latency_ms: Mapping[str, float | None]
    detection: Detection
    report: Path

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
            "f1": self.detection.f1,
            "far": self.detection.far,
            "mar": self.detection.mar,
            "report": str(self.report),
        }

    def rows(self) -> dict[str, str]:
        """The result as labels and texts, in the order of a table."""
        fields = self.as_json()
        rates = {"F1": "f1", "false-alarm rate": "far", "missed-alarm rate": "mar"}
        return {
            "samples offered": f"{fields['samples_offered']:,}",
            "samples stored": f"{fields['samples_stored']:,}",
            **{name: str(fields[name]) for name in ("lost", "duplicated", "wrong", "silent")},
            "latency p50 / p99": " / ".join(
                f"{latency:.1f} ms" if latency is not None else "-"
                for latency in self.latency_ms.values()
            ),
            **{
                name: "no labels" if fields[key] is None else f"{fields[key]:.3f}"
                for name, key in rates.items()
            },
        }
