"""The page of what a container is held to is what its script writes from the tables."""

import importlib.util
from pathlib import Path

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def test_the_page_of_isolation_is_up_to_date():
    spec = importlib.util.spec_from_file_location("isolation_reference", REFERENCE / "isolation.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    hint = "run python docs/reference/isolation.py"
    assert (REFERENCE / "isolation.md").read_text() == script.page(), hint
