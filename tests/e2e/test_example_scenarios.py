"""The scenarios of examples/scenarios: each ends with the verdict that it is there to show."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from broker.clock import WallClock
from testbed.scenario import loading, matrix_run
from testbed.scenario.matrix_run import MatrixProgress, RunOptions

EXAMPLES = Path(__file__).parents[2] / "examples"
SCENARIOS = sorted(file.stem for file in (EXAMPLES / "scenarios").glob("*.yaml"))
SKAB = Path(os.environ.get("TESTBED_SKAB", Path(__file__).parents[3] / "shared/data/skab"))
HAS_SKAB = SKAB.is_dir()
SPEEDS = {"at-wall-time": 5.0}
"""Of those at wall time: seconds of the scenario in a second."""
RUNS = {"skab": 8, "valve-sweep": 4}
FAILED = {
    "drift-missed, seed 7": ["it alarms within 10 s"],
    "skab, csv=skab/valve1-0.csv": ["it finds the fault"],
}
"""Of runs that fail: the expectations that do."""


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory):
    """A copy of the examples, with the files beside them that are not the project's."""
    folder = tmp_path_factory.mktemp("examples")
    for part in ("detector", "scenarios"):
        shutil.copytree(EXAMPLES / part, folder / part)
    if HAS_SKAB:
        (folder / "scenarios" / "skab").symlink_to(SKAB)
    return folder / "scenarios"


@pytest.mark.timeout(240)  # eight runs of one scenario, each with a server, beside other tests
@pytest.mark.parametrize("name", SCENARIOS)
async def test_an_example_has_its_verdict(scenarios, tmp_path, name):
    if name == "skab" and not HAS_SKAB:
        pytest.skip(f"the recordings of the Skoltech benchmark are not in {SKAB}: set TESTBED_SKAB")
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
