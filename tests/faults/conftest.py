"""Sizes, seeds and results of the fault suite."""

import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks import crowds, machine
from broker.clock import WallClock, text_of
from testbed.demo.verdict import Counters
from tests.faults import table
from tests.faults.rig import Load

RESULTS = machine.ROOT / "benchmarks" / "results" / "faults.json"
HELD = RESULTS.with_name("data-path.json")
PAGE = machine.ROOT / "docs" / "reliability.md"
FULL_TIMEOUT_S = 3_600


@dataclass(frozen=True)
class Size:
    """kills: of each part.  cut_s, stopped_s: how long a wire is cut, the broker stopped.

    blackholes: tries.  overload, overload_s: of the load that is too much.  frozen_s: how long a
    subscriber is stopped.  clients: of the crowds that come back.  readers: of the crowds that read
    live, each for reading_s.
    """

    name: str
    load: Load
    kills: int
    damages: int
    cut_s: float
    stopped_s: float
    within: float
    """Recovery times may be so many times the goal: a machine that tests is busy."""
    blackholes: int
    overload: int
    """Streams of 100 signals at 10 Hz; at full size twice what `make bench` saw held."""
    overload_s: float
    frozen_s: float
    full_disk_s: float
    weeks: int
    """Over which the samples of one publisher are spread."""
    settle_s: float
    """Until all of these are stored, or dead letters."""
    clients: tuple[int, ...]
    readers: tuple[int, ...]
    reading_s: float
    registrations: int
    """Streams that are registered at once."""


def _held_streams() -> int:
    """As many as the chain held, with time stamps of their own."""
    measured = json.loads(HELD.read_text(encoding="utf-8"))
    return round(measured["held_values_per_s"]["own"] / 1_000)


CI = Size(
    "ci",
    Load(20, 10.0),
    kills=1,
    damages=1,
    cut_s=8.0,
    stopped_s=25.0,
    within=4.0,
    blackholes=2,
    overload=20,
    overload_s=10.0,
    frozen_s=6.0,
    full_disk_s=15.0,
    weeks=1_000,
    settle_s=120.0,
    clients=(60,),
    readers=(40,),
    reading_s=5.0,
    registrations=500,
)
FULL = Size(
    "full",
    Load(100, 10.0),
    kills=20,
    damages=5,
    cut_s=600.0,
    stopped_s=120.0,
    within=1.0,
    blackholes=50,
    overload=2 * _held_streams(),
    overload_s=120.0,
    frozen_s=600.0,
    full_disk_s=120.0,
    weeks=10_000,
    settle_s=600.0,
    clients=crowds.CLIENTS,
    readers=crowds.READERS,
    reading_s=crowds.MEASURED_S,
    registrations=5_000,
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full-size", action="store_true", help="the fault suite as its goals say")
    parser.addoption("--fault-seed", type=int, default=None, help="repeat a fault test's moments")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--full-size"):
        for item in items:
            item.add_marker(pytest.mark.timeout(FULL_TIMEOUT_S))


@pytest.fixture
def size(request: pytest.FixtureRequest) -> Size:
    """How large the suite runs."""
    return FULL if request.config.getoption("--full-size") else CI


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """What random moments follow from; printed when a test fails."""
    given = request.config.getoption("--fault-seed")
    return int(given if given is not None else secrets.randbelow(1_000_000))


@dataclass(frozen=True)
class Result:
    """One row of the results."""

    fault: str
    setup: str
    size: str
    seed: int
    offered: int
    lost: int
    duplicated: int
    wrong: int
    silent: int
    gap_ratio: float | None
    recovery_s: float | None
    at: str
    commit: str
    machine: dict[str, Any]


Record = Callable[..., Result]


@pytest.fixture
def record(request: pytest.FixtureRequest, size: Size, seed: int) -> Record:
    """Keep a result; at full size in the file, where it replaces the former of its fault."""
    commit = os.environ.get("FAULTS_COMMIT") or machine.commit()

    def keep(
        fault: str,
        setup: str,
        counters: Counters,
        offered: int,
        *,
        gap_ratio: float | None = None,
        recovery_s: float | None = None,
    ) -> Result:
        row = Result(
            fault,
            setup,
            size.name,
            seed,
            offered,
            **asdict(counters),
            gap_ratio=None if gap_ratio is None else round(gap_ratio, 3),
            recovery_s=None if recovery_s is None else round(recovery_s, 2),
            at=text_of(WallClock().now_ns())[:19] + "Z",
            commit=commit,
            machine=machine.described(),
        )
        request.node.user_properties.append(("fault", json.dumps(asdict(row))))
        if size is FULL or os.environ.get("FAULTS_RESULTS"):
            _merge(row)
        return row

    return keep


def _merge(row: Result) -> None:
    """Into the file, which other processes of the suite write too."""
    path = Path(os.environ.get("FAULTS_RESULTS", RESULTS))
    path.parent.mkdir(parents=True, exist_ok=True)
    with (Path(tempfile.gettempdir()) / "connected-testbed-faults.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _merge_alone(row, path)


def _merge_alone(row: Result, path: Path) -> None:
    rows = json.loads(path.read_text()) if path.exists() else []
    others = [each for each in rows if (each["fault"], each["setup"]) != (row.fault, row.setup)]
    rows = sorted([*others, asdict(row)], key=lambda each: (each["fault"], each["setup"]))
    path.write_text("[\n" + ",\n".join(f"  {json.dumps(each)}" for each in rows) + "\n]\n")
    if path == RESULTS:
        table.put_into(PAGE, rows)
