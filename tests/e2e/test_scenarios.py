"""`testbed run` as a user runs it: verdicts, files, misbehaving prototypes, nothing left behind."""

import asyncio
import os
import shutil
import signal
import sys

import orjson
import psutil
import pytest

from broker.clock import WallClock
from broker.recordings import bundle
from broker.recordings.manifest import RecordedRun
from tests import leftovers

SCENARIO = """scenario: short
duration: 20s
quantum: 5s
equipment:
  rig: {{model: pump-rig}}
timeline:
  - {{fault: valve, on: rig, from: 10s, to: 15s}}
prototypes:
{prototypes}
expectations:
  - {{name: each row is answered, stream: {stream}, count: {{is: {count}}}}}
"""
ECHO = """
  echo: {python: echo.py, inputs: {rig: rig}, outputs: [out], answers_within: 60s}"""
PROGRAMS = {
    "echo.py": """
from testbed_sdk import Signal, connect, run

async def main():
    async with connect() as testbed:
        rig = testbed.input("rig")
        await rig.open()
        out = await testbed.output("out", [Signal("flow")])
        async for batch in rig:
            flow = batch["Volume Flow RateRMS"]
            await out.publish(flow.time_ns, {"flow": flow.values})

run(main())
""",
    "crash.py": """
from testbed_sdk import connect, run

async def main():
    async with connect() as testbed:
        async for batch in testbed.input("rig"):
            if batch.batch.seq == 2:
                raise ValueError("the second batch is too much")

run(main())
""",
    "lone.py": """
import resource
from testbed_sdk import connect, run

async def main():
    async with connect() as testbed:
        async for batch in testbed.input("rig"):
            if batch.batch.seq == 2:
                _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
                resource.setrlimit(resource.RLIMIT_NOFILE, (0, most))  # no new socket
                testbed._bus._connection._transport.abort()

run(main())
""",
    "hang.py": """
import time
from testbed_sdk import connect, run

async def main():
    async with connect() as testbed:
        async for batch in testbed.input("rig"):
            if batch.batch.seq == 2:
                time.sleep(60)

run(main())
""",
    "noise.py": """
import os, sys
from testbed_sdk import Dtype, Signal, Unknown, connect

os.fork() or os.setsid() or os.execv("/bin/sleep", ["sleep", "300"])

async def detect(testbed):
    refused = await testbed.output("refused", [Signal("truth", Dtype.BOOL)])
    for _ in range(2_000):
        print("x" * 500)
    async for batch in testbed.input("rig"):
        try:
            await testbed.history("local/rig/truth")
        except Unknown:
            times = batch["Pressure"].time_ns
            await refused.publish(times, {"truth": [True] * len(times)})
""",
}


@pytest.fixture
def folder(tmp_path):
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def scenario(folder, *prototypes, count=20, stream="echo/out"):
    file = folder / "short.yaml"
    text = SCENARIO.format(prototypes="".join(prototypes), count=count, stream=stream)
    file.write_text(text)
    return file


class Ran:
    """A command that has ended."""

    def __init__(self, code, out, errors):
        self.code, self.out, self.errors = code, out.decode(), errors.decode()


async def start(*arguments, command="run", **environment):
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "testbed", command, *map(str, arguments)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | environment,
    )


async def ran(*arguments, **environment):
    process = await start(*arguments, **environment)
    out, errors = await process.communicate()
    return Ran(process.returncode, out, errors)


async def run_command(command, *arguments):
    process = await start(*arguments, command=command)
    out, errors = await process.communicate()
    return Ran(process.returncode, out, errors)


