"""The main job as its user runs it: one command, many processes, a verdict on every sample."""

import contextlib
import csv
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from simulators.models.pump_rig import SIGNALS, PumpRig

KEYS = {
    "samples_offered",
    "samples_stored",
    "lost",
    "duplicated",
    "wrong",
    "silent",
    "latency_ms",
    "f1",
    "far",
    "mar",
    "problems",
    "notes",
    "report",
}
TESTBED = [sys.executable, "-m", "testbed"]


def run(*arguments, environment=None, timeout_s=200):
    return subprocess.run(
        [*TESTBED, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=os.environ | (environment or {}),
        check=False,
    )


def recording(path: Path, rows: int) -> Path:
    """A recording in the form of the benchmark, with repeated values and a labelled end."""
    with path.open("w", newline="") as file:
        lines = csv.writer(file, delimiter=";")
        lines.writerow(["datetime", *(signal.name for signal in SIGNALS), "anomaly", "changepoint"])
        for at, row in enumerate(PumpRig(seed=3, count=rows).rows()):
            moment = f"2020-03-09 10:{at // 60:02d}:{at % 60:02d}"
            lines.writerow([moment, *row.values, float(at > rows - 40), 0.0])
    return path


def verdict(done, rows):
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert set(result) == KEYS
    assert result["samples_offered"] == result["samples_stored"] == rows * len(SIGNALS)
    assert [result[name] for name in ("lost", "duplicated", "wrong", "silent")] == [0, 0, 0, 0]
    assert 0 < result["latency_ms"]["p50"] <= result["latency_ms"]["p99"]
    assert (result["problems"], result["notes"]) == ([], [])
    return result


def test_the_demo_finds_the_fault_and_loses_nothing(tmp_path):
    result = verdict(run("demo", "--json", "--folder", tmp_path, "--min-f1", "0.8"), 800)
    assert result["f1"] > 0.8
    report = Path(result["report"]).read_text()
    assert "<svg" in report
    assert "://" not in report
    assert "Was anything lost?" in report
    assert "How good was the prototype?" in report
    assert "<dt>seed</dt><dd>7</dd>" in report
    assert "examples/detector/detector.py" in report
    assert "testbed try -- " in report


@pytest.mark.parametrize("store", ["duckdb", "influxdb"])
def test_a_recording_arrives_value_for_value(tmp_path, request, store):
    environment = {}
    if store == "influxdb":
        server = request.getfixturevalue("influxd")
        where = server.url.removeprefix("http://")
        environment = {
            "TESTBED_STORE": f"influxdb://{where}/{server.organisation}/demo-{os.getpid()}",
            "TESTBED_STORE_TOKEN": server.token,
        }
    data = recording(tmp_path / "rig.csv", 460)
    folder = tmp_path / "out"
    done = run(
        "demo",
        "--json",
        "--folder",
        folder,
        "--recording",
        data,
        "--speed",
        "60",
        environment=environment,
    )
    verdict(done, 460)


@pytest.mark.alone
def test_ctrl_c_ends_a_demo_whose_processes_hang(tmp_path):
    with (tmp_path / "log").open("wb") as log:
        command = [*TESTBED, "demo", "--folder", tmp_path / "demo"]
        demo = subprocess.Popen(command, stdout=log, stderr=log)
    processes = children_of(demo, 5)
    for child in processes:
        child.suspend()
    demo.send_signal(signal.SIGINT)
    assert demo.wait(30) == 130  # four of them, 3 s each, on a busy machine
    assert "Traceback" not in (tmp_path / "log").read_text()
    psutil.wait_procs(processes, timeout=5)
    left = [child for child in processes if child.is_running()]
    assert [child for child in left if child.status() != psutil.STATUS_ZOMBIE] == []


def children_of(demo, count):
    """The processes below a demo, once there are so many."""
    parent = psutil.Process(demo.pid)
    deadline = time.monotonic() + 60
    while len(processes := parent.children(recursive=True)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.2)  # noqa: TID251 - processes come up in real time
    return processes


def test_what_keep_prints_runs_in_another_folder_with_an_empty_environment(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    log = tmp_path / "log"
    with log.open("wb") as errors:
        command = [*TESTBED, "demo", "--keep", "--folder", tmp_path / "demo"]
        demo = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
    try:
        deadline = time.monotonic() + 150
        while "Ctrl-C stops it all." not in log.read_text():
            assert demo.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)  # noqa: TID251 - processes come up in real time
        printed = [line.strip() for line in log.read_text().splitlines() if line[:2] == "  "]
        exports = [line for line in printed if line.startswith("export ")]
        commands = [line for line in printed if not line.startswith("export ")]
        assert (len(exports), len(commands)) == (3, 9)
        for at, line in enumerate(printed):  # each after the exports that were printed above it
            if line in commands:
                script = [each for each in printed[:at] if each in exports]
                assert first_output("\n".join([*script, line]), elsewhere)
        (writer,) = [
            line for line in commands if line.endswith("low_flow.py") and " -- " not in line
        ]
        (score,) = [line for line in commands if " score " in line]
        with shell("\n".join([*exports, writer]), elsewhere, output=subprocess.DEVNULL):
            wait_for_a_fault("\n".join([*exports, f"{score} --from -1m --json"]), elsewhere)
    finally:
        demo.send_signal(signal.SIGINT)
        assert demo.wait(20) == 130


def first_output(script, folder):
    """The first line that a script prints in a shell without an environment."""
    with shell(script, folder) as process:
        readable, _, _ = select.select([process.stdout], [], [], 100)
        line = process.stdout.readline() if readable else b""
        end(process)
        assert line, process.stderr.read().decode()
    return line


@contextlib.contextmanager
def shell(script, folder, output=subprocess.PIPE):
    """A shell without an environment that runs a script, until left."""
    command = ["env", "-i", "bash", "--noprofile", "--norc", "-c", script]
    with subprocess.Popen(
        command, cwd=folder, stdout=output, stderr=output, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            end(process)


def end(process):
    """Terminate a shell and what it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)


def wait_for_a_fault(score, folder):
    """Score again and again, until the rig has had a fault since the program is there."""
    deadline = time.monotonic() + 75
    while True:
        with shell(score, folder) as process:
            output, errors = process.communicate(timeout=60)
        if process.returncode == 0 and json.loads(output)["f1"] is not None:
            return
        assert time.monotonic() < deadline, output + errors
        time.sleep(1)  # noqa: TID251 - the rig plays in real time


def test_without_a_terminal_the_demo_says_at_once_what_it_does_and_cleans_up(tmp_path):
    """Also where an option is wrong."""
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    for wrong in (["--times", "never"], ["--prototype", "pyhton my.py"], ["--recording", "no.csv"]):
        done = run("demo", *wrong, environment=environment)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert list(tmp_path.iterdir()) == []
    work = tmp_path / "work"
    work.mkdir()
    demo = subprocess.Popen(
        [*TESTBED, "demo"],
        cwd=work,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert demo.stderr.readline().startswith("starting")
    output, errors = demo.communicate(timeout=150)
    assert demo.returncode == 0, errors
    assert "checking every sample" in errors
    assert str(work / "testbed-demo.html") in output
    assert f" try -- {sys.executable} my.py" in output
    assert [path.name for path in work.iterdir()] == ["testbed-demo.html"]
    assert list(tmp_path.iterdir()) == [work]


def test_ctrl_c_leaves_no_process_and_no_file(tmp_path):
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    demo = subprocess.Popen(
        [*TESTBED, "demo"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    parent = psutil.Process(demo.pid)
    deadline = time.monotonic() + 30
    while len(parent.children(recursive=True)) < 4 and time.monotonic() < deadline:
        time.sleep(0.2)  # noqa: TID251 - processes come up in real time
    children = parent.children(recursive=True)
    assert len(children) >= 3
    demo.send_signal(signal.SIGINT)
    assert demo.wait(20) == 130
    assert b"Traceback" not in demo.communicate()[1]
    assert not [child for child in children if child.is_running() and child.status() != "zombie"]
    assert list(tmp_path.iterdir()) == []
