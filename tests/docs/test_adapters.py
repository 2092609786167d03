"""What both brokers owe stands in the reference as the suites ask it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SUITES = ("rights", "connections")


def test_every_promise_of_the_suites_is_listed_and_no_other():
    folder = ROOT / "tests" / "conformance"
    suite = "".join((folder / f"test_{each}.py").read_text() for each in SUITES)
    promises = [each.replace("_", " ") for each in re.findall(r"async def test_(\w+)\(", suite)]
    text = (ROOT / "docs" / "reference" / "adapters.md").read_text()
    _, _, listed = text.partition("## What both brokers owe")
    assert re.findall(r"^- (.+)$", listed, re.MULTILINE) == promises
