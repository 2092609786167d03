"""The fixtures of the pytest plugin, in a project of somebody else."""

import asyncio
import os
import sys

from broker.clock import WallClock
from testbed.scenario import init
from tests import sources
from tests.docs import blocks

PAGE = sources.ROOT / "docs" / "how-to" / "test-in-ci.md"
PYTEST = (sys.executable, "-m", "pytest", "-p", "testbed.scenario.pytest_plugin", "-q")


async def run_pytest(folder):
    """What pytest prints in a folder, and its exit code."""
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # it is named, then
    testing = await asyncio.create_subprocess_exec(
        *PYTEST, cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await testing.communicate()
    return testing.returncode, out.decode()


async def test_the_fixtures_do_what_the_page_says(tmp_path):
    init.write(tmp_path, "valve", WallClock(), model="pump-rig", recording=None, mapping=None)
    python = [each.text for each in blocks.of(PAGE) if each.language == "python"]
    tests = [text for text in python if "fed_prototype" in text or "running_testbed" in text]
    assert len(tests) == 2
    (tmp_path / "test_page.py").write_text("\n\n".join(tests))
    (tmp_path / "low_watch.py").write_text(LOW_WATCH)
    (tmp_path / "test_rows.py").write_text(TESTS)
    code, printed = await run_pytest(tmp_path)
    assert (code, "10 passed" in printed) == (0, True), printed


LOW_WATCH = """
from testbed_sdk import Dtype, Signal, connect, run


async def main():
    async with connect() as testbed:
        rig = testbed.input("rig")
        await rig.open()
        signals = [Signal("low", Dtype.BOOL), Signal("silent", Dtype.BOOL)]
        alarm = await testbed.output("alarm", signals)
        batches = aiter(rig)
        while True:
            try:
                async with testbed.timeout(5):
                    batch = await anext(batches)
            except TimeoutError:
                await alarm.publish([testbed.now_ns()], {"silent": [True]})
                continue
            flow = batch["flow"]
            if -1.0 in flow.values.tolist():
                raise ValueError("a flow below zero")
            await alarm.publish(flow.time_ns, {"low": flow.values < 20})


run(main())
"""
TESTS = """
import pytest

from testbed_sdk import BedError, Signal

FLOW = [Signal("flow", unit="L/min"), Signal("speed")]


@pytest.fixture
def watch(fed_prototype):
    return fed_prototype("low_watch.py", inputs={"rig": FLOW}, outputs=["alarm"])


def test_it_alarms_while_the_flow_is_low(watch):
    answers = [watch.feed("rig", {"flow": flow}) for flow in (30.0, 19.0, 21.0)]
    assert [each["alarm"]["low"].values.tolist() for each in answers] == [[False], [True], [False]]
    with pytest.raises(BedError, match="there is no signal 'flw'"):
        watch.feed("rig", {"flw": 3.0})
    with pytest.raises(BedError, match="there is no input 'rg'"):
        watch.feed("rg", {"flow": 3.0})


def test_equal_rows_have_equal_answers_with_equal_times(fed_prototype):
    published = []
    for _ in range(2):
        watch = fed_prototype("low_watch.py", inputs={"rig": FLOW}, outputs=["alarm"])
        answers = [watch.feed("rig", {"flow": 10.0 * row}, at_s=7.0 * row) for row in range(1, 4)]
        published.append([each["alarm"].pandas() for each in answers])
    for first, second in zip(*published, strict=True):
        assert first.equals(second)


def test_it_says_when_the_machine_is_silent(watch):
    assert watch.feed("rig", {"flow": 30.0}, at_s=0.5)["alarm"]["silent"].values.tolist() == []
    late = watch.feed("rig", {"flow": None, "speed": 1.0}, at_s=8)["alarm"]
    assert late["silent"].values.tolist() == [True]
    assert late["low"].values.tolist() == [False]
    assert watch.wait(10)["alarm"]["silent"].values.tolist() == [True, True]
    with pytest.raises(BedError, match="a row at 3 s is before 19 s"):
        watch.feed("rig", {"flow": 3.0}, at_s=3)


def test_a_prototype_that_ends_with_an_error_is_named(watch):
    with pytest.raises(BedError, match="ValueError: a flow below zero"):
        watch.feed("rig", {"flow": -1.0})
    with pytest.raises(BedError, match="ended with"):
        watch.feed("rig", {"flow": 1.0})


def test_a_machine_runs(running_testbed):
    space = running_testbed("pump-rig", outputs=["score"], speed=5)
    assert len(space.history("rig", "Pressure")["Pressure"].values) > 0
    batch = next(iter(space.input("rig")))
    assert len(batch["Pressure"].values) > 0
    with space.connect("prototype") as testbed:
        score = testbed.output("score", [Signal("score")])
        row = next(iter(testbed.input("rig")))["Pressure"]
        score.publish(row.time_ns, {"score": row.values * 2})
    assert space.history("prototype/score")["score"].values.tolist() == (row.values * 2).tolist()
    assert running_testbed("pump-rig", outputs=["score"], speed=5) is space
    environment = space.environment("prototype")
    assert environment["TESTBED_SPACE"] == space.space
    with pytest.raises(BedError, match="there is no prototype 'detector'"):
        space.environment("detector")
    with pytest.raises(BedError, match="there is no stream 'rg'"):
        space.history("rg")


def test_what_is_wrong_with_a_call_is_said(fed_prototype, running_testbed):
    for arguments, words in (
        ({"program": "gone.py", "inputs": {"rig": FLOW}}, "there is no file .*gone.py"),
        ({"program": "low_watch.py", "inputs": {"rig": "pump-rg"}}, "no model 'pump-rg'"),
        ({"program": "low_watch.py", "inputs": {}}, "equipment"),
        ({"program": "low_watch.py", "inputs": {"rig": FLOW}, "quantum": "soon"}, "soon"),
    ):
        with pytest.raises(BedError, match=words):
            fed_prototype(arguments.pop("program"), **arguments)
    with pytest.raises(BedError, match="there is no scenario .*none.yaml"):
        running_testbed("none.yaml")


@pytest.mark.parametrize("program", ["raise SystemExit('it never joins')", "print('done')"])
def test_a_program_that_never_joins_is_named(fed_prototype, tmp_path, program):
    (tmp_path / "never.py").write_text(program)
    with pytest.raises(BedError, match="prototype 'prototype'"):
        fed_prototype(str(tmp_path / "never.py"), inputs={"rig": FLOW})
"""
