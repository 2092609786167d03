"""`testbed prototype` as a developer uses it: a first project, its verdicts, and its grants."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from broker import api_client
from broker.namespace import EquipmentKind, StreamAddress
from broker.streams import Signal, StreamSpec
from tests.docs import loaders
from tests.e2e import town as towns
from tests.e2e.test_demo import run
from tests.e2e.town import RIG, Town
from tests.notebook_cells import code_cells
from tests.services import mqtt_js
from tests.sources import ROOT

STROKES = "factory/press/strokes"
ENTRIES = [{"space": "live", "stream": stream} for stream in (RIG, STROKES)]


def write(parent: Path, *options: str) -> Path:
    """A first project, as it is written."""
    done = run("prototype", "init", "valve-watch", "--folder", parent, "--json", *options)
    assert done.returncode == 0, done.stderr
    return Path(json.loads(done.stdout)["folder"])


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def verdict_of(folder: Path, code: int) -> dict:
    """The verdict of `test`, which must end with an exit code."""
    done = run("prototype", "test", folder, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout.partition("Its last lines")[0]
    return json.loads(done.stdout)


def test_a_first_project_passes_as_it_is_written(tmp_path):
    folder = write(tmp_path)
    for command in (["ruff", "check"], ["ruff", "format", "--check"]):
        subprocess.run([sys.executable, "-m", *command, "--isolated", "."], cwd=folder, check=True)
    loaders.load("dockerfile", (folder / "Containerfile").read_text())
    verdict = verdict_of(folder, 0)
    assert verdict["passed"]
    assert verdict["tests"] == 0
    (result,) = verdict["runs"]
    assert {each["name"] for each in result["expectations"]} == {
        "it answers",
        "it is quiet before the fault",
        "it finds the fault",
    }
    assert result["samples"]["valve-watch/score"] > 10


def test_the_ci_files_of_a_project_test_it(tmp_path):
    for language in ("python", "javascript"):
        folder = write(tmp_path / language, "--language", language)
        gitlab = yaml.safe_load((folder / ".gitlab-ci.yml").read_text())["prototype"]
        github = yaml.safe_load((folder / ".github/workflows/prototype.yaml").read_text())
        steps = [each["run"] for each in github["jobs"]["prototype"]["steps"] if "run" in each]
        assert gitlab["script"][-1] == steps[-1]
        assert gitlab["script"][-2] == steps[-2]
        assert steps[-1].startswith("testbed prototype test ")
        assert ("npm install" in steps) is (language == "javascript")
        example = (ROOT / "examples/ci/gitlab.yaml").read_text()
        assert steps[-2].removesuffix(" pytest") in example


def test_a_first_project_in_javascript_passes_as_it_is_written(tmp_path):
    modules = mqtt_js.modules()
    folder = write(tmp_path, "--language", "javascript")
    (folder / "node_modules").symlink_to(modules)
    verdict = verdict_of(folder, 0)
    assert verdict["passed"]
    assert verdict["runs"][0]["speed"] > 10  # nothing waits for a packet to be sent


def test_a_program_that_is_broken_is_a_negative_verdict(tmp_path):
    folder = write(tmp_path)
    whole = (folder / "prototype.py").read_text()
    (folder / "prototype.py").write_text("raise SystemExit('no model here')\n")
    verdict = verdict_of(folder, 1)
    assert verdict["runs"] == []
    assert verdict["tests"] is None
    assert "no model here" in verdict["failures"][0]
    (folder / "prototype.py").write_text(whole.replace('Signal("score")', 'Signal("points")'))
    change(folder / "prototype.py", '{"score"', '{"points"')
    (folder / "test_prototype.py").write_text("def test_nothing():\n    assert 1 == 2\n")
    verdict = verdict_of(folder, 1)
    assert verdict["tests"] == 1
    assert verdict["failures"] == [
        "output 'score': the program has a signal 'points', the manifest has not",
        "output 'score': the manifest has a signal 'score', the program has not",
    ]


def test_files_that_are_wrong_are_refused_before_anything_runs(tmp_path):
    folder = write(tmp_path)
    change(folder / "prototype.yaml", "memory: 256 MiB", "memory: 1 B")
    change(folder / "scenario.yaml", "duration: 5min", "duration: 5")
    for command in ("test", "check"):
        done = run("prototype", command, folder)
        assert done.returncode == 2
        assert "prototype.yaml:15:21: resources.memory: it must be 16 MiB to 16" in done.stderr
        assert "scenario.yaml:4:11: duration:" in done.stderr
        assert done.stdout == ""
    done = run("prototype", "init", "valve-watch", "--folder", tmp_path)
    assert done.returncode == 2
    assert "already" in done.stderr


@pytest.mark.timeout(180)
def test_a_project_asks_a_testbed_for_what_its_prototype_may_not_read_yet(tmp_path):
    with towns.founded(tmp_path / "town", "factory", "company", secure=False) as town:
        asyncio.run(_publish(town))
        town.create("fay", "/grants", company="company", streams=ENTRIES[:1])
        folder = write(tmp_path)
        cora = town.environment("cora", TESTBED_INPUTS=f"rig={RIG}")
        assert _states(folder, cora, 0) == {"rig": "granted"}
        _run_notebook(folder, cora)
        more = f"rig: {RIG}\n  press: {STROKES}\n  robot: factory/robot/arm"
        change(folder / "prototype.yaml", f"rig: {RIG}", more)
        change(folder / "scenario.yaml", "inputs: {rig: rig}", INPUTS)
        states = {"rig": "granted", "press": "missing", "robot": "unknown"}
        assert _states(folder, cora, 1) == states
        done = run("prototype", "request", folder, "--json", environment=cora)
        assert done.returncode == 1, "one input is unknown"
        (grant,) = json.loads(done.stdout)["request"]["items"]
        assert (grant["stream"], grant["state"]) == (STROKES, "asked")
        assert grant["purpose"].startswith("to find out whether a closing valve")
        assert _states(folder, cora, 1) == states | {"press": "asked"}
        assert town.create("fay", f"/grants/{grant['id']}/approval")
        assert _states(folder, cora, 1) == states | {"press": "granted"}
        done = run("prototype", "request", folder, environment=cora)
        assert "there is nothing to ask for" in done.stdout
        assert "factory/robot/arm" in done.stdout


INPUTS = "inputs: {rig: rig, press: rig, robot: rig}"


async def _publish(town: Town) -> None:
    """Register two streams of the factory's, and list the equipment of one to everybody."""
    fields = {"principal": "gate", "reads": [], "writes": ENTRIES}
    town = town.with_credential("gate", "fay", "/credentials", **fields)
    async with api_client.connect(town.api, town.credentials["gate"]) as connection:
        for address in map(StreamAddress.parse, (RIG, STROKES)):
            owner, kind = address.owner, EquipmentKind.REAL
            await connection.register_equipment(owner, name=owner.equipment, kind=kind)
            await connection.register_spec(StreamSpec(address, (Signal("Force", unit="kN"),)))
    listing = {"everybody": True, "organisations": [], "terms": ""}
    answer = town.ask("fay", "PUT", "/equipment/factory/press/listing", json=listing)
    assert answer.is_success, answer.text


def _states(folder: Path, environment: dict[str, str], code: int) -> dict[str, str]:
    """The state of each input, as `check` prints it."""
    command = ("prototype", "check", folder, "--with-testbed", "--json")
    done = run(*command, environment=environment)
    assert done.returncode == code, done.stderr
    return {each["name"]: each["state"] for each in json.loads(done.stdout)["inputs"]}


def _run_notebook(folder: Path, environment: dict[str, str]) -> None:
    """Run the cells of the project's notebook."""
    notebook = folder / "history.ipynb"
    assert code_cells(notebook)
    command = [sys.executable, "-m", "tests.notebook_cells", str(notebook)]
    subprocess.run(command, cwd=ROOT, env=os.environ | environment, check=True)