async def test_equal_scenarios_have_one_hash_in_any_folder_and_time_zone(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    file = scenario(folder, ECHO)
    for name in ("echo.py", "short.yaml"):
        shutil.copy(folder / name, elsewhere / name)
    async with asyncio.TaskGroup() as tasks:
        here = tasks.create_task(ran(file, "--fast", "--json", TZ="Asia/Tokyo"))
        there = tasks.create_task(ran(elsewhere / "short.yaml", "--fast", "--json", TZ="UTC"))
    results = [orjson.loads(each.result().out) for each in (here, there)]
    assert [each["passed"] for each in results] == [True, True], here.result().errors
    (first,), (second,) = (each["runs"] for each in results)
    assert first["hash"] == second["hash"]
    assert first["samples"] == {"rig": 160, "echo/out": 20}
    assert sorted(path.name for path in elsewhere.iterdir()) == ["echo.py", "short.yaml"]


async def test_a_whole_run_becomes_a_recording(folder):
    left, new = folder / "left", folder / "run-1"
    result = await ran(scenario(folder, ECHO), "--fast", "--json", "--folder", left)
    (run,) = orjson.loads(result.out)["runs"]
    created = await run_command("recording", "create", new, "--run", left, "--json")
    assert created.code == 0, created.errors
    recording = bundle.open_recording(new)
    assert orjson.loads(created.out)["sha256"] == recording.sha256
    assert recording.manifest.run == RecordedRun(
        scenario="short", seed=run["seed"], sample_hash=run["hash"]
    )
    samples = {str(each.address): each.samples for each in recording.manifest.streams}
    assert (samples["local/rig/measured"], samples["local/echo/out"]) == (160, 20)
    labels = {f"{each.stream}/{each.signal}" for each in recording.manifest.labels}
    assert "local/rig/truth/anomaly" in labels
    again = await run_command("recording", "create", new, "--run", left)
    assert (again.code, "is there already" in again.errors) == (2, True)
    nothing = await run_command("recording", "create", folder / "x", "--run", folder)
    assert (nothing.code, "there is no run in" in nothing.errors) == (2, True)
    assert not (folder / "x").exists()


CRASH = """
  crash: {python: crash.py, inputs: {rig: rig}, answers_within: 60s}"""
NOISE = """
  noise: {function: "noise:detect", inputs: {rig: rig}, outputs: [refused], answers_within: 60s}"""


async def test_prototypes_that_misbehave_are_named_and_leave_nothing(folder):
    file = scenario(folder, ECHO, CRASH, NOISE, count=21)
    out, report = folder / "out.xml", folder / "out.html"
    result = await ran(file, "--fast", "--junit", out, "--report", report, "--seed", 3)
    assert result.code == 1, result.errors
    assert "FAILED  each row is answered: expected 21: 20 samples" in result.out
    assert "prototype 'crash' ended with exit code 1 after" in result.out
    assert "ValueError: the second batch is too much" in result.out
    assert "error" not in result.errors
    assert "the second batch is too much" in out.read_text()
    assert "the second batch is too much" in report.read_text()
    assert "noise/refused" in report.read_text()
    assert not [each for each in psutil.process_iter(["cmdline"]) if _is_sleep(each)]


def _is_sleep(process):
    return process.info["cmdline"] == ["sleep", "300"]


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("lone", 3, "did not answer quantum 2 within 3 s: it has lost its connection"),
        ("hang", 1, "did not answer quantum 2 within 3 s; it must wait with the SDK alone"),
    ],
)
async def test_no_answer_is_the_prototypes_fault_unless_it_lost_its_connection(
    folder, name, code, words
):
    silent = f"\n  {name}: {{python: {name}.py, inputs: {{rig: rig}}, answers_within: 3s}}"
    file = scenario(folder, silent, stream="rig")
    result = await ran(file, "--fast", "--junit", folder / "out.xml")
    assert result.code == code, result.out + result.errors
    assert f"prototype '{name}' {words}" in result.out + result.errors
    assert ("<error" in (folder / "out.xml").read_text()) == (code == 3)


async def test_a_prototype_that_never_takes_part_is_an_error_of_the_file(folder):
    gone = "\n  gone: {command: python -c 'raise SystemExit(4)', inputs: {rig: rig}}"
    result = await ran(scenario(folder, ECHO, gone), "--fast", "--junit", folder / "out.xml")
    assert result.code == 2
    sentence = "prototype 'gone' ended with exit code 4 before the run began\n"
    assert f"{folder / 'short.yaml'}:11:3: {sentence}" in result.errors
    assert "It printed nothing" in result.errors
    assert "mistake" not in result.errors
    assert "before the run began" in (folder / "out.xml").read_text()


