"""Hashes of everything that a run is made from beside its scenario: files, programs, packages."""

import hashlib
import importlib.machinery
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from broker.errors import Invalid, Refused, Unavailable
from broker.prototypes import bundle
from broker.prototypes import file as manifest_file
from broker.recordings import layout
from testbed.scenario.plan import RunPlan
from testbed_scenarios.model import (
    CommandPrototype,
    CsvEquipment,
    FmuEquipment,
    FunctionPrototype,
    PythonPrototype,
    RecordingEquipment,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HashedFile:
    """A file that a run needed.

    owner: the equipment or the prototype that it is of, by its name in the scenario.  path: as the
    scenario names it.  sha256: of its content, of a recording over all of its files.  kind: file,
    or project where the file is the manifest of a prototype's project, packed as one.
    """

    owner: str
    path: str
    sha256: str
    kind: Literal["file", "project"] = "file"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInputs:
    """The files of a run's equipment, and those of its programs."""

    files: tuple[HashedFile, ...] = ()
    code: tuple[HashedFile, ...] = ()


def read(plan: RunPlan) -> RunInputs:
    """Hash the inputs of a run before it begins; raises Invalid for a file that is not readable."""
    return RunInputs(files=tuple(_files(plan)), code=(*_code(plan), *_project(plan)))


def packages_sha256() -> str:
    """SHA-256 over the names and versions of all installed packages, as a lock file pins them."""
    lines = {
        f"{each.name.lower().replace('_', '-')}=={each.version}\n"
        for each in metadata.distributions()
        if each.name
    }
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def _files(plan: RunPlan) -> Iterator[HashedFile]:
    for name, part in plan.scenario.equipment.items():
        match part:
            case CsvEquipment(csv=file) | FmuEquipment(fmu=file):
                content = file
            case RecordingEquipment(recording=file):
                content = f"{file}/{layout.CHECKSUMS}"
            case _:
                continue
        sha256 = file_sha256(plan.base / content)
        yield HashedFile(owner=name, path=file, sha256=sha256)


def _code(plan: RunPlan) -> Iterator[HashedFile]:
    for name, prototype in plan.scenario.prototypes.items():
        named: Mapping[str, Path] = {}
        match prototype:
            case CommandPrototype(command=line):
                named = _files_of_command(plan.base, line)
            case PythonPrototype(python=file):
                named = {file: plan.base / file}
            case FunctionPrototype(function=function):
                named = _file_of_function(plan.base, function)
        for path, program in named.items():
            yield HashedFile(owner=name, path=path, sha256=file_sha256(program))


def _project(plan: RunPlan) -> Iterator[HashedFile]:
    """The project of a prototype under test, where the scenario lies beside its manifest.

    Its digest is that under which it is deployed.  A manifest that is wrong, or a folder that
    cannot be packed, is none that could be deployed: `testbed prototype check` says why.
    """
    path = plan.base / manifest_file.NAME
    if not path.is_file():
        return
    try:
        name = manifest_file.read(path.read_text(), str(path)).manifest.name
        if name not in plan.scenario.prototypes:
            return
        digest = bundle.pack(plan.base).digest
    except (Refused, Unavailable, OSError, UnicodeDecodeError):
        return
    sha256 = digest.removeprefix("sha256:")
    yield HashedFile(owner=name, path=manifest_file.NAME, sha256=sha256, kind="project")


def _files_of_command(base: Path, line: str) -> Mapping[str, Path]:
    """The program of a command, and each of its words that names a file beside the scenario."""
    program, *words = shlex.split(line)
    located = shutil.which(program)
    files = {} if located is None else {program: Path(located)}
    return files | {word: base / word for word in (program, *words) if (base / word).is_file()}


def _file_of_function(base: Path, function: str) -> Mapping[str, Path]:
    """The file of a function's module, without importing it; none if it has none."""
    places: list[str] | None = [str(base), *sys.path]
    spec = None
    name = function.partition(":")[0]
    for step in name.split("."):
        spec = importlib.machinery.PathFinder.find_spec(step, places)
        if spec is None:
            return {}
        places = list(spec.submodule_search_locations or ())
    if spec is None or spec.origin is None:
        return {}
    return {name: Path(spec.origin)}


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content; raises Invalid if it cannot be read."""
    try:
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as exc:
        raise Invalid(f"{path} cannot be read: {exc.strerror}") from exc
