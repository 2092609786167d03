"""The page of manifests is what its script writes from the model, and leaves nothing out."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from broker.prototypes import file, manifest

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("manifest_reference", REFERENCE / "manifest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_manifests_is_up_to_date(script):
    hint = "run python docs/reference/manifest.py"
    assert (REFERENCE / "manifest.md").read_text() == script.page(), hint


def test_the_example_of_the_page_has_every_field(script):
    read = file.read(script.EXAMPLE, "manifest.md").manifest
    assert read.model_fields_set == set(manifest.PrototypeManifest.model_fields)


def test_every_part_of_a_manifest_is_on_the_page(script):
    defined = manifest.json_schema()["$defs"]
    choices = {name for name, part in defined.items() if "enum" in part}
    assert set(script.SECTIONS.values()) == {*defined} - choices
