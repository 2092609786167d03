"""A runner with plain processes and a real server: from deployment to end, and through faults."""

import asyncio
import os
from contextlib import suppress

import psutil
import pytest

from broker.api_client import CredentialRefused
from broker.errors import Taken, first_of
from broker.server_addresses import ServerAddresses
from tests.integration.runner_bed import COUNTS, ENTERS, RIG, STAYS, RunnerBed, pid_of

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
async def bed(server, owners, tmp_path):
    stream = {"space": "live", "stream": RIG}
    body = {"company": "company", "streams": [stream]}
    created = await owners.doors["factory"].request("POST", "/grants", json=body)
    bed = RunnerBed(
        company=owners.doors["company"],
        factory=owners.doors["factory"],
        addresses=ServerAddresses(api=f"http://{server.api}", broker=f"mqtt://{server.broker}"),
        folder=tmp_path / "runner",
        data=tmp_path / "data",
        grant=created["items"][0]["id"],
    )
    await bed.enrol()
    yield bed
    async with bed.running(ends_programs=True):
        await bed.clock.sleep(0.5)
    take_ends()


def take_ends():
    """Wait for the shims of runners before the last one: they are this process's children."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


async def test_a_program_is_deployed_runs_and_is_stopped(bed):
    async with bed.running():
        number = await bed.deploy(STAYS)
        running = await bed.reached(number, "running")
        assert running.site == "site-1"
        (line,) = await bed.lines(number, "200")
        assert line.startswith("200 [secret credential] ")
        await bed.company.request("POST", f"/deployments/{number}/stop")
        ended = await bed.reached(number, "ended")
    assert [ended.end.cause, ended.end.phase, ended.end.signal] == ["stopped", "running", 15]
    states = [event["state"] for event in await bed.events(number)]
    assert states[-5:] == ["starting", "connecting", "running", "stopping", "ended"]
    assert not list((bed.folder / "process" / "programs").iterdir())


async def test_a_program_that_fails_is_started_again_and_given_up_with_its_last_words(bed):
    async with bed.running():
        text = ENTERS + "raise ValueError('no flow')"
        number = await bed.deploy(text, restart={"most": 1})
        ended = await bed.reached(number, "ended")
        assert [ended.end.cause, ended.end.exit_code, ended.restarts] == ["failed", 1, 1]
        assert ended.reason.endswith("it was given up after 1 further starts")
        lines = await bed.lines(number, "ValueError")
        assert lines.count("ValueError: no flow") == 2


async def test_a_program_that_never_connects_is_ended_in_time(bed):
    async with bed.running():
        text = "import time; time.sleep(600)"
        health, restart = {"starts_within": "1s"}, {"when": "never"}
        number = await bed.deploy(text, health=health, restart=restart)
        ended = await bed.reached(number, "ended")
    assert [ended.end.cause, ended.end.phase] == ["time", "connecting"]
    assert "within 1s (health.starts_within)" in ended.reason


async def test_a_command_that_is_not_there_is_said_so(bed):
    async with bed.running():
        number = await bed.deploy("", command="no-such-program")
        ended = await bed.reached(number, "ended")
    assert [ended.end.cause, ended.restarts] == ["start", 0]
    assert "`no-such-program` cannot be started: No such file or directory" in ended.reason


async def test_a_pause_freezes_a_program_and_its_end_lets_it_go_on(bed):
    async with bed.running():
        number = await bed.deploy(COUNTS)
        await bed.reached(number, "running")
        await bed.factory.request("POST", "/pauses", json={"company": "company"})
        frozen = await bed.reached(number, "frozen")
        assert "factory has paused grant" in frozen.reason
        await bed.factory.request("DELETE", "/pauses", params={"company": "company"})
        await bed.reached(number, "running")


async def test_a_grant_that_ends_ends_the_program_within_seconds(bed):
    async with bed.running():
        number = await bed.deploy(STAYS)
        await bed.reached(number, "running")
        pid = pid_of(await bed.lines(number, "200"))
        await bed.factory.request("DELETE", f"/grants/{bed.grant}")
        async with asyncio.timeout(5):
            while psutil.pid_exists(pid):
                await bed.clock.sleep(0.05)
        ended = await bed.reached(number, "ended")
    assert ended.end.cause == "grant"
    assert ended.reason.startswith("the grant of input rig")


async def test_a_runner_that_is_stopped_leaves_its_programs_and_the_next_one_adopts_them(bed):
    async with bed.running():
        number = await bed.deploy(COUNTS)
        await bed.reached(number, "running")
        pid = pid_of(await bed.lines(number, "3"))
    await bed.clock.sleep(1)
    assert psutil.pid_exists(pid)
    async with bed.running():
        await bed.lines(number, "40")
        deployment = await bed.show(number)
    assert [deployment.state, deployment.restarts] == ["running", 0]
    numbers = [int(line) for line in (await bed.lines(number))[1:]]
    assert numbers == list(range(len(numbers)))


async def test_programs_that_end_with_their_runner_start_with_the_next_one(bed):
    async with bed.running(ends_programs=True):
        number = await bed.deploy(STAYS)
        await bed.reached(number, "running")
        pid = pid_of(await bed.lines(number, "200"))
    assert not psutil.pid_exists(pid)
    async with bed.running():
        async with asyncio.timeout(20):
            while len([line for line in await bed.lines(number, "200") if "200" in line]) < 2:
                await bed.clock.sleep(0.1)
        assert (await bed.reached(number, "running")).end is None


async def test_an_end_that_came_while_no_runner_was_there_is_judged_once(bed):
    async with bed.running():
        text = ENTERS + "time.sleep(2)\nraise SystemExit(4)"
        number = await bed.deploy(text, restart={"when": "never"})
        await bed.reached(number, "running")
    await bed.clock.sleep(2.5)
    for _ in range(2):
        async with bed.running():
            ended = await bed.reached(number, "ended")
    assert ended.end.exit_code == 4
    states = [event["state"] for event in await bed.events(number)]
    assert states.count("ended") == 1


async def test_a_second_runner_of_a_folder_is_refused(bed):
    async with bed.running():
        number = await bed.deploy(STAYS)
        await bed.reached(number, "running")
        async with bed.running(raises=Taken) as second:
            await asyncio.wait([second])
        assert "another runner uses the folder" in str(second.exception())


async def test_a_runner_that_is_locked_out_removes_all_and_ends(bed):
    async with bed.running(raises=ExceptionGroup) as runner:
        number = await bed.deploy(STAYS)
        await bed.reached(number, "running")
        pid = pid_of(await bed.lines(number, "200"))
        await bed.company.request("DELETE", "/runners/site-1")
        async with asyncio.timeout(30):
            await asyncio.wait([runner])
    expected, _ = runner.exception().split(CredentialRefused)
    assert "it was locked out" in str(first_of(expected))
    assert not psutil.pid_exists(pid)
    assert (await bed.show(number)).end.cause == "site"
    await bed.enrol()


async def test_a_new_deployment_takes_the_place_of_the_former_one(bed):
    async with bed.running():
        first = await bed.deploy(STAYS)
        await bed.reached(first, "running")
        second = await bed.deploy(STAYS + "# changed")
        await bed.reached(second, "running")
        ended = await bed.reached(first, "ended")
    assert ended.end.cause == "replaced"


@pytest.mark.timeout(180)
async def test_a_container_of_docker_runs_is_frozen_adopted_and_stopped(bed, dockerd):
    bed.docker = dockerd.url
    async with bed.running():
        number = await bed.deploy(COUNTS, image={"archive": "watch.tar"})
        await bed.reached(number, "running")
        assert (await bed.lines(number, "20"))[0].startswith("200 [secret credential] ")
        await bed.factory.request("POST", "/pauses", json={"company": "company"})
        await bed.reached(number, "frozen")
        await bed.factory.request("DELETE", "/pauses", params={"company": "company"})
        await bed.reached(number, "running")
    async with bed.running():
        before = len(await bed.lines(number))
        async with asyncio.timeout(20):
            while len(await bed.lines(number)) < before + 40:
                await bed.clock.sleep(0.2)
        numbers = [int(line) for line in (await bed.lines(number))[1:]]
        assert numbers == list(range(len(numbers)))
        assert (await bed.show(number)).restarts == 0
        await bed.company.request("POST", f"/deployments/{number}/stop")
        ended = await bed.reached(number, "ended")
        assert [ended.end.cause, ended.end.phase] == ["stopped", "running"]
        async with asyncio.timeout(20):
            while dockerd.containers():
                await bed.clock.sleep(0.2)
