"""The page of the simulated machines is what its script writes from their catalogue."""

import importlib.util
from pathlib import Path

from simulators.catalogue import MODELS

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def test_the_page_is_up_to_date_and_says_what_each_model_was_checked_against():
    spec = importlib.util.spec_from_file_location("machines", REFERENCE / "machines.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    hint = "run python docs/reference/machines.py"
    assert (REFERENCE / "machines.md").read_text() == module.page(), hint
    assert module.CHECKED.keys() == MODELS.keys()
