"""The prototypes of examples/prototypes: each passes its own tests as a project."""

import json
import shutil
from pathlib import Path

import pytest

from tests.docs import loaders
from tests.e2e.test_demo import run
from tests.services import mqtt_js
from tests.sources import ROOT

EXAMPLES = ROOT / "examples/prototypes"
PROTOTYPES = sorted(path.name for path in EXAMPLES.iterdir())
IN_JAVASCRIPT = "quality-model"


def project(name: str, parent: Path) -> Path:
    """A copy of an example, with the packages that `npm install` would bring."""
    folder = shutil.copytree(EXAMPLES / name, parent / name)
    if name == IN_JAVASCRIPT:
        shutil.copytree(mqtt_js.modules(), folder / "node_modules", symlinks=True)
    return folder


@pytest.mark.parametrize("name", PROTOTYPES)
def test_an_example_passes_its_scenario_and_its_tests(name, tmp_path):
    folder = project(name, tmp_path)
    loaders.load("dockerfile", (folder / "Containerfile").read_text())
    done = run("prototype", "test", folder, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    verdict = json.loads(done.stdout)
    assert verdict["passed"]
    assert verdict["tests"] == 0
