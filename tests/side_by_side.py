"""Tests side by side on workers of pytest-xdist: order, those that run alone, end of a run."""

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import leftovers

SLOW = ("probes", "e2e", "faults")
PRODUCTS = ("conformance", "integration")
TEARDOWN_S = 40.0
"""Time that interrupted workers have to end what their tests started."""


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


def needs_telegraf(item: pytest.Item) -> bool:
    """Whether a test cannot begin before Telegraf is built: known from its parameter."""
    parameters = getattr(item, "callspec", None)
    return parameters is not None and parameters.id == "telegraf"


def order(item: pytest.Item, folder: str) -> tuple[bool, bool, int]:
    """A key to sort by: tests that run alone last, before them short ones, so that no worker waits
    long for another; those that need influxd or Telegraf late, as these may be being built.
    """
    if folder not in {*SLOW, *PRODUCTS}:
        return runs_alone(item), True, len(SLOW)
    is_late = needs_influxd(item) or needs_telegraf(item)
    return runs_alone(item), is_late, PRODUCTS.count(folder)


@contextlib.contextmanager
def on_the_machine(lock: Path, *, alone: bool) -> Iterator[None]:
    """Wait until a test may run, and let none in that may not run beside it.

    lock: a file that all workers of a run open; it need not exist.
    """
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


def configure(config: pytest.Config) -> None:
    """Let an interrupt end a run in order; of a run without workers, pytest alone takes care."""
    if is_worker():
        os.setsid()  # a Ctrl-C at the terminal is for the controller, which interrupts each once
    elif config.getoption("tx", None):
        leftovers.adopt_orphans()
        for each in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(each) is signal.SIG_DFL:  # `nohup` has SIGHUP ignored
                signal.signal(each, signal.default_int_handler)
        config.pluginmanager.register(_Controller(config), "interrupted workers")


class _Controller:
    """Hooks of the process that hands tests to the workers.

    pytest-xdist interrupts a worker five seconds after it was told to end, in the middle of its
    teardown, and kills it later.  So the workers are interrupted here, and have time.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._nodes: list[Any] = []

    @pytest.hookimpl
    def pytest_configure_node(self, node: Any) -> None:
        self._nodes.append(node)

    @pytest.hookimpl
    def pytest_keyboard_interrupt(self) -> None:
        for process in psutil.Process().children():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGINT)
        deadline_s = time.monotonic() + TEARDOWN_S
        while not all(map(_has_finished, self._nodes)) and time.monotonic() < deadline_s:
            time.sleep(0.05)  # noqa: TID251 - a worker needs real time

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self) -> Iterator[None]:
        yield  # until pytest-xdist has ended the workers
        left = leftovers.end_processes()
        left += leftovers.unmount_below(self._config._tmp_path_factory.getbasetemp())
        for text in left:
            self._config.get_terminal_writer().line(f"left behind by a test, ended: {text[:200]}")


def _has_finished(node: Any) -> bool:
    """Whether a worker has ended its session, or is gone."""
    channel = getattr(node, "channel", None)
    return hasattr(node, "workeroutput") or channel is None or channel.isclosed()
