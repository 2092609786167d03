"""Reads the project of a prototype, and checks all that can be known without running it."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from broker import yaml_document
from broker.clock import Clock
from broker.errors import Invalid, Refused, Unknown
from broker.field_findings import FieldFinding, unknown
from broker.prototypes import file as manifest_file
from broker.prototypes.file import ManifestFile
from broker.prototypes.image import ArchiveImage, BuiltImage
from broker.prototypes.manifest import PrototypeManifest
from broker.streams import Signal
from testbed.scenario import loading
from testbed.scenario.loading import LoadedScenario
from testbed_scenarios import expectation_check
from testbed_scenarios.findings import ScenarioFinding
from testbed_scenarios.scenario_streams import ScenarioStreams

SCENARIO = "scenario.yaml"
"""The scenario of a project, beside its manifest."""
MOST_BYTES = 1024**2
"""Size of a manifest that is read."""
INTERPRETERS = frozenset({"python", "python3", "node"})
SCRIPTS = frozenset({".py", ".js", ".mjs"})
"""Programs whose first word is a file that they run, and the endings of such files."""


_File = TypeVar("_File")


@dataclass(frozen=True, slots=True)
class PrototypeProject:
    """The project of a prototype: its folder, its manifest, and the scenario that tries it."""

    folder: Path
    manifest: PrototypeManifest
    scenario: LoadedScenario


def load_manifest(folder: Path) -> ManifestFile:
    """Read the manifest of a folder, and look for the files that it names.

    Raises Unknown if there is none, Invalid with everything that is wrong, each at its place.
    """
    path = folder / manifest_file.NAME
    file = manifest_file.read(_text(path), str(path))
    if findings := list(_of_files(folder, file.manifest)):
        raise file.refused(findings)
    return file


def load(folder: Path, clock: Clock) -> PrototypeProject:
    """Read manifest and scenario of a folder, and check that they agree.

    Raises as `load_manifest` does, and as `loading.load` for the scenario.
    """
    file, wrong = _read(partial(load_manifest, folder))
    scenario, wrong_too = _read(partial(_load_scenario, folder, clock))
    if file is None or scenario is None:
        renamed = None if file is None else _renamed(folder, file.manifest)
        raise _joined([each for each in (wrong, renamed, wrong_too) if each is not None])
    manifest = file.manifest
    if findings := list(_of_scenario(manifest, scenario)):
        raise scenario.file.refused(findings)
    loading.check_mode(scenario, is_virtual=True)
    return PrototypeProject(folder, manifest, scenario)


def _load_scenario(folder: Path, clock: Clock) -> LoadedScenario:
    path = folder / SCENARIO
    if not path.exists():
        raise Unknown(
            f"there is no {path}, which the prototype is tried in",
            hint="`testbed prototype init NAME` writes one in a new folder",
        )
    return loading.load(path, clock)


def _read(load_file: Callable[[], _File]) -> tuple[_File | None, Refused | None]:
    """A file of the project, or the error that says what is wrong with it."""
    try:
        return load_file(), None
    except Refused as exc:
        return None, exc


def _joined(errors: Sequence[Refused]) -> Refused:
    """One error of several: that itself where there is one."""
    if len(errors) == 1:
        return errors[0]
    hints = dict.fromkeys(each.hint for each in errors if each.hint)
    return Invalid("\n".join(each.message for each in errors), hint="; ".join(hints))


def spec_differences(
    manifest: PrototypeManifest, registered: Mapping[str, Mapping[str, Signal]]
) -> list[str]:
    """Sentences about each output whose signals are other ones than its manifest says.

    registered: stream of the scenario -> signals by name, as the program registered them.
    """
    sentences = []
    for output in manifest.outputs:
        signals = registered.get(f"{manifest.name}/{output}")
        if signals is None:
            sentences.append(f"the program never published the output {output!r}")
        else:
            sentences += _signal_differences(output, manifest.signals(output), signals)
    return sentences


def _signal_differences(
    output: str, wanted: Mapping[str, Signal], given: Mapping[str, Signal]
) -> Iterator[str]:
    for name in sorted(wanted.keys() | given.keys()):
        if name not in given:
            yield f"output {output!r}: the manifest has a signal {name!r}, the program has not"
        elif name not in wanted:
            yield f"output {output!r}: the program has a signal {name!r}, the manifest has not"
        else:
            for what, of_manifest, of_program in _facts(wanted[name], given[name]):
                if of_manifest != of_program:
                    yield (
                        f"output {output!r}: the {what} of {name!r} is {of_manifest} in the"
                        f" manifest, {of_program} in the program"
                    )


def _facts(wanted: Signal, given: Signal) -> Iterator[tuple[str, str, str]]:
    """Name, value of the manifest and value of the program of each fact that both must have."""
    yield "type", str(wanted.type), str(given.type)
    yield "unit", wanted.unit, given.unit
    if wanted.low is not None or wanted.high is not None:
        yield "range", _range(wanted), _range(given)


def _range(signal: Signal) -> str:
    low, high = ("…" if end is None else f"{end:g}" for end in (signal.low, signal.high))
    return f"{low} to {high}"


def _text(path: Path) -> str:
    hint = "`testbed prototype init NAME` writes a first project"
    return yaml_document.read_text(path, what="manifest", most_bytes=MOST_BYTES, hint=hint)


def _of_files(folder: Path, manifest: PrototypeManifest) -> Iterator[FieldFinding]:
    """Findings about files that the manifest names and that are not there."""
    match manifest.image:
        case ArchiveImage(archive=name) if not (folder / name).is_file():
            yield FieldFinding(("image", "archive"), f"there is no file {folder / name}")
        case BuiltImage(build=name) if not (folder / name).is_dir():
            yield FieldFinding(("image", "build"), f"there is no folder {folder / name}")
        case BuiltImage(build=name, containerfile=steps) if not (folder / name / steps).is_file():
            is_named = "containerfile" in manifest.image.model_fields_set
            field = "containerfile" if is_named else "build"
            yield FieldFinding(("image", field), f"there is no file {folder / name / steps}")
        case _:
            pass
    program, *rest = shlex.split(manifest.command)
    if not isinstance(manifest.image, BuiltImage) or program not in INTERPRETERS or not rest:
        return
    script = folder / rest[0]
    if script.suffix in SCRIPTS and not Path(rest[0]).is_absolute() and not script.is_file():
        yield FieldFinding(("command",), f"there is no file {script}")


def _renamed(folder: Path, manifest: PrototypeManifest) -> Refused | None:
    """The error of a wrong scenario that lacks the manifest's prototype: the cause of others."""
    loaded, wrong = _read(partial(loading.read_form, folder / SCENARIO))
    if loaded is None or wrong is not None:
        return None
    finding = _without_name(manifest, loaded)
    return None if finding is None else loaded.file.refused([finding])


