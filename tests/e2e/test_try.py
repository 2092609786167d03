"""A visitor's program in the detector's place: scored, or told in a sentence why it was not."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from simulators.models.pump_rig import SIGNALS
from tests import sources
from tests.e2e.test_demo import TESTBED, children_of, recording, run

LOW_FLOW = sources.ROOT / "examples" / "low_flow.py"
HEAD = """
import asyncio, os, signal, sys, time
from testbed_sdk import Dtype, Signal, connect

FLAG = [Signal("anomaly", Dtype.BOOL)]

async def main():
    async with connect() as testbed:
        rig = testbed.input("rig")
        await rig.open()
"""
TAIL = """
asyncio.run(main())
"""
DIES = """
        score = await testbed.output("score", FLAG)
        async for batch in rig:
            now = time.time_ns()
            await score.publish(now, {"anomaly": True})
            print("labelled at", now)
            if batch.batch.seq > 5:
                await score.wait_drained()
                os._exit(3)
"""
DIES_AT_ONCE = """
        await testbed.output("score", FLAG)
        async for batch in rig:
            sys.exit("no such signal here")
"""
SILENT = """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        await testbed.output("score", FLAG)
        while True:
            sys.stdout.write("nothing to say\\n" * 1_000)
            await asyncio.sleep(0)
"""
ELSEWHERE = """
        os.environ["TESTBED_OUTPUTS"] = "score=company/detector/alarm"
        async with connect() as other:
            await other.output("score", FLAG)
"""
NO_SDK = "raise ModuleNotFoundError(\"No module named 'testbed_sdk'\")"


def program(folder, body):
    """A program that connects and then does this."""
    path = folder / "my_prototype.py"
    path.write_text(HEAD + body + TAIL if body.startswith("\n") else body)
    return path


def tried(folder, *arguments):
    """Try a program with temporary files in a folder of their own, which must be empty then."""
    temporary, work = folder / "tmp", folder / "work"
    temporary.mkdir()
    work.mkdir(exist_ok=True)
    done = subprocess.run(
        [*TESTBED, "try", *map(str, arguments)],
        cwd=work,
        capture_output=True,
        text=True,
        timeout=200,
        env=os.environ | {"TMPDIR": str(temporary)},
        check=False,
    )
    assert "Traceback" not in done.stdout
    assert list(temporary.iterdir()) == []
    return done, work


def test_a_program_is_scored_in_a_report_and_leaves_nothing_else(tmp_path):
    command = ["--min-f1", "0.9", "--json", "--", sys.executable, LOW_FLOW]
    done, work = tried(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["f1"] > 0.9
    assert result["samples_stored"] == 800 * len(SIGNALS)
    assert (result["lost"], result["silent"]) == (0, 0)
    assert (result["problems"], result["notes"]) == ([], [])
    assert "prototype | " in done.stderr
    assert " alarms" in done.stderr
    (report,) = work.iterdir()
    text = report.read_text()
    assert f"Try of {sys.executable} {LOW_FLOW}" in text
    assert f"testbed try --min-f1 0.8 -- {sys.executable} {LOW_FLOW}" in text


def test_below_the_wanted_score_the_exit_code_is_1(tmp_path):
    """With a recording whose labels are about something else."""
    data = recording(tmp_path / "rig.csv", 120)
    options = ["--recording", data, "--speed", "20", "--min-f1", "0.9"]
    done, _ = tried(tmp_path, *options, "--", sys.executable, LOW_FLOW)
    assert done.returncode == 1, done.stderr
    assert "Was anything lost?\nNo. All 960 samples" in done.stdout
    assert "How good was the prototype?\nF1 " in done.stdout
    assert "F1 of 0.9 is not reached." in done.stdout


def test_a_recording_without_a_fault_cannot_be_scored(tmp_path):
    data = recording(tmp_path / "rig.csv", 30)
    lines = [line.rsplit(";", 2)[0] for line in data.read_text().splitlines()]
    data.write_text("\n".join(lines))
    command = ["--recording", data, "--min-f1", "0.9", "--", sys.executable, LOW_FLOW]
    done, _ = tried(tmp_path, *command)
    assert done.returncode == 2
    assert "labels no row as an anomaly" in done.stderr


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (ELSEWHERE, ("company/detector/alarm", "publish the output `score`")),
        (NO_SDK, ("No module named", "this Python does not have the SDK")),
        ("print('good bye')", ("ended with exit code 0 before", "good bye")),
    ],
    ids=["publishes elsewhere", "has no SDK", "does nothing"],
)
def test_a_program_that_ends_at_once_is_shown_with_its_last_lines(tmp_path, body, words):
    done, work = tried(tmp_path, "--", sys.executable, program(tmp_path, body))
    assert done.returncode == 2, done.stderr
    for text in ("before the machine's first row", *words):
        assert text in done.stderr
    assert list(work.iterdir()) == []


def test_the_report_of_an_earlier_run_is_not_taken_for_one_of_this_run(tmp_path):
    report = tmp_path / "work" / "testbed-demo.html"
    report.parent.mkdir()
    report.write_text("earlier")
    done, _ = tried(tmp_path, "--", sys.executable, program(tmp_path, "print('good bye')"))
    assert done.returncode == 2, done.stderr
    assert f"no report; {report} is of an earlier run" in done.stderr
    assert report.read_text() == "earlier"


def test_a_command_that_does_not_exist_starts_nothing(tmp_path):
    done, _ = tried(tmp_path, "--", "pyhton", "my_prototype.py")
    assert done.returncode == 2
    assert "the command 'pyhton' does not exist" in done.stderr
    assert "starting" not in done.stderr


def test_a_program_that_dies_is_scored_with_what_it_published(tmp_path):
    """Its labels here have the present time instead of the rows'."""
    done, _ = tried(tmp_path, "--json", "--", sys.executable, program(tmp_path, DIES))
    assert done.returncode == 1, done.stderr
    result = json.loads(done.stdout)
    assert (result["lost"], result["silent"], result["f1"]) == (0, 0, 0.0)
    died, wrong = result["problems"]
    assert "ended with exit code 3" in died
    assert "  labelled at " in died
    assert "has the time stamp of a row" in wrong
    assert "the prototype ended with exit code 3 while the machine was playing" in done.stderr


