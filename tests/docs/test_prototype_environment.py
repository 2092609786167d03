"""The page on where a program runs names what a program that is tried is given."""

import re
from pathlib import Path

from testbed.demo import processes
from testbed.demo.plan import RIG, SCORE, SPACE, DemoPlan, Stage
from tests import sources

PAGE = sources.ROOT / "docs" / "how-to" / "where-your-program-runs.md"


def given() -> dict[str, str]:
    """The environment of a program that is tried."""
    stage = Stage(
        plan=DemoPlan(folder=Path("demo")),
        api="http://127.0.0.1:8600",
        broker="mqtt://127.0.0.1:1883",
        machine="opc.tcp://127.0.0.1:4840",
        owner="",
        company="",
        credentials={"detector": "detector.secret"},
    )
    return processes.prototype_environment(stage)


def test_every_variable_that_it_is_given_stands_on_the_page(monkeypatch):
    monkeypatch.setenv("TESTBED_CREDENTIAL", "somebody.else")
    environment = given()
    assert environment["TESTBED_CREDENTIAL"] == "detector.secret"
    _, _, section = PAGE.read_text().partition("## In the detector's place, scored")
    section, _, _ = section.partition("\n## ")
    ours = {name for name in environment if name.startswith("TESTBED_")}
    assert set(re.findall(r"`(TESTBED_\w+)`", section)) == ours
    assert f"`{SPACE}`" in section
    assert f"`rig={RIG}`" in section
    assert f"`score={SCORE}`" in section
    assert "`PYTHONUNBUFFERED=1`" in section
