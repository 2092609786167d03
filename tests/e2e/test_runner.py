"""Runners as processes: beside `testbed up`, and at a site of one's own; killed, and cut off."""

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import psutil

from broker.server_addresses import ServerAddresses
from tests.docs import walking
from tests.e2e.town import TESTBED, started
from tests.integration.runner_bed import COUNTS, RIG, RunnerBed, pid_of
from tests.owners import founded
from tests.services import free_port


@asynccontextmanager
async def bedded(ready, folder: Path) -> AsyncIterator[RunnerBed]:
    """A factory that grants its rig to a company, at a server."""
    async with founded(ready["api"], ready["administrator"]) as owners:
        body = {"company": "company", "streams": [{"space": "live", "stream": RIG}]}
        await owners.doors["factory"].request("POST", "/grants", json=body)
        yield RunnerBed(
            company=owners.doors["company"],
            factory=owners.doors["factory"],
            addresses=ServerAddresses(api=ready["api"], broker=ready["broker"]),
            folder=folder / "runner",
            data=folder / "testbed-data",
        )


@contextmanager
def runner_process(bed: RunnerBed, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A runner as a process of its own, which leaves its programs."""
    command = [*TESTBED, "runner", "run", "--folder", str(bed.folder)]
    with (
        (folder / "runner.log").open("ab") as log,
        subprocess.Popen(command, cwd=folder, env=walking.inherited(), stderr=log) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


def runner_of(folder: Path) -> psutil.Process:
    """The runner that the server has started that runs in a folder."""
    return next(
        each
        for each in psutil.Process().children(recursive=True)
        if each.cmdline()[3:5] == ["runner", "run"] and each.cwd() == str(folder)
    )


async def test_up_runs_what_is_deployed_and_a_killed_runner_is_followed_by_another(tmp_path):
    with started(tmp_path, "up", "--port", "0", "--mqtt-port", "0") as ready:
        async with bedded(ready, tmp_path) as bed:
            bed.folder = tmp_path / "testbed-data" / "runner"
            number = await bed.deploy(COUNTS)
            deployment = await bed.reached(number, "running")
            assert deployment.site == "site"
            pid = pid_of(await bed.lines(number, "20"))
            first = runner_of(tmp_path)
            first.send_signal(signal.SIGKILL)
            async with asyncio.timeout(30):
                while len(await bed.lines(number)) < 150:
                    await bed.clock.sleep(0.2)
            assert runner_of(tmp_path).pid != first.pid
            deployment = await bed.show(number)
            assert [deployment.state, deployment.restarts] == ["running", 0]
            assert psutil.pid_exists(pid)
            lines = await bed.lines(number)
            numbers = [int(line) for line in lines[1:]]
            assert numbers == list(range(len(numbers)))
            assert len([line for line in lines if line.startswith("200 ")]) == 1
    assert not psutil.pid_exists(pid)
    assert "which nothing isolates" in (tmp_path / "up.log").read_text()


async def test_programs_go_on_without_the_api_and_all_is_reported_later(tmp_path):
    ports = ("--port", str(free_port()), "--mqtt-port", str(free_port()), "--no-runner")
    async with AsyncExitStack() as stack:
        with started(tmp_path, "up", *ports) as ready:
            bed = await stack.enter_async_context(bedded(ready, tmp_path))
            await bed.enrol()
            process = stack.enter_context(runner_process(bed, tmp_path))
            number = await bed.deploy(COUNTS)
            await bed.reached(number, "running")
            pid = pid_of(await bed.lines(number, "20"))
        await bed.clock.sleep(3)
        assert psutil.pid_exists(pid)
        with started(tmp_path, "up", *ports):
            async with asyncio.timeout(60):
                while len(await bed.lines(number)) < 200:
                    await bed.clock.sleep(0.2)
            numbers = [int(line) for line in (await bed.lines(number))[1:]]
            assert numbers == list(range(len(numbers)))
            deployment = await bed.show(number)
            assert [deployment.state, deployment.restarts] == ["running", 0]
            assert process.poll() is None
            process.terminate()
            assert process.wait(30) == 0
            assert psutil.pid_exists(pid)
            async with bed.running(ends_programs=True):
                await bed.clock.sleep(1)
        assert not psutil.pid_exists(pid)