@pytest.mark.parametrize(("signal_name", "times"), [("SIGINT", 1), ("SIGINT", 5), ("SIGKILL", 1)])
async def test_a_run_that_is_interrupted_or_killed_leaves_nothing(folder, signal_name, times):
    slow = ECHO.replace("echo.py", "slow.py")
    (folder / "slow.py").write_text("import time\ntime.sleep(300)")
    temporary = folder / "temporary"
    temporary.mkdir()
    process = await start(scenario(folder, slow), "--fast", TMPDIR=str(temporary))
    for _ in range(3_000):
        if has_slow(process):
            break
        await WallClock().sleep(0.02)
    assert has_slow(process)
    assert [each.name[:12] for each in temporary.iterdir()] == ["testbed-run-"]
    children = psutil.Process(process.pid).children(recursive=True)
    for _ in range(times):
        if process.returncode is None:
            process.send_signal(signal.Signals[signal_name])
            await WallClock().sleep(0.15)
    _, errors = await process.communicate()
    assert process.returncode == (130 if signal_name == "SIGINT" else -9)
    assert errors.decode() == ("interrupted; nothing is kept\n" if signal_name == "SIGINT" else "")
    for _ in range(500):
        left = [each for each in children if leftovers.runs(each)] + [*temporary.iterdir()]
        if not left:
            return
        await WallClock().sleep(0.02)
    raise AssertionError(left)


def has_slow(process):
    """Whether the command has started its prototype."""
    children = psutil.Process(process.pid).children(recursive=True)
    return any("slow.py" in " ".join(each.cmdline()) for each in children)


async def test_at_wall_time_machines_are_read_by_real_gateways(folder):
    file = scenario(folder, ECHO)
    result = await ran(file, "--speed", 10, "--json", "--folder", folder / "data")
    assert result.code == 0, result.errors
    (run,) = orjson.loads(result.out)["runs"]
    assert run["samples"] == {"rig": 160, "echo/out": 20}
    assert b"gateway ended" in (folder / "data/gateway-rig/gateway.log").read_bytes()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("  - {fault: cut, on: rig, from: 1s, to: 2s}", ":8:5: timeline.1: a fault of a machine's"),
        ("  - {fault: delay, on: rig, by: 1s, from: 1s, to: 2s}", "virtual time: add --fast"),
    ],
)
async def test_what_wall_time_does_not_have_is_said_at_its_place(folder, line, words):
    file = scenario(folder, ECHO)
    file.write_text(file.read_text().replace("prototypes:", f"{line}\nprototypes:"))
    result = await ran(file)
    assert (result.code, words in result.errors) == (2, True), result.errors


async def test_a_first_scenario_is_written_and_passes(tmp_path):
    """What docs/how-to/test-in-ci.md begins with, and its tests in pytest."""
    init = (
        sys.executable,
        "-m",
        "testbed",
        "scenario",
        "init",
        "valve",
        "--from-model",
        "pump-rig",
    )
    writing = await asyncio.create_subprocess_exec(*init, cwd=tmp_path)
    assert await writing.wait() == 0
    (tmp_path / "test_valve.py").write_text(IN_PYTEST)
    command = [sys.executable, "-m", "pytest", "-p", "testbed.scenario.pytest_plugin", "-q"]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # it is named, then
    testing = await asyncio.create_subprocess_exec(
        *command, cwd=tmp_path, env=environment, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await testing.communicate()
    assert b"2 passed" in out, out.decode()


IN_PYTEST = """
import pytest
from testbed_sdk import BedError

def test_the_detector_finds_the_valve(scenario):
    result = scenario("valve.yaml", seed=7)
    assert result.passed, result
    assert result.observed("recall") == 1
    assert result.history("detector/score")["score"].values.max() > 6
    with pytest.raises(BedError, match="there is no stream 'detector/scor'"):
        result.history("detector/scor")
    with pytest.raises(BedError, match="observes 'overshoot'"):
        result.observed("overshoot")

def test_a_scenario_that_is_wrong_fails_with_its_sentence(scenario, tmp_path):
    with pytest.raises(BedError, match="there is no scenario"):
        scenario("missing.yaml")
"""
