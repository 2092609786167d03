"""What both brokers owe whoever changes rights stands in the reference as the suite asks it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_promise_of_the_rights_suite_is_listed_and_no_other():
    suite = (ROOT / "tests" / "conformance" / "test_rights.py").read_text()
    asked = [one.replace("_", " ") for one in re.findall(r"async def test_(\w+)\(", suite)]
    text = (ROOT / "docs" / "reference" / "adapters.md").read_text()
    _, _, listed = text.partition("## What both brokers owe")
    assert re.findall(r"^- (.+)$", listed, re.MULTILINE) == asked
