"""JUnit XML of a scenario's runs, in the form that GitLab and GitHub's actions show.

A run is a test suite, an expectation a test case; whatever else makes a run fail is a case of its
own, and so is an error that ends the command.  Source: the JUnit schema of Jenkins' xUnit plugin,
of which GitLab reads `name`, `classname`, `file`, `time`, and the text of `failure` and `error`; of
several cases with one name it shows the first alone.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree as ET

from broker.errors import BedError, Invalid
from broker.process import tasks
from testbed.scenario import loading, whole_file
from testbed.scenario.loading import LoadedScenario
from testbed.scenario.result import RunResult

INCIDENT = "the run comes to its end"
"""Name of the test case of everything that expectations are not about."""


def write(path: Path, loaded: LoadedScenario, results: Sequence[RunResult]) -> None:
    """Write the results to a file, whole or not at all; raises Unavailable."""
    whole_file.write(path, text(loaded, results), option="--junit")


@contextmanager
def errors_in(path: Path | None, scenario: Path) -> Iterator[None]:
    """Write an error that ends the block into a JUnit file, so that no page of results is green.

    path: None for no file; one of an earlier run is removed first.  scenario: file that the error
    is about.  Raises Invalid, before the block, if the file cannot be written.
    """
    if path is None:
        yield
        return
    whole_file.check(path, option="--junit")
    if path.exists() and scenario.exists() and path.samefile(scenario):
        raise Invalid(f"{path} is the scenario", hint="name another file with --junit")
    _remove(path)
    try:
        yield
    except Exception as exc:
        write_error(path, scenario, exc)
        raise


def write_error(path: Path, scenario: Path, error: Exception) -> None:
    """Write an error as a test case, behind the results that this run has written already."""
    root = ET.Element("testsuites", name=str(scenario), tests="0", failures="0", time="0")
    if path.exists():
        root = ET.fromstring(path.read_text("utf-8"))  # noqa: S314 - written by us
    root.append(_error_suite(scenario, _sentences(error)))
    root.set("tests", str(int(root.get("tests", 0)) + 1))
    root.set("errors", "1")
    whole_file.write(path, _document(root), option="--junit")


def _error_suite(scenario: Path, sentences: str) -> ET.Element:
    name = _printable(loading.title_of(scenario))
    counts = {"tests": "1", "failures": "0", "errors": "1", "skipped": "0"}
    suite = ET.Element("testsuite", {"name": name, "time": "0"} | counts)
    facts = {"name": name, "classname": name, "file": str(scenario), "time": "0"}
    case = ET.SubElement(suite, "testcase", facts)
    words = _printable(sentences)
    error = ET.SubElement(case, "error", message=words.splitlines()[0], type="error")
    error.text = words
    return suite


def _sentences(error: Exception) -> str:
    """The sentences that the command prints of an error; of a bug, its repr."""
    if isinstance(error, ExceptionGroup):
        try:
            error = tasks.first_failure(error)
        except ExceptionGroup as group:
            error = group
    if not isinstance(error, BedError):
        return f"a fault of the testbed: {error!r}"
    return f"{error.message}\nhint: {error.hint}" if error.hint else error.message


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as exc:
        raise Invalid(
            f"{path} cannot be replaced: {exc.strerror}", hint="name another file with --junit"
        ) from exc


def text(loaded: LoadedScenario, results: Sequence[RunResult]) -> str:
    """The XML of the results."""
    root = ET.Element("testsuites", name=loaded.scenario.name)
    for result in results:
        root.append(_suite(loaded, result))
    for name in ("tests", "failures", "errors"):
        root.set(name, str(sum(int(suite.get(name, 0)) for suite in root)))
    root.set("time", f"{sum(result.end.wall_s for result in results):.3f}")
    return _document(root)


def _document(root: ET.Element) -> str:
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(loaded: LoadedScenario, result: RunResult) -> ET.Element:
    suite = ET.Element("testsuite", name=result.title)
    properties = ET.SubElement(suite, "properties")
    facts = {
        "seed": result.plan.seed,
        "hash": result.verdict.hash,
        "scenario_sha256": result.origin.scenario_hash,
    }
    for name, value in facts.items():
        ET.SubElement(properties, "property", name=name, value=str(value))
    for each in result.verdict.results:
        case = _case(suite, loaded, result, each.name)
        if not each.passed:
            _fail(case, each.sentence)
    incidents = result.verdict.incidents
    if incidents or not result.verdict.results:
        case = _case(suite, loaded, result, INCIDENT)
        if incidents:
            _fail(case, "\n".join(incidents))
    cases = suite.findall("testcase")
    suite.set("tests", str(len(cases)))
    suite.set("failures", str(sum(case.find("failure") is not None for case in cases)))
    suite.set("errors", "0")
    suite.set("skipped", "0")
    suite.set("time", f"{result.end.wall_s:.3f}")
    return suite


def _case(suite: ET.Element, loaded: LoadedScenario, result: RunResult, name: str) -> ET.Element:
    label = f" ({result.plan.label})" if result.plan.label else ""
    whole = f"{_printable(name)}{label}"
    taken = {case.get("name") for case in suite.iter("testcase")}
    numbered = (f"{whole} [{number}]" for number in itertools.count(2))
    return ET.SubElement(
        suite,
        "testcase",
        name=whole if whole not in taken else next(each for each in numbered if each not in taken),
        classname=loaded.scenario.name,
        file=str(loaded.path),
        time="0",
    )


def _fail(case: ET.Element, sentence: str) -> None:
    words = _printable(sentence)
    failure = ET.SubElement(case, "failure", message=words.splitlines()[0], type="expectation")
    failure.text = words


def _printable(words: str) -> str:
    """The text without characters that XML 1.0 has no form for."""
    return "".join(
        each if each in "\t\n" or each.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for each in words
    )
