"""A plugin of pytest: the fixture `scenario` runs scenario files in virtual time.

def test_detector(scenario):
    result = scenario("valve.yaml", seed=7)
    assert result.passed, result
    assert result.f1 > 0.8

Loaded with every pytest of an environment that has the testbed: it imports nothing before a test
asks for the fixture.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from testbed.scenario.tested_run import TestedRun


@pytest.fixture
def scenario(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> "Callable[..., TestedRun]":
    """Run a scenario file, relative to the test's file: `scenario("valve.yaml", seed=7)`.

    Returns its result; a test asserts what it is about.  A scenario that is wrong, and a prototype
    that never takes part, fail the test with their sentence.
    """

    def run(file: str | Path, seed: int | None = None) -> "TestedRun":
        from testbed.scenario import tested_run  # noqa: PLC0415 - see above

        path = request.path.parent / file
        return tested_run.run(path, seed=seed, folder=tmp_path_factory.mktemp("scenario"))

    return run