def _without_name(manifest: PrototypeManifest, loaded: LoadedScenario) -> ScenarioFinding | None:
    """The finding about a scenario that has no prototype of the manifest's name."""
    prototypes = loaded.scenario.prototypes
    if manifest.name in prototypes:
        return None
    sentence = f"the manifest's prototype {manifest.name!r} is not among them"
    return ScenarioFinding(("prototypes",), unknown(sentence, manifest.name, prototypes))


def _of_scenario(manifest: PrototypeManifest, loaded: LoadedScenario) -> Iterator[ScenarioFinding]:
    """Findings about the prototype in a scenario that has other streams than its manifest."""
    prototypes = loaded.scenario.prototypes
    if (finding := _without_name(manifest, loaded)) is not None:
        yield finding
        return
    path = ("prototypes", manifest.name)
    prototype = prototypes[manifest.name]
    for field, wanted, given in (
        ("inputs", set(manifest.inputs), set(prototype.inputs)),
        ("outputs", set(manifest.outputs), set(prototype.outputs)),
    ):
        noun = field[:-1]
        for name in sorted(wanted - given):
            yield ScenarioFinding((*path, field), f"the manifest's {noun} {name!r} is missing")
        for name in sorted(given - wanted):
            sentence = f"the manifest has no {noun} {name!r}"
            steps = (name,) if field == "inputs" else (str(prototype.outputs.index(name)),)
            yield ScenarioFinding((*path, field, *steps), unknown(sentence, name, wanted))
    streams = dict(ScenarioStreams.of(loaded.scenario, {}).signals)
    for output in manifest.outputs:
        streams[f"{manifest.name}/{output}"] = manifest.signals(output)
    yield from expectation_check.findings(loaded.scenario, ScenarioStreams(streams))
