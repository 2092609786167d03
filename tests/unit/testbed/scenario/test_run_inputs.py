"""Hashes of what a run is made from: files of equipment, programs, packages."""

import hashlib
import sys

import pytest

from broker.errors import Invalid
from broker.prototypes import bundle
from testbed.scenario import run_document, run_inputs
from testbed.scenario.plan import RunPlan
from testbed_scenarios.model import Scenario

INPUTS = {"inputs": {"rig": "rig"}, "outputs": ["out"]}


def plan(folder, equipment, **prototypes):
    document = {
        "scenario": "short",
        "duration": "10s",
        "equipment": equipment,
        "prototypes": prototypes,
    }
    scenario = Scenario.from_document(document)
    return RunPlan(scenario=scenario, base=folder, folder=folder)


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def test_each_file_of_the_equipment_has_its_hash(tmp_path):
    (tmp_path / "rig.csv").write_text("a")
    (tmp_path / "recorded").mkdir()
    (tmp_path / "recorded/SHA256SUMS").write_text("b")
    equipment = {
        "rig": {"csv": "rig.csv"},
        "mill": {"recording": "recorded"},
        "press": {"model": "press"},
    }
    read = run_inputs.read(plan(tmp_path, equipment))
    assert [(each.owner, each.path, each.sha256) for each in read.files] == [
        ("rig", "rig.csv", sha256("a")),
        ("mill", "recorded", sha256("b")),
    ]
    (tmp_path / "rig.csv").unlink()
    with pytest.raises(Invalid, match=r"rig\.csv cannot be read"):
        run_inputs.read(plan(tmp_path, equipment))


def test_each_program_has_the_hash_of_its_files(tmp_path):
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "detect.py").write_text("c")
    (tmp_path / "watch.py").write_text("d")
    prototypes = {
        "file": INPUTS | {"python": "watch.py"},
        "command": INPUTS | {"command": f"{sys.executable} watch.py --fast"},
        "function": INPUTS | {"function": "mine.detect:main"},
        "nowhere": INPUTS | {"function": "not.there:main"},
    }
    read = run_inputs.read(plan(tmp_path, {"rig": {"model": "pump-rig"}}, **prototypes))
    hashes = {(each.owner, each.path): each.sha256 for each in read.code}
    assert hashes.pop(("command", sys.executable))
    assert hashes == {
        ("file", "watch.py"): sha256("d"),
        ("command", "watch.py"): sha256("d"),
        ("function", "mine.detect"): sha256("c"),
    }


def test_an_output_is_recorded_if_all_that_its_prototype_reads_is(tmp_path):
    equipment = {"rig": {"csv": "rig.csv"}, "mill": {"model": "pump-rig"}}

    def prototype(**inputs):
        return {"python": "x.py", "inputs": inputs, "outputs": ["out"]}

    prototypes = {
        "last": prototype(a="first/out"),
        "both": prototype(a="rig", b="mill"),
        "first": prototype(a="rig"),
        "made": {"python": "x.py", "outputs": ["out"]},
    }
    scenario = plan(tmp_path, equipment, **prototypes).scenario
    assert run_document.sources_of(scenario) == {
        "rig": "recorded",
        "mill": "simulated",
        "last/out": "recorded",
        "both/out": "simulated",
        "first/out": "recorded",
        "made/out": "simulated",
    }


def test_the_hash_of_all_packages_is_the_same_each_time():
    assert run_inputs.packages_sha256() == run_inputs.packages_sha256()


MANIFEST = "prototype: watch\nimage: {build: .}\ncommand: python watch.py\ninputs: {rig: a/b/c}\n"


def test_a_project_has_the_digest_under_which_it_is_deployed(tmp_path):
    (tmp_path / "watch.py").write_text("c")
    (tmp_path / "prototype.yaml").write_text(MANIFEST)
    equipment = {"rig": {"model": "pump-rig"}}
    read = run_inputs.read(plan(tmp_path, equipment, watch=INPUTS | {"python": "watch.py"}))
    program, project = read.code
    assert (program.kind, program.path) == ("file", "watch.py")
    assert (project.kind, project.owner, project.path) == ("project", "watch", "prototype.yaml")
    assert f"sha256:{project.sha256}" == bundle.pack(tmp_path).digest
    (tmp_path / "watch.py").write_text("d")
    assert bundle.pack(tmp_path).digest != f"sha256:{project.sha256}"


@pytest.mark.parametrize(
    "manifest", ["prototype: other\n", "prototype: [", MANIFEST + "x: 1\n", "\0"]
)
def test_what_could_not_be_deployed_is_no_project(tmp_path, manifest):
    (tmp_path / "watch.py").write_text("c")
    (tmp_path / "prototype.yaml").write_text(manifest)
    equipment = {"rig": {"model": "pump-rig"}}
    read = run_inputs.read(plan(tmp_path, equipment, watch=INPUTS | {"python": "watch.py"}))
    assert [each.kind for each in read.code] == ["file"]


def test_a_folder_that_cannot_be_packed_is_no_project(tmp_path):
    (tmp_path / "watch.py").write_text("c")
    (tmp_path / "prototype.yaml").write_text(MANIFEST)
    (tmp_path / "data").symlink_to(tmp_path / "elsewhere")
    equipment = {"rig": {"model": "pump-rig"}}
    read = run_inputs.read(plan(tmp_path, equipment, watch=INPUTS | {"python": "watch.py"}))
    assert [each.kind for each in read.code] == ["file"]
