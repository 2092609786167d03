"""What every test gets: its marker from its folder, the products, and a guard against leftovers."""

import asyncio
import gc
import inspect
import signal
import sys
import time
from collections.abc import AsyncIterator, Hashable, Iterator, Mapping
from pathlib import Path

import hypothesis
import pytest

from tests import leftovers, services, side_by_side
from tests.services import built_products
from tests.services import dockerd as dockerd_product
from tests.services import influxd as influxd_product
from tests.services import mosquitto as mosquitto_product
from tests.services import node_opcua as node_opcua_product
from tests.services import postgresql as postgresql_product
from tests.services import telegraf as telegraf_product
from tests.services.tables import Tables

HERE = Path(__file__).parent
FOLDERS = (
    *("property", "conformance", "integration", "probes"),
    *("e2e", "faults", "architecture", "docs"),
)
E2E_TIMEOUT_S = 300
GONE_WITHIN_S = 2.0

SHARED_PRODUCTS = pytest.StashKey[list[services.Product]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--need-services",
        action="store_true",
        help="a skipped test is a failed one: green means that everything ran",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SHARED_PRODUCTS] = []
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background job:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # what tests interrupt inherits it
    side_by_side.configure(config)
    if side_by_side.is_worker():  # how long an example takes says nothing on a busy machine
        hypothesis.settings.register_profile("side by side", hypothesis.settings(), deadline=None)
        hypothesis.settings.load_profile("side by side")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = _folder(item)
        item.add_marker(folder if folder in FOLDERS else "unit")
        if folder in side_by_side.SLOW and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(E2E_TIMEOUT_S))
    if side_by_side.is_worker():
        items.sort(key=lambda item: side_by_side.order(item, _folder(item)))


def _folder(item: pytest.Item) -> str:
    return item.path.relative_to(HERE).parts[0]


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around the time limit: waiting does not count
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    if side_by_side.needs_influxd(item):
        built_products.wait_for_build(influxd_product.built_binary())
    if side_by_side.needs_telegraf(item):
        built_products.wait_for_build(telegraf_product.built_binary())
    if not side_by_side.is_worker():
        return (yield)
    lock = item.config._tmp_path_factory.getbasetemp().parent / "machine.lock"
    with side_by_side.on_the_machine(lock, alone=side_by_side.runs_alone(item)):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if item.config.getoption("--need-services"):
        _fail_if_skipped(report)
    if report.failed:
        for product in item.config.stash[SHARED_PRODUCTS]:
            report.sections.append((f"{product.name}'s log", product.log_tail()))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    report = yield
    if collector.config.getoption("--need-services"):
        _fail_if_skipped(report)
    return report


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        *_, reason = report.longrepr
        report.outcome = "failed"
        report.longrepr = f"--need-services: nothing may be skipped, but this was. {reason}"


@pytest.fixture(scope="session", autouse=True)
def no_profiles(tmp_path_factory) -> Iterator[None]:
    """Keep the sign-ins of whoever runs the tests out of them, and theirs out of the home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        patch.delenv("TESTBED_PROFILE", raising=False)
        yield


@pytest.fixture(autouse=True)
def logs_as_by_default() -> Iterator[None]:
    """Undo what a test's command set up for its log: its standard error is closed afterwards."""
    yield
    if (structlog := sys.modules.get("structlog")) is not None and structlog.is_configured():
        structlog.reset_defaults()


@pytest.fixture(scope="session")
def mosquitto(request, tmp_path_factory) -> Iterator[mosquitto_product.Mosquitto]:
    """A Mosquitto for the whole session; its users are `tests.services.mosquitto.PASSWORDS`."""
    with mosquitto_product.serve(tmp_path_factory.mktemp("mosquitto")) as server:
        request.config.stash[SHARED_PRODUCTS].append(server.product)
        yield server


@pytest.fixture(scope="session")
def influxd(request, tmp_path_factory) -> Iterator[influxd_product.Influxd]:
    """An InfluxDB 2.7 for the whole session; a test that wants to be alone makes its own bucket."""
    with influxd_product.serve(tmp_path_factory.mktemp("influxd")) as server:
        request.config.stash[SHARED_PRODUCTS].append(server.product)
        yield server


@pytest.fixture(scope="session")
def postgresql(request) -> Iterator[postgresql_product.Postgresql]:
    """A PostgreSQL for the whole session; each test makes a database of its own."""
    with postgresql_product.data_folder() as folder, postgresql_product.serve(folder) as server:
        request.config.stash[SHARED_PRODUCTS].append(server.product)
        yield server


@pytest.fixture(scope="session")
def dockerd(request) -> Iterator[dockerd_product.Dockerd]:
    """A Docker engine for the whole session, without networks; a test has a site of its own."""
    with dockerd_product.data_folder() as folder, dockerd_product.serve(folder) as engine:
        request.config.stash[SHARED_PRODUCTS].append(engine.product)
        yield engine


@pytest.fixture(scope="session")
def tables(tmp_path_factory) -> Tables:
    """The registry's tables, to be copied."""
    return Tables(tmp_path_factory.mktemp("tables"))


@pytest.fixture
def node_opcua(tmp_path) -> Iterator[node_opcua_product.NodeOpcua]:
    """node-opcua's server, for one test."""
    with node_opcua_product.serve(tmp_path) as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_left_behind(request) -> Iterator[None]:
    """Fail a test that leaves a thread, a child process or a TCP socket behind."""
    shared = request.config.stash[SHARED_PRODUCTS]
    before = leftovers.held(shared_pids=_pids(shared))
    yield
    deadline_s = time.monotonic() + GONE_WITHIN_S
    while left := _without(leftovers.held(shared_pids=_pids(shared)), before):
        if time.monotonic() > deadline_s:
            pytest.fail("left behind: " + ", ".join(sorted(left)), pytrace=False)
        gc.collect()
        time.sleep(0.02)  # noqa: TID251  (a thread that was told to end needs real time for it)


def _pids(products: list[services.Product]) -> set[int]:
    return {product.process.pid for product in products}


def _without(now: Mapping[Hashable, str], before: Mapping[Hashable, str]) -> list[str]:
    return [text for key, text in now.items() if key not in before]


@pytest.fixture(autouse=True)
def no_task_left_behind(request, nothing_left_behind) -> None:  # noqa: ARG001  (torn down last)
    """Fail an async test that leaves a task behind; a test without an event loop pays nothing."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("_no_task_left_on_this_loop")


@pytest.fixture
async def _no_task_left_on_this_loop() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        names = ", ".join(sorted(f"task {task.get_name()} {task.get_coro()}" for task in left))
        pytest.fail(f"left behind: {names}", pytrace=False)
