"""Read the files of a document with the program that each is for, or as strictly as it does."""

import configparser
import json
import re
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import yaml
from pydantic import TypeAdapter

from broker.prototypes import file as prototype_file
from gateway.mapping import file as mapping_file
from simulators.table_files import form as table_form
from testbed_scenarios.expectations.model import Expectation

DOCKERFILE = {
    *("ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM"),
    *("HEALTHCHECK", "LABEL", "RUN", "USER", "VOLUME", "WORKDIR"),
}
UNIT_SECTIONS = {"Unit", "Service", "Install"}
DATASOURCE = {
    *("name", "uid", "type", "access", "url", "isDefault", "jsonData", "secureJsonData"),
}


def load(language: str, text: str) -> None:
    """Read a file; an assertion or the reader's own error says what is wrong with it."""
    assert language in LOADERS, f"no program is known that reads {language!r}"
    LOADERS[language](text)


def _yaml(text: str) -> None:
    document = yaml.safe_load(text)
    if "streams" in document:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "mapping.yaml"
            file.write_text(text)
            mapping_file.load(file)
        return
    if "prototype" in document:
        prototype_file.read(text, "prototype.yaml")
        return
    if "delimiter" in document:
        table_form.read(text, "form.yaml")
        return
    if "expectations" in document:
        _expectations(document["expectations"])
        return
    assert "datasources" in document, f"no program is known that reads {sorted(document)}"
    assert document["apiVersion"] == 1
    for source in document["datasources"]:
        assert set(source) <= DATASOURCE, source


def _expectations(entries: Sequence[object]) -> None:
    for entry in entries:
        TypeAdapter(Expectation).validate_python(entry)


def _ini(text: str) -> None:
    unit = configparser.RawConfigParser(strict=False, delimiters=("=",))
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # keys keep their case
    unit.read_string(text)
    assert set(unit.sections()) <= UNIT_SECTIONS
    assert unit["Service"]["ExecStart"]
    if shutil.which("systemd-analyze") is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.service"
        file.write_text(text)
        command = ["systemd-analyze", "verify", "--man=no", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        own = [line for line in done.stderr.splitlines() if file.name in line]
        assert [line for line in own if "is not executable" not in line] == [], done.stderr


def _dockerfile(text: str) -> None:
    lines = re.sub(r"\\\n", " ", text).splitlines()
    words = {line.split()[0] for line in lines if line.strip() and not line.startswith("#")}
    assert words <= DOCKERFILE


def _python(text: str) -> None:
    compile(text, "a program of a page", "exec")


LOADERS: Mapping[str, Callable[[str], object]] = {
    "dockerfile": _dockerfile,
    "ini": _ini,
    "json": json.loads,
    "python": _python,
    "toml": tomllib.loads,
    "yaml": _yaml,
}
