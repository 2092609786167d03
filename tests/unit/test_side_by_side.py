import asyncio
from types import SimpleNamespace

import pytest

from broker.clock import WallClock
from tests import side_by_side
from tests.services import free_port, ports_of_worker

CLOCK = WallClock()


def test_no_two_workers_share_a_port_and_none_is_one_that_the_kernel_gives():
    slices = [set(ports_of_worker(f"gw{number}", 5)) for number in range(5)]
    assert sum(map(len, slices)) == len(set.union(*slices))
    assert set.union(*slices) == set(ports_of_worker("", 1))
    assert max(set.union(*slices)) < 32_768
    assert len({free_port() for _ in range(20)}) == 20


def test_a_worker_in_the_place_of_a_crashed_one_has_its_ports():
    assert set(ports_of_worker("gw5", 5)) == set(ports_of_worker("gw0", 5))


@pytest.mark.parametrize(("first", "second"), [(False, True), (True, False), (True, True)])
async def test_a_test_that_runs_alone_waits_for_others_and_they_for_it(tmp_path, first, second):
    lock, began = tmp_path / "machine.lock", asyncio.Event()
    loop = asyncio.get_running_loop()

    def run() -> None:
        with side_by_side.on_the_machine(lock, alone=second):
            loop.call_soon_threadsafe(began.set)

    async with asyncio.TaskGroup() as tasks:
        with side_by_side.on_the_machine(lock, alone=first):
            tasks.create_task(asyncio.to_thread(run), name="second")
            await CLOCK.sleep(0.02)
            assert not began.is_set()
        await began.wait()


def test_others_run_beside_each_other(tmp_path):
    lock = tmp_path / "machine.lock"
    with (
        side_by_side.on_the_machine(lock, alone=False),
        side_by_side.on_the_machine(lock, alone=False),
    ):
        pass


def test_long_tests_come_first_then_those_that_wait_for_influxd_then_short_ones():
    def item(folder, *fixtures):
        return SimpleNamespace(
            folder=folder, fixturenames=fixtures, get_closest_marker=lambda _: None
        )

    items = [
        item("unit"),
        item("conformance", "influxd"),
        item("integration"),
        item("probes", "influxd"),
        item("e2e"),
    ]
    items.sort(key=lambda each: side_by_side.order(each, each.folder))
    folders = [each.folder for each in items]
    assert folders == ["e2e", "integration", "probes", "conformance", "unit"]
