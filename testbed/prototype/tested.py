"""Tests a prototype on its developer's computer: its own tests, then its scenario."""

import asyncio
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker.clock import Clock
from broker.errors import Invalid, Unavailable
from broker.process import tasks, termination
from testbed.processes import program_end
from testbed.prototype import project as prototype_project
from testbed.scenario import hand_over, junit, matrix_run, report, terminal, whole_file
from testbed.scenario.hand_over import RunRecipient
from testbed.scenario.loading import LoadedScenario
from testbed.scenario.matrix_run import MatrixProgress, RunOptions
from testbed.scenario.result import RunResult
from testbed.terminal.run import Exit
from testbed.terminal.screen import Screen, notes, out, print_json

TESTS_PASSED, TESTS_FAILED, NOT_COLLECTED, USAGE_ERROR, NO_TESTS = 0, 1, 2, 4, 5
"""Exit codes of pytest: 2 is of a test file that cannot be imported."""
STOP_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenTest:
    """Choices of the caller of a test.

    seed: of the scenario, None for that of its file.  junit, report: files for its results.
    hands_over: give its runs to the testbed of the sign-in, so that this image may be deployed.
    """

    seed: int | None = None
    junit: Path | None = None
    report: Path | None = None
    hands_over: bool = False
    as_json: bool = False

    def check(self) -> None:
        """Raise Invalid for files that cannot be written."""
        for path, option in ((self.junit, "--junit"), (self.report, "--report")):
            if path is not None:
                whole_file.check(path, option=option)


@dataclass(slots=True)
class PrototypeVerdict:
    """The verdict on a prototype, as far as it was tested.

    tests: exit code of pytest.  results: of the scenario's runs.  failures: sentences about all
    else that makes it fail.
    """

    tests: int | None = None
    results: list[RunResult] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        runs = all(result.verdict.passed for result in self.results)
        return self.tests in {TESTS_PASSED, NO_TESTS} and runs and not self.failures

    def as_json(self, name: str) -> dict[str, Any]:
        """The keys that scripts rely on; name: of the prototype."""
        return {
            "prototype": name,
            "passed": self.passed,
            "tests": self.tests,
            "failures": self.failures,
            "runs": [result.as_json() for result in self.results],
        }


async def checked_run(folder: Path, choices: ChosenTest, clock: Clock) -> Exit:
    """Check the project of a folder, run its scenario and its tests, and print the verdict.

    The tests run if the program took part in the scenario.  Raises Unknown and Invalid for files
    that are wrong and for tests that pytest cannot run, Unavailable where the testbed itself fails.
    """
    choices.check()
    with junit.errors_in(choices.junit, folder / prototype_project.SCENARIO):
        return await _checked_run(folder, choices, clock)


async def _checked_run(folder: Path, choices: ChosenTest, clock: Clock) -> Exit:
    project = prototype_project.load(folder, clock)
    verdict, manifest, loaded = PrototypeVerdict(), project.manifest, project.scenario
    with _environment(manifest.environment):
        notes.print(f"1. the scenario {loaded.path}", style="bold")
        await _play(loaded, choices, clock, verdict)
        for result in verdict.results:
            registered = result.observed.signals
            differences = prototype_project.spec_differences(manifest, registered)
            verdict.failures += [each for each in differences if each not in verdict.failures]
        if verdict.results:
            _print_runs(verdict, choices)
            if choices.hands_over:
                recipient = RunRecipient(server=None, folder=folder)
                await hand_over.hand_over(recipient, loaded, verdict.results, clock, notes)
            notes.print(f"2. the tests in {folder}", style="bold")
            verdict.tests = await _pytest(folder)
    _print(verdict, manifest.name, choices)
    return Exit.DONE if verdict.passed else Exit.NEGATIVE


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """The environment of the manifest, for programs that are started meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


async def _pytest(folder: Path) -> int:
    """Run the tests of a folder; returns pytest's exit code where that is a verdict."""
    if importlib.util.find_spec("pytest") is None:
        raise Invalid("pytest is not installed, which runs the tests", hint="pip install pytest")
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "--quiet", "--tb=short"),
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),  # standard output is for the verdict
    )
    try:
        code = await child.wait()
    finally:
        await termination.terminate(child, STOP_S)
    if code in {TESTS_PASSED, TESTS_FAILED, NOT_COLLECTED, NO_TESTS}:
        return code
    ended = f"pytest {program_end.ending(code)}"
    if code == USAGE_ERROR:
        raise Invalid(f"{ended}: it cannot use its options", hint="see the lines above")
    raise Unavailable(f"{ended}, which is no verdict", hint="see the lines above")


async def _play(
    loaded: LoadedScenario, choices: ChosenTest, clock: Clock, verdict: PrototypeVerdict
) -> None:
    """Run the scenario in virtual time; a prototype that never takes part is a failure."""
    async with matrix_run.run_folder(None, keeps=False) as folder:
        progress = MatrixProgress()
        options = RunOptions(seed=choices.seed, folder=folder)
        display = {"progress": terminal.display(progress, Screen(stderr=True), clock)}
        try:
            async with tasks.background(display):
                verdict.results = await matrix_run.run_all(loaded, options, clock, progress)
        except Invalid as exc:
            if not matrix_run.is_of_prototype(exc):
                raise
            verdict.failures.append(exc.message)
            if choices.junit is not None:
                junit.write_error(choices.junit, loaded.path, exc)
        if choices.junit is not None and verdict.results:
            junit.write(choices.junit, loaded, verdict.results)
        if choices.report is not None and verdict.results:
            report.write(choices.report, loaded, verdict.results, clock.now_ns())


def _print_runs(verdict: PrototypeVerdict, choices: ChosenTest) -> None:
    """Print the verdicts on the scenario's runs, unless all is printed as JSON at the end."""
    if not choices.as_json:
        for result in verdict.results:
            terminal.print_result(result, out)
    if choices.report is not None:
        notes.print(f"report: {choices.report}")


def _print(verdict: PrototypeVerdict, name: str, choices: ChosenTest) -> None:
    """Print the verdict on a prototype: as JSON, or in sentences."""
    if choices.as_json:
        print_json(verdict.as_json(name))
        return
    if verdict.tests in {TESTS_FAILED, NOT_COLLECTED}:
        out.print("failed  its tests", style="red")
    if verdict.tests == NO_TESTS:
        out.print("There are no tests: write test_….py beside the manifest.", style="yellow")
    for failure in verdict.failures:
        out.print(f"failed  {failure}", style="red")
    word, style = ("passed", "bold green") if verdict.passed else ("failed", "bold red")
    out.print(f"Prototype {name}: {word}.", style=style)
