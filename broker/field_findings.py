"""Findings of a check of a file: the path of a field in it, and what is wrong there.  Pure."""

import difflib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from broker import yaml_document
from broker.errors import Invalid
from broker.yaml_document import Mistake, Path, YamlDocument

MOST_LISTED = 12
"""Names that a sentence lists where none is near."""


@dataclass(frozen=True, slots=True)
class FieldFinding:
    """A mistake at a path.  is_name: the field's name is wrong, not its value."""

    path: Path
    sentence: str
    is_name: bool = False

    def placed(self, document: YamlDocument) -> Mistake:
        """The mistake at its line and column of the document that has the field."""
        place = document.key_position if self.is_name else document.position
        field = ".".join(self.path)
        return place(self.path), f"{field}: {self.sentence}" if field else self.sentence


def refused(
    name: str, document: YamlDocument, findings: Iterable[FieldFinding], *, kind: str
) -> Invalid:
    """The error that lists findings at their places in a file.

    name: stands for the file in messages.  kind: of the document, such as `scenario`.
    """
    mistakes = [finding.placed(document) for finding in findings]
    return yaml_document.listed(name, mistakes, document=kind)


def unknown(sentence: str, name: str, known: Collection[str]) -> str:
    """A sentence about a name that is not known, with the nearest one, or those that are known."""
    near = difflib.get_close_matches(name, list(known), 1)
    if near:
        return f"{sentence}; did you mean {near[0]!r}?"
    if not known:
        return f"{sentence}: there is none at all"
    listed = ", ".join(sorted(known)[:MOST_LISTED])
    return f"{sentence}; known are {listed}{', …' if len(known) > MOST_LISTED else ''}"
