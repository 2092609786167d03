"""The scenarios of examples/scenarios: each ends with the verdict that it is there to show."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from broker.clock import WallClock
from testbed.scenario import loading, matrix_run
from testbed.scenario.matrix_run import MatrixProgress, RunOptions
from tests.services import fmu_tank

EXAMPLES = Path(__file__).parents[2] / "examples"
SCENARIOS = sorted(file.stem for file in (EXAMPLES / "scenarios").glob("*.yaml"))
SKAB = Path(os.environ.get("TESTBED_SKAB", Path(__file__).parents[3] / "shared/data/skab"))
HAS_SKAB = SKAB.is_dir()
SPEEDS = {"at-wall-time": 5.0}
"""Of those at wall time: seconds of the scenario in a second."""
RUNS = {"skab": 8, "skab-isolation-forest": 2, "valve-sweep": 4}
SHORTENED = {"skab-isolation-forest": ("equipment.rig.csv", 2)}
"""The path of a sweep, and as many of its values as are run here."""
NEEDS_SKAB = {"skab", "skab-isolation-forest"}
FAILED = {
    "drift-missed, seed 7": ["it alarms within 10 s"],
    "skab, csv=skab/valve1-0.csv": ["it finds the fault"],
    "skab, csv=skab/valve1-2.csv": ["it finds the fault"],
}
"""Of runs that fail: the expectations that do."""


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory):
    """A copy of the examples, with the files beside them that are not the project's."""
    folder = tmp_path_factory.mktemp("examples")
    own = shutil.ignore_patterns("skab", "*.fmu")  # what a reader has put beside them
    for part in ("detector", "fmu", "scenarios"):
        shutil.copytree(EXAMPLES / part, folder / part, ignore=own)
    if HAS_SKAB:
        (folder / "scenarios" / "skab").symlink_to(SKAB)
    for name, (path, count) in SHORTENED.items():
        file = folder / "scenarios" / f"{name}.yaml"
        document = yaml.safe_load(file.read_text())
        del document["sweep"][path][count:]
        file.write_text(yaml.safe_dump(document))
    return folder / "scenarios"


def build_tank(scenarios):
    """Build the FMU beside the scenario, by the command that the scenario names."""
    if fmu_tank.COMPILER is None:
        pytest.skip(fmu_tank.NO_COMPILER)
    first, *_ = (scenarios / "tank-fmu.yaml").read_text().splitlines()
    assert "python ../fmu/build.py tank.fmu" in first
    command = [sys.executable, "../fmu/build.py", "tank.fmu"]
    subprocess.run(command, cwd=scenarios, check=True)


@pytest.mark.timeout(240)  # eight runs of one scenario, each with a server, beside other tests
@pytest.mark.parametrize("name", SCENARIOS)
async def test_an_example_has_its_verdict(scenarios, tmp_path, name):
    if name in NEEDS_SKAB and not HAS_SKAB:
        pytest.skip(f"the recordings of the Skoltech benchmark are not in {SKAB}: set TESTBED_SKAB")
    if name == "tank-fmu":
        build_tank(scenarios)
    loaded = loading.load(scenarios / f"{name}.yaml", WallClock())
    speed = SPEEDS.get(name)
    loading.check_mode(loaded, is_virtual=speed is None)
    options = RunOptions(folder=tmp_path, speed=speed)
    results = await matrix_run.run_all(loaded, options, WallClock(), MatrixProgress())
    assert len(results) == RUNS.get(name, 1)
    for result in results:
        failed = [each.name for each in result.verdict.results if not each.passed]
        assert failed == FAILED.get(result.title, []), "\n".join(
            [result.title, *result.verdict.lines()]
        )
        assert not result.end.incidents


@pytest.mark.timeout(180)  # three runs, each with a server
async def test_the_notebook_runs_as_it_is(scenarios):
    environment = os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": str(EXAMPLES.parent)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.notebook_cells", str(EXAMPLES / "run_scenario.ipynb")),
        cwd=scenarios.parent,
        env=environment,
        stderr=asyncio.subprocess.PIPE,
    )
    _, error = await process.communicate()
    assert process.returncode == 0, error.decode()


@pytest.mark.parametrize("name", SCENARIOS)
def test_an_example_begins_with_what_it_shows(name):
    first, second, *_ = (EXAMPLES / "scenarios" / f"{name}.yaml").read_text().splitlines()
    assert first.startswith("# "), "one comment says what it shows"
    assert second == f"scenario: {name}"
