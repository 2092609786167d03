"""The SDK without asyncio, against a running server: in threads, in processes and in a notebook."""

import asyncio
import os
import signal
import sys

import pytest

from broker.errors import Forbidden, Invalid, Unknown
from broker.messages import Freshness
from broker.streams import Signal
from testbed_sdk import PrototypeSettings, connect, connect_sync, read_history
from tests import sources
from tests.integration.test_server import (
    CLOCK,
    RIG,
    SCORE,
    SPACE,
    T0,
    announce,
    batch,
    bus,
    credential,
    machine,
    marked,
    publish,
)

NOTEBOOK = sources.ROOT / "examples" / "read_history.ipynb"
INTERRUPTED = """
from testbed_sdk import connect_sync, run

def main():
    with connect_sync() as testbed:
        rig = testbed.input("rig")
        rig.open()
        print("ready", flush=True)
        for batch in rig:
            pass

run(main)
"""
NEVER_CLOSED = """
from testbed_sdk import Signal, connect_sync

testbed = connect_sync()
score = testbed.output("score", [Signal("score")])
score.publish(1_700_000_000_000_000_000, {"score": 0.5})
"""


def settings(server, **bound):
    return PrototypeSettings(api=f"http://{server.api}", space=SPACE, drain_s=5, **bound)


def environment(server, key, **more):
    """The environment of a program of the company."""
    own = {name: value for name, value in os.environ.items() if "TESTBED_" not in name}
    return own | {
        "PYTHONPATH": str(sources.ROOT),
        "TESTBED_API": f"http://{server.api}",
        "TESTBED_BROKER": f"mqtt://{server.broker}",
        "TESTBED_CREDENTIAL": key,
        "TESTBED_SPACE": SPACE,
        **more,
    }


async def started(*arguments, env):
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env=env,
        cwd=sources.ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_a_program_without_asyncio_reads_answers_and_finds_its_answers(server, owners):
    key = await credential(owners, "detector", reads=[RIG], writes=[SCORE])
    bound = {"inputs": {"rig": RIG}, "outputs": {"score": SCORE}}
    opened, loop = asyncio.Event(), asyncio.get_running_loop()

    def program():
        with connect_sync(settings(server, **bound), bus(server, key)) as testbed:
            rig = testbed.input("rig")
            rig.open()
            loop.call_soon_threadsafe(opened.set)
            score = testbed.output("score", [Signal("score")])
            received = next(iter(rig))
            times, table = received.table("Pressure")
            score.publish(times, {"score": table[:, 0]}, input_ns=int(times[-1]))
            score.wait_drained()
            assert (rig.address, score.spec.address, score.unmarked) == (RIG, SCORE, 0)
            assert testbed.freshness("rig").state is Freshness.STALE
            with pytest.raises(Invalid, match="give float64"):
                score.publish(T0, {"score": ["high"]})
            return testbed.history("score", from_ns=T0 - 1, to_ns=T0 + 100)

    async with machine(server, owners) as out, asyncio.timeout(15):
        await announce(out)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(asyncio.to_thread(program), name="program")
            await opened.wait()
            await publish(out, batch(1, [1.5, 2.5]))
    assert running.result()["score"].values.tolist() == [1.5, 2.5]


