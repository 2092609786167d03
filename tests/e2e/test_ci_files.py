"""The CI files of examples/ci: what their steps do in a fresh folder, and what GitLab and GitHub
read of the results.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml

from tests import sources, wheels
from tests.docs import blocks

pytest.importorskip("setuptools", minversion="77", reason="`make wheel` installs setuptools")

FILES = sources.ROOT / "examples/ci"
PAGE = sources.ROOT / "docs/how-to/test-in-ci.md"
EXPECTATIONS = {"it answers", "it finds the fault"}
"""Of the scenario that `testbed scenario init` writes."""


def gitlab(job: Mapping[str, Any]) -> list[str]:
    """The job's script as GitLab's runner gives it to a shell; the job keeps what it wrote."""
    assert job["artifacts"]["when"] == "always"
    assert job["artifacts"]["reports"]["junit"] == "out.xml"
    assert job["artifacts"]["paths"] == ["out.html"]
    return ["set -eo pipefail\n" + "\n".join(job["script"])]


def github(job: Mapping[str, Any]) -> list[str]:
    """The job's steps that are commands, each a shell of its own; the others say what is kept."""
    actions = {each["uses"].partition("@")[0]: each for each in job["steps"] if "uses" in each}
    for name in ("mikepenz/action-junit-report", "actions/upload-artifact"):
        assert actions[name]["if"] == "always()"
    assert actions["mikepenz/action-junit-report"]["with"]["report_paths"] == "out.xml"
    assert actions["actions/upload-artifact"]["with"]["path"] == "out.*"
    assert job["permissions"]["checks"] == "write"  # what the first of them needs
    return ["set -e\n" + each["run"] for each in job["steps"] if "run" in each]


READERS: Mapping[str, tuple[Callable[[Any], Any], Callable[[Any], list[str]]]] = {
    "gitlab": (lambda document: document["scenarios"], gitlab),
    "github": (lambda document: document["jobs"]["scenarios"], github),
}


@pytest.fixture
def repository(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A repository with the wheel, and the environment of a fresh machine."""
    folder = tmp_path / "repository"
    for each in ("repository", "wheel"):
        (tmp_path / each).mkdir()
    wheel = wheels.built(tmp_path / "wheel")
    wheel.rename(folder / wheel.name)
    programs = wheels.environment(tmp_path / "venv")
    passed_on = {"HOME", "TMPDIR", "LANG", "CI", "PYTHONDONTWRITEBYTECODE"}
    variables = {name: value for name, value in os.environ.items() if name in passed_on}
    variables |= {"PATH": f"{programs}:/usr/bin:/bin", "PIP_NO_INDEX": "1"}
    return folder, variables | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def shell(
    script: str, folder: Path, variables: dict[str, str], code: int = 0
) -> "subprocess.CompletedProcess[str]":
    """Run a script, which must end with an exit code."""
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, f"{script}\n{done.stdout}{done.stderr}"
    return done


@pytest.mark.timeout(240)  # a wheel is built and installed, and a scenario run three times
def test_the_steps_of_a_ci_file_test_a_scenario(repository) -> None:
    folder, variables = repository
    (wheel,) = folder.glob("*.whl")
    init = [sys.executable, "-m", "testbed", "scenario", "init", "valve", "--from-model"]
    subprocess.run([*init, "pump-rig"], cwd=folder, check=True)
    for name, (job_of, scripts_of) in READERS.items():
        text = (FILES / f"{name}.yaml").read_text()
        assert wheel.name in text, "the files name the wheel of this version"
        for script in scripts_of(job_of(yaml.safe_load(text))):
            shell(script, folder, variables)
        assert "<svg" in (folder / "out.html").read_text()
        cases = as_gitlab_shows(folder / "out.xml")
        assert {case["name"] for case in cases} == EXPECTATIONS
        assert {case["file"] for case in cases} == {"valve.yaml"}
        assert all(case["status"] == "success" for case in cases)
        for file in ("out.html", "out.xml"):
            (folder / file).unlink()
    _fails(folder, variables, script)


def _fails(folder: Path, variables: dict[str, str], last: str) -> None:
    """The last step of a file fails with the scenario, and leaves what is cases of it."""
    program = folder / "valve.py"
    program.write_text(program.read_text().replace("LIMIT = 6.0", "LIMIT = 1e9"))
    shell(last, folder, variables, code=1)
    failed = [case for case in as_gitlab_shows(folder / "out.xml") if case["status"] == "failed"]
    assert [case["name"] for case in failed] == ["it finds the fault"]
    assert "recall 0 %" in failed[0]["text"]
    assert (folder / "out.html").exists()


def as_gitlab_shows(path: Path) -> list[dict[str, str]]:
    """The test cases that GitLab shows of a file: the first of each name in a class.

    Source: GitLab's documentation, Unit test reports: the elements and attributes that it parses.
    """
    cases: dict[tuple[str, str], dict[str, str]] = {}
    for case in ET.parse(path).getroot().iter("testcase"):  # noqa: S314 - our own file
        failure = case.find("failure")
        key = (case.attrib["classname"], case.attrib["name"])
        assert key not in cases, "a second case of the same name would not be displayed"
        float(case.attrib["time"])
        cases[key] = {
            "name": case.attrib["name"],
            "file": case.attrib["file"],
            "status": "success" if failure is None else "failed",
            "text": "" if failure is None else failure.text or "",
        }
    return list(cases.values())


def test_the_page_has_the_files_as_they_are() -> None:
    on_page = [each.text for each in blocks.of(PAGE) if each.language == "yaml"]
    for file in FILES.glob("*.yaml"):
        assert file.read_text() in on_page, file.name