def test_a_program_that_dies_at_its_first_row_ends_the_try(tmp_path):
    """Its lines are shown once, and nobody waits for the machine's last row."""
    program_file = program(tmp_path, DIES_AT_ONCE)
    done, work = tried(tmp_path, "--speed", "2", "--", sys.executable, program_file)
    assert done.returncode == 2, done.stderr
    assert "ended with exit code 1 and had published nothing" in done.stderr
    assert done.stderr.count("no such signal here") == 1
    assert list(work.iterdir()) == []


def test_a_program_that_prints_without_end_and_publishes_nothing(tmp_path):
    done, _ = tried(tmp_path, "--json", "--", sys.executable, program(tmp_path, SILENT))
    assert done.returncode == 1, done.stderr
    result = json.loads(done.stdout)
    assert (result["lost"], result["silent"], result["f1"]) == (0, 0, 0.0)
    (nothing,) = result["problems"]
    assert "published nothing on company/detector/score: publish a bool `anomaly`" in nothing
    killed, printed = result["notes"]
    assert "was killed" in killed
    assert "lines, of which the first were shown" in printed
    assert done.stderr.count("prototype | nothing to say") == 200
    waiting = [line for line in done.stderr.splitlines() if "waiting for the prototype" in line]
    assert len(waiting) == 1, done.stderr
    assert "answers, up to 20 s" in waiting[0]
    assert "rows scored 0" in waiting[0]


def test_ctrl_c_ends_a_program_and_its_children(tmp_path):
    script = f"sleep 1000 & {sys.executable} {LOW_FLOW}; wait"
    command = [*TESTBED, "try", "--folder", tmp_path / "try", "--", "bash", "-c", script]
    with (tmp_path / "log").open("wb") as log:
        trial = subprocess.Popen(command, stdout=log, stderr=log)
    processes = children_of(trial, 6)  # server, broker, machine, bash, sleep, python
    trial.send_signal(signal.SIGINT)
    assert trial.wait(30) == 130
    assert "Traceback" not in (tmp_path / "log").read_text()
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert [each for each in alive if each.status() != psutil.STATUS_ZOMBIE] == []


def test_the_demo_takes_a_command_as_a_shell_writes_it(tmp_path):
    prototype = f"'{sys.executable}' '{LOW_FLOW}'"
    done = run("demo", "--json", "--folder", tmp_path, "--prototype", prototype)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["f1"] > 0.9
