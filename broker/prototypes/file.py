"""Manifests: YAML text to a `PrototypeManifest`, each mistake as `file:line:column: sentence`.

Pure.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import ValidationError

from broker import field_findings, pydantic_checks, yaml_document
from broker.errors import Invalid
from broker.field_findings import FieldFinding
from broker.prototypes.image import Image
from broker.prototypes.manifest import PrototypeManifest
from broker.yaml_document import Path, YamlDocument

NAME = "prototype.yaml"
"""The file of a prototype's manifest in its folder."""
CONTROLS = "controls"
_HINTS = {
    "prototype": "its name, such as prototype: valve-watch",
    "image": "such as image: {build: .}",
    "command": "such as command: python prototype.py",
    "*.signals": "such as signals: {score: {unit: '1'}}",
}
"""Words that the message about a missing field adds."""


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """A manifest as it was read.  name: stands for the file in messages."""

    name: str
    manifest: PrototypeManifest
    document: YamlDocument

    def refused(self, findings: Iterable[FieldFinding]) -> Invalid:
        """The error that lists findings at their places in the file."""
        return field_findings.refused(self.name, self.document, findings, kind="manifest")


def read(text: str, name: str) -> ManifestFile:
    """Parse the text of a manifest; raises Invalid with all mistakes.

    name: stands for the file in messages.
    """
    document = yaml_document.parse(text, name, holds="manifest", example="prototype: valve-watch")
    mistakes = list(document.mistakes)
    mistakes += [finding.placed(document) for finding in _of_fields(document.value)]
    fields = {key: value for key, value in document.value.items() if key != CONTROLS}
    try:
        manifest = PrototypeManifest.model_validate(fields)
    except ValidationError as exc:
        mistakes += document.mistakes_of(exc, _fields_at, _HINTS)
        raise yaml_document.listed(name, mistakes, document="manifest") from exc
    if mistakes:
        raise yaml_document.listed(name, mistakes, document="manifest")
    return ManifestFile(name, manifest, document)


def _of_fields(fields: dict[str, Any]) -> Iterator[FieldFinding]:
    """Mistakes that concern several fields, or one that is kept free; of whatever form they are."""
    if CONTROLS in fields:
        sentence = (
            "a prototype cannot command a machine: control is not there yet; leave the field out"
        )
        yield FieldFinding((CONTROLS,), sentence, is_name=True)
    environment, secrets = fields.get("environment"), fields.get("secrets")
    names = secrets if isinstance(secrets, list) else []
    for index, secret in enumerate(names):
        path = ("secrets", str(index))
        if isinstance(environment, dict) and secret in environment:
            sentence = f"{secret} is in `environment` too; leave it out there"
            yield FieldFinding(path, sentence)
        if secret in names[:index]:
            yield FieldFinding(path, f"{secret} stands twice")


def _fields_at(path: Path) -> list[str]:
    """Names of the fields that may stand at a path of a manifest."""
    members = {f"<{each.__name__}>": each for each in _image_kinds()}
    if tag := next((step for step in path if step in members), None):
        return pydantic_checks.fields_at(members[tag], path[path.index(tag) + 1 :])
    if path[:1] == ("outputs",) and len(path) in {2, 4}:
        path = tuple(step for index, step in enumerate(path) if index in {0, 2})
    return pydantic_checks.fields_at(PrototypeManifest, path)


def _image_kinds() -> Iterator[Any]:
    """The classes of the kinds of images."""
    union = get_args(Image)[0]
    return (get_args(member)[0] for member in get_args(union))
