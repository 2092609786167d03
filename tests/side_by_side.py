"""Tests side by side: the order in which workers of pytest-xdist take them, and who runs alone."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

SLOW = ("probes", "e2e", "faults")
PRODUCTS = ("conformance", "integration")


def is_worker() -> bool:
    """Whether this process is one of several that run the tests."""
    return "PYTEST_XDIST_WORKER" in os.environ


def runs_alone(item: pytest.Item) -> bool:
    """Whether no other test may run meanwhile: it measures latencies, or much of the machine."""
    return item.get_closest_marker("alone") is not None


def needs_influxd(item: pytest.Item) -> bool:
    """Whether a test cannot begin before influxd is built.

    Known from a fixture, from a parameter's name, or from the marker where neither says so.
    """
    parameters = getattr(item, "callspec", None)
    return (
        item.get_closest_marker("influxd") is not None
        or "influxd" in getattr(item, "fixturenames", ())
        or (parameters is not None and "influxdb" in parameters.id)
    )


def order(item: pytest.Item, folder: str) -> tuple[bool, bool, int]:
    """A key to sort by: tests that run alone last, before them short ones, so that no worker waits
    long for another; those that need influxd late, as it may be being built.
    """
    if folder not in {*SLOW, *PRODUCTS}:
        return runs_alone(item), True, len(SLOW)
    return runs_alone(item), needs_influxd(item), PRODUCTS.count(folder)


@contextlib.contextmanager
def on_the_machine(lock: Path, *, alone: bool) -> Iterator[None]:
    """Wait until a test may run, and let none in that may not run beside it.

    lock: a file that all workers of a run open; it need not exist.
    """
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
