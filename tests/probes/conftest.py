"""The server that is probed, who probes it, and what becomes of the results."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from broker.clock import WallClock
from tests.probes import cast as casting
from tests.probes import results, wire
from tests.probes.backends import BACKENDS, Processes
from tests.probes.cast import WATCHER, Cast
from tests.probes.results import Found

CLOCK = WallClock()
KNOWN_S = 30.0


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("probes")
    group.addoption("--trials", type=int, default=3, help="revocations until silence, each way")
    group.addoption("--fuzz-s", type=float, default=0, help="seconds of fuzz for each decoder")
    group.addoption("--share", type=int, default=8, help="ask one in so many of all questions")
    group.addoption("--keep-results", action="store_true", help="in benchmarks/results/access.json")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    patience_s = 60 + config.getoption("--fuzz-s")
    for item in items:
        if item.path.name == "test_decoders.py":
            item.add_marker(pytest.mark.timeout(patience_s))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("--keep-results"):
        results.tell()


@pytest.fixture(params=[pytest.param("mosquitto", marks=pytest.mark.influxd), "nats"])
def backend(request: pytest.FixtureRequest) -> str:
    """Which broker it runs on."""
    return str(request.param)


@pytest.fixture
def share(request: pytest.FixtureRequest) -> int:
    """One in so many of what there is to be asked."""
    return int(request.config.getoption("--share"))


@pytest.fixture
async def cast(tmp_path) -> Cast:
    """Everybody who asks, in a data folder."""
    return await casting.made(tmp_path / "data", CLOCK.now_ns())


@pytest.fixture
async def probed(
    tmp_path,
    backend: str,
    cast: Cast,
    request: pytest.FixtureRequest,
) -> AsyncIterator[Processes]:
    """A server on that folder, whose broker knows everybody by now."""
    async with BACKENDS[backend](tmp_path, request) as running:
        async with asyncio.timeout(KNOWN_S):
            while not await wire.comes_in(running.broker, cast.credentials[WATCHER]):
                await CLOCK.sleep(0.1)
        yield running


@pytest.fixture
def findings(request: pytest.FixtureRequest) -> Iterator[Found]:
    """The probes of one test."""
    collected = Found()
    yield collected
    if request.config.getoption("--keep-results"):
        suite = {"probes": collected.probes, "allowed": collected.allowed}
        results.keep({"suites": {request.node.name: suite}})
        suites = results.kept()["suites"].values()
        results.keep({name: sum(each[name] for each in suites) for name in suite})
