"""The record of a run names the image that `testbed deploy` makes of the project."""

import shutil

from broker.clock import WallClock
from broker.prototypes import bundle
from testbed.prototype import project
from testbed.scenario import run_inputs
from testbed.scenario.plan import RunPlan
from tests.sources import ROOT

DETECTOR = ROOT / "examples/prototypes/anomaly-detector"


def code_of(folder, scenario):
    plan = RunPlan(scenario=scenario, base=folder, folder=folder)
    return run_inputs.read(plan).code


def test_a_run_of_a_project_names_its_image_beside_its_program(tmp_path):
    folder = shutil.copytree(DETECTOR, tmp_path / "project")
    scenario = project.load(folder, WallClock()).scenario.scenario
    program, image = code_of(folder, scenario)
    assert image.kind == "project"
    assert f"sha256:{image.sha256}" == bundle.pack(folder).digest
    assert (program.path, program.kind) == ("prototype.py", "file")
    (folder / "prototype.yaml").write_text("prototype: another-one")
    assert [each.kind for each in code_of(folder, scenario)] == ["file"]
    (folder / "prototype.yaml").unlink()
    assert len(code_of(folder, scenario)) == 1