async def test_an_output_that_cannot_be_opened_is_refused_in_a_sentence(server, owners):
    key = await credential(owners, "detector", reads=[RIG], writes=[SCORE])
    async with connect(settings(server, outputs={"score": SCORE}), bus(server, key)) as testbed:
        with pytest.raises(Invalid, match=r"'anomaly' is not a signal of the output 'score'"):
            await testbed.output("score", ["anomaly"])
        with pytest.raises(Forbidden, match=r"does not let it publish company/detector/other"):
            await testbed.output("company/detector/other", [Signal("score")])
        score = await testbed.output("score", [Signal("score")])
        with pytest.raises(Invalid, match=r"were seconds or ms given\? time\.time_ns\(\) is now"):
            await score.publish(T0 // 10**9, {"score": 0.5})
        await score.publish([], {"score": []})
        assert score.unmarked == 0


async def test_history_is_read_in_one_call_without_a_broker(server, owners, monkeypatch):
    key = await credential(owners, "notebook", reads=[RIG])
    nowhere = {"TESTBED_BROKER": "mqtt://127.0.0.1:9", "TESTBED_INPUTS": f"rig={RIG}"}
    for name, value in environment(server, key, **nowhere).items():
        monkeypatch.setenv(name, value)
    async with machine(server, owners) as out:
        await announce(out)
        now_ns = CLOCK.now_ns()
        await marked(out, 1, then=lambda: publish(out, batch(1, [1.5, 2.5], start=now_ns)))
    for stream in (str(RIG), "rig"):
        fetched = await asyncio.to_thread(read_history, stream, "Pressure", from_="-10m", to="+1m")
        assert fetched["Pressure"].values.tolist() == [1.5, 2.5]
    before = await asyncio.to_thread(read_history, "rig", from_="yesterday", to="today")
    assert before["Pressure"].values.tolist() == []
    for arguments, options, error, sentence in (
        (["rig"], {"from_": "monday"}, Invalid, "'monday' is not an instant"),
        (["rig"], {"space": "moon"}, Invalid, "'moon' is not a space"),
        (["rgi"], {}, Unknown, "bound are: rig"),
        (["factory/pump-rig/none"], {}, Unknown, "there is no stream"),
        (["rig"], {"space": "live"}, Unknown, "in space live that you may read .TESTBED_SPACE"),
    ):
        with pytest.raises(error, match=sentence):
            await asyncio.to_thread(read_history, *arguments, **options)


async def test_ctrl_c_ends_a_program_that_waits_for_a_batch(server, owners):
    key = await credential(owners, "detector", reads=[RIG])
    env = environment(server, key, TESTBED_INPUTS=f"rig={RIG}")
    async with asyncio.timeout(15):
        process = await started("-c", INTERRUPTED, env=env)
        assert await process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        _, error = await process.communicate()
    assert (process.returncode, error.decode()) == (130, "")


async def test_a_program_that_closes_nothing_ends_and_loses_nothing(server, owners):
    key = await credential(owners, "detector", writes=[SCORE])
    env = environment(server, key, TESTBED_OUTPUTS=f"score={SCORE}")
    async with asyncio.timeout(15):
        process = await started("-c", NEVER_CLOSED, env=env)
        _, error = await process.communicate()
    assert process.returncode == 0, error.decode()
    reader = connect(settings(server, outputs={"score": SCORE}), bus(server, key))
    async with reader as testbed:
        stored = await testbed.history("score", from_="2020-01-01", to="now")
    assert stored["score"].values.tolist() == [0.5]


@pytest.mark.timeout(90)  # a process that imports pandas and matplotlib
async def test_the_notebook_runs_as_it_is(server, owners):
    source = await credential(owners, "source", writes=[RIG])
    key = await credential(owners, "notebook", reads=[RIG])
    env = environment(server, key, TESTBED_INPUTS=f"rig={RIG}", MPLBACKEND="Agg")
    signals = [Signal("Pressure", unit="bar"), Signal("Current", unit="A")]
    async with connect(settings(server, outputs={"rig": RIG}), bus(server, source)) as testbed:
        rig = await testbed.output("rig", signals)

        async def speak():
            await rig.publish(CLOCK.now_ns(), {"Pressure": 3.0, "Current": 0.7})

        async def speak_on():
            while True:
                await speak()
                await CLOCK.sleep(0.1)

        async with asyncio.timeout(80), asyncio.TaskGroup() as tasks:
            await speak()
            await rig.wait_drained()
            speaking = tasks.create_task(speak_on(), name="speak on")
            process = await started("-m", "tests.notebook_cells", str(NOTEBOOK), env=env)
            _, error = await process.communicate()
            speaking.cancel()
    assert process.returncode == 0, error.decode()
