"""JUnit of a run that ends without a verdict: never green, never of an earlier run."""

import asyncio
from xml.etree import ElementTree as ET

import pytest

from broker.clock import WallClock
from broker.errors import Invalid, Unavailable
from testbed.scenario import junit, loading

EARLIER = '<testsuites tests="1" failures="0"/>'
RIGHT = "scenario: valve\nduration: 60s\nequipment: {rig: {model: pump-rig}}\n"


@pytest.fixture
def file(tmp_path):
    """The file of an earlier run."""
    path = tmp_path / "out.xml"
    path.write_text(EARLIER)
    return path


@pytest.fixture
def scenario(tmp_path):
    path = tmp_path / "valve.yaml"
    path.write_text(RIGHT)
    return path


def root_of(file):
    return ET.fromstring(file.read_text())  # noqa: S314 - our own


def ended(file, scenario, error, results=None):
    with junit.errors_in(file, scenario):
        assert not file.exists()
        if results:
            file.write_text(results)
        raise error


def ended_by(file, scenario, error):
    """The root of the file after a block that this error ends."""
    with pytest.raises(type(error)):
        ended(file, scenario, error)
    return root_of(file)


@pytest.mark.parametrize(
    ("text", "is_named"),
    [
        (RIGHT.replace("duration", "duraton"), True),
        ("scenario: [valve\n", False),
        ("- valve\n", False),
    ],
)
def test_a_mistake_in_the_file_is_an_error_of_the_scenario_or_of_its_path(
    file, scenario, text, is_named
):
    scenario.write_text(text)
    with pytest.raises(Invalid) as refused, junit.errors_in(file, scenario):
        loading.load(scenario, WallClock())
    root = root_of(file)
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("1", "0", "1")
    (case,) = root.iter("testcase")
    assert case.get("name") == ("valve" if is_named else str(scenario))
    assert refused.value.message in case.find("error").text


def test_a_scenario_that_is_not_there_is_an_error_too(file, tmp_path):
    root = ended_by(file, tmp_path / "gone.yaml", Unavailable("no server", hint="run again"))
    error = root.find("testsuite/testcase/error")
    assert error.get("message") == "no server"
    assert error.text == "no server\nhint: run again"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ExceptionGroup("of tasks", [Unavailable("no broker")]), "no broker"),
        (ExceptionGroup("of tasks", [KeyError("x")]), "a fault of the testbed: ExceptionGroup"),
        (KeyError("x\x07"), "a fault of the testbed: KeyError('x\\x07')"),
    ],
)
def test_errors_of_tasks_and_bugs_are_in_the_file(file, scenario, error, words):
    message = ended_by(file, scenario, error).find("testsuite/testcase/error").get("message")
    assert message.startswith(words)


def test_what_fails_after_the_results_is_added_to_them(file, scenario):
    results = '<testsuites tests="2" failures="1"><testsuite name="a"/></testsuites>'
    with pytest.raises(Unavailable):
        ended(file, scenario, Unavailable("the recipient is away"), results)
    root = root_of(file)
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("3", "1", "1")
    assert [suite.get("name") for suite in root] == ["a", "valve"]


def test_an_interrupted_run_leaves_no_file(file, scenario):
    with pytest.raises(asyncio.CancelledError), junit.errors_in(file, scenario):
        raise asyncio.CancelledError
    assert not file.exists()


def test_the_scenario_itself_is_not_overwritten(scenario):
    with pytest.raises(Invalid, match="is the scenario"), junit.errors_in(scenario, scenario):
        raise AssertionError
    assert scenario.read_text() == RIGHT
