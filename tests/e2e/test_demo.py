"""The main job as its user runs it: one command, many processes, a verdict on every sample."""

import csv
import json
import os
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
    return result


def test_the_demo_finds_the_fault_and_loses_nothing(tmp_path):
    result = verdict(run("demo", "--json", "--folder", tmp_path, "--speed", "80"), 800)
    assert result["f1"] > 0.8
    report = Path(result["report"]).read_text()
    assert "<svg" in report
    assert "http://" not in report.replace("http://www.w3.org", "").replace(
        "http://purl.org", ""
    ).replace("http://creativecommons.org", "")


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
        "--data",
        data,
        "--speed",
        "60",
        environment=environment,
    )
    verdict(done, 460)


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
    assert demo.wait(40) == 130
    assert b"Traceback" not in demo.communicate()[1]
    assert not [child for child in children if child.is_running() and child.status() != "zombie"]
    assert list(tmp_path.iterdir()) == []
