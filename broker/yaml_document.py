"""YAML documents as plain values that remember the line of each field, for errors with file:line.

Scalars stay the text that was written, so that `on` and `1e3` are not what YAML 1.1 makes of them;
the model that validates the document converts them.  Pure.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from broker import pydantic_checks, yaml_mistakes
from broker.errors import Invalid

Path = tuple[str, ...]
"""Names of fields from the root down; an item of a list is named by its index."""
Mistake = tuple[int, str]
"""Line in the file, counted from 1, and the sentence that says what is wrong there."""


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """One parsed YAML document.

    value: dicts, lists, texts and None.  lines: path of each field -> its line.  mistakes: aliases,
    fields that stand twice and names that are no text, which `value` leaves out.
    """

    value: Any
    lines: Mapping[Path, int]
    mistakes: Sequence[Mistake]

    def line_of(self, path: Path) -> int:
        """The line of a field, or of the nearest field around it where it is not in the file."""
        cuts = range(len(path), -1, -1)
        return next(self.lines[path[:cut]] for cut in cuts if path[:cut] in self.lines)

    def mistakes_of(
        self,
        error: ValidationError,
        fields_at: Callable[[Path], Sequence[str]],
        hints: Mapping[str, str],
    ) -> list[Mistake]:
        """The mistakes that pydantic found in `value`.

        fields_at: names that the model knows at a path.  hints: dotted path of a field -> words to
        add where the field is missing.
        """
        return [self._mistake(details, fields_at, hints) for details in error.errors()]

    def _mistake(
        self, details: Any, fields_at: Callable[[Path], Sequence[str]], hints: Mapping[str, str]
    ) -> Mistake:
        path = tuple(str(step) for step in details["loc"] if step != "[key]")
        line, field = self.line_of(path), ".".join(path)
        if details["type"] == "extra_forbidden":
            known = fields_at(path[:-1])
            return line, f"{field}: {pydantic_checks.unknown_field(path[-1], known)}"
        if details["type"] == "missing":
            words = hints.get(field)
            return line, f"{field}: this field is missing{f'; {words}' if words else ''}"
        reason = pydantic_checks.sentence(details)
        value = details["input"]
        given = "" if isinstance(value, dict | BaseModel) else f" (not {str(value)[:80]!r})"
        return line, f"{field}: {reason}{'' if repr(value) in reason else given}"


def parse(text: str, name: str, *, holds: str, example: str) -> YamlDocument:
    """Parse a YAML document whose root is a mapping of fields.

    name: stands for the file in messages.  holds, example: what such a file is called and one field
    of it, for the message about a file that holds no fields.  Raises Invalid if it is not YAML.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as exc:
        line, sentence = yaml_mistakes.explained(text, exc)
        raise Invalid(f"{name}:{line}: this is not YAML: {sentence}") from exc
    if not isinstance(root, yaml.MappingNode):
        raise Invalid(f"{name}:1: a {holds} holds fields", hint=f"such as {example}")
    reader = _NodeReader()
    value = reader.value(root, (), 1)
    return YamlDocument(value, reader.lines, reader.mistakes)


def listed(name: str, mistakes: Iterable[Mistake], *, document: str) -> Invalid:
    """The error that lists all mistakes of a file, each as `name:line: sentence`.

    document: the kind of file, such as `mapping`.
    """
    distinct = sorted(set(mistakes))
    count = f"{len(distinct)} mistake{'s' if len(distinct) > 1 else ''}"
    lines = "\n".join(f"  {name}:{line}: {sentence}" for line, sentence in distinct)
    return Invalid(f"{count} in the {document}:\n{lines}")


class _NodeReader:
    """One walk over a tree of YAML nodes.  An alias is refused, because it may contain itself."""

    def __init__(self) -> None:
        self.lines: dict[Path, int] = {(): 1}
        self.mistakes: list[Mistake] = []
        self._visited: set[int] = set()

    def value(self, node: yaml.Node, path: Path, line: int) -> Any:
        self.lines[path] = line
        if id(node) in self._visited:
            self._add(line, path, "an alias is not allowed here; write it out")
            return None
        self._visited.add(id(node))
        if isinstance(node, yaml.MappingNode):
            return self._fields(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [
                self.value(item, (*path, str(index)), item.start_mark.line + 1)
                for index, item in enumerate(node.value)
            ]
        return None if node.tag == "tag:yaml.org,2002:null" else node.value

    def _fields(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self._add(line, path, "a field's name must be a plain text")
                continue
            inner = (*path, key.value)
            if key.value in fields:
                first = self.lines[inner]
                self._add(line, inner, f"it stands twice; the first is on line {first}")
                continue
            fields[key.value] = self.value(value, inner, line)
        return fields

    def _add(self, line: int, path: Path, sentence: str) -> None:
        self.mistakes.append((line, f"{'.'.join(path)}: {sentence}"))
