"""The wheel, in an environment with the core dependencies alone: all that the SDK needs."""

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

from tests import sources, wheels

pytest.importorskip("setuptools", minversion="77", reason="`make wheel` installs setuptools")

MOST_PACKAGES = 30
SDK = """
import json, sys
import testbed_sdk

print(json.dumps([testbed_sdk.__file__, sorted(sys.modules)]))
"""
NEEDS_MORE = {
    "up --data data": "[server]",
    "gateway run mapping.yaml": "[gateway]",
    "simulate pump-rig": "[gateway]",
}
"""Commands of other parts, with the extra that has what they need."""


def closure(project: str) -> set[str]:
    """The distributions that the core dependencies of a project bring, by name."""
    names: set[str] = set()
    waiting = [(project, "")]
    while waiting:
        name, extra = waiting.pop()
        for text in metadata.requires(name) or ():
            requirement = Requirement(text)
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            if requirement.name not in names:
                names.add(requirement.name)
                waiting += [(requirement.name, each) for each in ("", *requirement.extras)]
    return names


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy as `make wheel` builds it."""
    return wheels.built(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def light(wheel, tmp_path_factory) -> Path:
    """The Python of an environment with the wheel and the core dependencies, and nothing else."""
    folder = tmp_path_factory.mktemp("light") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    (packages,) = (folder / "lib").glob("python*/site-packages")
    for name in closure("connected-testbed"):
        distribution = metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or ()}:
            origin = Path(str(distribution.locate_file(top)))
            if top not in {"..", "__pycache__"} and not (packages / top).exists():
                (packages / top).symlink_to(origin)
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*command, "--no-deps", "--no-index", str(wheel)], check=True)
    return python


def run(python: Path, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if "TESTBED_" not in name}
    own = {name: value for name, value in own.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(python), *arguments],
        cwd=folder,
        env=own,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_core_dependencies_are_few():
    brought = closure("connected-testbed")
    assert len(brought) <= MOST_PACKAGES, sorted(brought)
    assert not brought & {"fastapi", "asyncua", "duckdb", "matplotlib", "cryptography", "nats-py"}


def test_the_wheel_holds_the_packages_and_no_test(wheel):
    with ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {name for name in tops if ".dist-info" not in name} == set(sources.PACKAGES)
    template = "testbed/prototype/templates/every/prototype.yaml.txt"
    modules = ("testbed_sdk/synchronous.py", "testbed_sdk/py.typed", "testbed/cli.py")
    for file in (*modules, template):
        assert file in names


def test_the_sdk_comes_from_the_wheel_and_needs_nothing_else(light, tmp_path):
    done = run(light, "-c", SDK, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    file, modules = json.loads(done.stdout)
    assert Path(file).is_relative_to(light.parents[1])
    assert not {"typer", "pandas"} & set(modules)
    code = "from testbed_sdk import read_history; read_history('factory/pump-rig/rig')"
    done = run(light, "-c", code, folder=tmp_path)
    assert "no credential is set" in done.stderr


def test_commands_of_a_client_run_and_others_name_what_they_need(light, tmp_path):
    testbed = str(light.parent / "testbed")
    done = run(light, testbed, "--version", folder=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, metadata.version("connected-testbed"))
    for line in ("status", "credential list", "history factory/pump-rig/rig"):
        done = run(light, testbed, *line.split(), folder=tmp_path)
        assert "no credential is set" in done.stderr, line
    (tmp_path / "mapping.yaml").write_text("organisation: factory\n")
    for line, extra in NEEDS_MORE.items():
        done = run(light, testbed, *line.split(), folder=tmp_path)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
        assert re.search(r"needs the package \w+, which is not installed", done.stderr), line
        assert extra in done.stderr
