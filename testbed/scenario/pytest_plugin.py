"""A plugin of pytest: fixtures that put prototypes to the test.

`scenario` runs a scenario file in virtual time, `fed_prototype` feeds a prototype row by row, and
`running_testbed` has machines that run at wall time.

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
    from collections.abc import Callable, Iterator, Sequence

    from testbed.scenario.fed_prototype import FedInputs, FedPrototype
    from testbed.scenario.session_testbed import RunningSpace, SessionTestbed
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


@pytest.fixture(scope="session")
def testbed_session(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[SessionTestbed]":
    """The testbed that `running_testbed` and `fed_prototype` share; the first starts it."""
    from testbed.scenario.session_testbed import SessionTestbed  # noqa: PLC0415 - see above

    session = SessionTestbed(tmp_path_factory.mktemp("testbed"))
    yield session
    session.close()


@pytest.fixture
def running_testbed(
    request: pytest.FixtureRequest, testbed_session: "SessionTestbed"
) -> "Callable[..., RunningSpace]":
    """A space in which machines run at wall time: `running_testbed("pump-rig")`.

    Takes the name of a model, or a scenario file relative to the test's file.  Machines run through
    real gateways from the first call on until the session ends; the same call in another test gets
    the same space.  outputs: of the prototype that reads a model.  speed: seconds of the machines
    in a second.
    """

    def space(source: str, *, outputs: "Sequence[str]" = (), speed: float = 1.0) -> "RunningSpace":
        return testbed_session.space(source, request.path.parent, outputs, speed)

    return space


@pytest.fixture
def fed_prototype(
    request: pytest.FixtureRequest, testbed_session: "SessionTestbed"
) -> "Iterator[Callable[..., FedPrototype]]":
    """Start a prototype that is fed row by row, in virtual time.

    `fed_prototype("watch.py", inputs={"rig": "pump-rig"}, outputs=["alarm"])`: a Python file
    relative to the test's file, `package.module:function`, or a command; each input with its
    signals, or with the model that has them.  quantum: the time that a row ends.  Each is
    ended with the test.
    """
    started: list[FedPrototype] = []

    def start(
        program: str,
        *,
        inputs: "FedInputs",
        outputs: "Sequence[str]" = (),
        quantum: str = "1s",
    ) -> "FedPrototype":
        base = request.path.parent
        started.append(testbed_session.fed(program, base, inputs, outputs, quantum))
        return started[-1]

    yield start
    for prototype in started:
        prototype.close()
