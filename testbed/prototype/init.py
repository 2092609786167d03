"""Writes a first project of a prototype: program, manifest, image, scenario, tests, CI files."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata, resources
from pathlib import Path

import orjson

from broker import namespace
from broker.errors import Invalid, Taken
from broker.prototypes import manifest
from broker.run_clock import COORDINATOR
from testbed.scenario import whole_file
from testbed.scenario.init import SCHEMA_FILE, schema_text
from testbed.terminal import invocation

TEMPLATES = "templates"
TEMPLATE_ENDING = ".txt"
"""Keeps tools from taking a template for a file of this project."""
MANIFEST_SCHEMA_FILE = "prototype.schema.json"
MACHINE = "rig"
"""The machine of the first scenario, whose name no prototype may have."""


class ProgramLanguage(StrEnum):
    """The language of a first program."""

    PYTHON = "python"
    """With the SDK."""
    JAVASCRIPT = "javascript"
    """With an MQTT client alone."""


COMMANDS: Mapping[ProgramLanguage, str] = {
    ProgramLanguage.PYTHON: "python prototype.py",
    ProgramLanguage.JAVASCRIPT: "node prototype.mjs",
}
PROGRAMS: Mapping[ProgramLanguage, str] = {
    ProgramLanguage.PYTHON: "python: prototype.py",  # of the testbed's Python, which has the SDK
    ProgramLanguage.JAVASCRIPT: "command: node prototype.mjs",
}
"""Line of the scenario that starts the program."""
PLACES: Mapping[str, str] = {
    "gitignore": ".gitignore",
    "gitlab-ci.yml": ".gitlab-ci.yml",
    "github.yaml": ".github/workflows/prototype.yaml",
}
"""Places in the project of the templates that have another name, so that no tool takes them for
files of this project.
"""


@dataclass(frozen=True, slots=True)
class FirstProject:
    """A project that was written: its folder, and its files relative to that."""

    folder: Path
    files: tuple[str, ...]
    language: ProgramLanguage

    @property
    def next_steps(self) -> tuple[str, ...]:
        """Sentences with the next commands."""
        needs = self.language is ProgramLanguage.JAVASCRIPT
        install = (f"install its MQTT client: npm install --prefix {self.folder}",)
        return (*(install if needs else ()), f"test it: testbed prototype test {self.folder}")


def write(parent: Path, name: str, language: str) -> FirstProject:
    """Write a project into a new folder; returns its files.

    Raises Invalid for a name or a language that is none, Taken if the folder holds anything.
    """
    _check_name(name)
    chosen = _checked_language(language)
    folder = parent / name
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Taken(f"there is {folder} already", hint="choose another name, or empty it")
    texts = _texts(name, chosen)
    for place, text in texts.items():
        path = folder / place
        _make_folder(path.parent)
        whole_file.write(path, text, option="--folder")
    return FirstProject(folder, tuple(sorted(texts)), chosen)


def manifest_schema_text() -> str:
    """The JSON Schema of manifests."""
    return orjson.dumps(manifest.json_schema(), option=orjson.OPT_INDENT_2).decode() + "\n"


def _check_name(name: str) -> None:
    namespace.checked_id(name, "prototype")
    if name in {MACHINE, COORDINATOR}:
        raise Invalid(
            f"a prototype cannot be called {name!r}: the first scenario has something of that name",
            hint="choose another name",
        )


def _checked_language(text: str) -> ProgramLanguage:
    try:
        return ProgramLanguage(text)
    except ValueError as exc:
        raise Invalid(
            f"there is no first program in {text[:40]!r}", hint=f"one of {', '.join(COMMANDS)}"
        ) from exc


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise Invalid(
            f"{path} cannot be made: {exc.strerror}", hint="name another folder with --folder"
        ) from exc


def _texts(name: str, language: ProgramLanguage) -> dict[str, str]:
    """The text of each file by its place in the project."""
    words = {"PROTOTYPE": name, "COMMAND": COMMANDS[language]}
    words |= {"PROGRAM": PROGRAMS[language], "WHEEL": _wheel()}
    texts = {SCHEMA_FILE: schema_text(), MANIFEST_SCHEMA_FILE: manifest_schema_text()}
    own = resources.files("testbed.prototype") / TEMPLATES
    for part in ("every", language):
        for template in (own / part).iterdir():
            text = template.read_text(encoding="utf-8")
            for word, meaning in words.items():
                text = text.replace(word, meaning)
            place = template.name.removesuffix(TEMPLATE_ENDING)
            texts[PLACES.get(place, place)] = text
    return texts


def _wheel() -> str:
    """The file name of the wheel of this version, as `make wheel` writes it."""
    version = metadata.version(invocation.PROJECT)
    return f"{invocation.PROJECT.replace('-', '_')}-{version}-py3-none-any.whl"
