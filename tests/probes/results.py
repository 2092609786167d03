"""What the probes found, judged, counted, and kept in benchmarks/results/access.json."""

import fcntl
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from benchmarks import machine
from tests.probes import table

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "access.json"
PAGE = ROOT / "docs" / "security.md"
MOST_TOLD = 40


@dataclass
class Found:
    """One suite's probes.  wrong: those whose answer is not what the policy says, in words."""

    probes: int = 0
    allowed: int = 0
    """Of those that were to be refused."""
    wrong: list[str] = field(default_factory=list)

    def hold(self, probe: str, was: bool, *, may: bool) -> None:  # noqa: FBT001 - what was and may
        """Count one, and keep it if it went otherwise than the policy says."""
        self.probes += 1
        if was != may:
            self.allowed += was
            self.wrong.append(f"{probe}: {'allowed' if was else 'refused'}")

    def fault(self, probe: str, what: str) -> None:
        """Keep one that was answered wrongly in another way."""
        self.wrong.append(f"{probe}: {what}")

    def judge(self) -> None:
        """Fail with the probes that went wrong."""
        more = len(self.wrong) - MOST_TOLD
        lines = "\n".join([*self.wrong[:MOST_TOLD], *([f"and {more} more"] if more > 0 else [])])
        if self.wrong:
            pytest.fail(f"{len(self.wrong)} of {self.probes} probes:\n{lines}", pytrace=False)


def keep(more: Mapping[str, Any], path: Path = RESULTS) -> None:
    """Put these into the file; a mapping goes into the one that is there.

    Several may do so at once.
    """
    with (Path(tempfile.gettempdir()) / "connected-testbed-probes.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _keep(more, path)


def _keep(more: Mapping[str, Any], path: Path) -> None:
    stored: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    _merge(stored, more)
    stored["offline_session_messages"] = sum(stored.get("offline_sessions", {}).values())
    stored["machine"] = machine.described() | {"load": round(os.getloadavg()[0], 1)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(stored, indent=2, sort_keys=True) + "\n")


def _merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = value


def tell() -> None:
    """Write the table of the page on security, once everything in it was measured."""
    results = kept()
    if results.keys() >= table.NEEDS:
        PAGE.write_text(table.put_into(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")


def kept(path: Path = RESULTS) -> Mapping[str, Any]:
    """What is in the file."""
    stored: Mapping[str, Any] = json.loads(path.read_text())
    return stored
