"""The page of the SDK is what its script writes from the docstrings, and leaves nothing out."""

import importlib.util
import inspect
from pathlib import Path
from types import ModuleType

import pytest

import testbed_sdk

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sdk_reference", REFERENCE / "sdk.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(script):
    hint = "run python docs/reference/sdk.py"
    assert (REFERENCE / "sdk.md").read_text() == script.page(), hint


def test_everything_that_is_exported_is_on_the_page_once(script):
    exported = [name for names in script.SECTIONS.values() for name in names]
    assert sorted(exported) == sorted(testbed_sdk.__all__)


def test_every_public_method_of_a_class_is_on_the_page(script):
    text = script.page()
    for name in testbed_sdk.__all__:
        kind = getattr(testbed_sdk, name)
        if not inspect.isclass(kind) or issubclass(kind, testbed_sdk.PrototypeSettings):
            continue
        part = text.partition(f"\n### {name}\n")[2].partition("\n### ")[0]
        for method, function in inspect.getmembers(kind, inspect.isfunction):
            if not method.startswith("_") and "testbed_sdk" in function.__module__:
                assert f"def {method}(" in part, f"{name}.{method}"
