"""YAML documents as plain values that remember each field's place, for file:line:column in errors.

Scalars stay the text that was written, so that `on` and `1e3` are not what YAML 1.1 makes of them;
the model that validates the document converts them.  Pure but for `read_text`.
"""

import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel, ValidationError

from broker import pydantic_checks, yaml_mistakes
from broker.errors import Invalid, Unknown

Path = tuple[str, ...]
"""Names of fields from the root down; an item of a list is named by its index."""


class FilePosition(NamedTuple):
    """A line and a column in a file, both counted from 1."""

    line: int
    column: int


Mistake = tuple[FilePosition, str]
"""A place in the file, and the sentence that says what is wrong there."""


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """One parsed YAML document.

    value: dicts, lists, texts and None.  keys: path of each field or item -> where it begins.
    scalars: path of each plain value -> where that stands.  mistakes: aliases, fields that stand
    twice and names that are no text, which `value` leaves out.
    """

    value: Any
    keys: Mapping[Path, FilePosition]
    scalars: Mapping[Path, FilePosition]
    mistakes: Sequence[Mistake]

    def key_position(self, path: Path) -> FilePosition:
        """The place of a field's name, or of the nearest field around it that is in the file."""
        cuts = range(len(path), -1, -1)
        return next(self.keys[path[:cut]] for cut in cuts if path[:cut] in self.keys)

    def position(self, path: Path) -> FilePosition:
        """The place of a field's plain value, or of its name where it holds fields or items."""
        return self.scalars.get(path) or self.key_position(path)

    def mistakes_of(
        self,
        error: ValidationError,
        fields_at: Callable[[Path], Sequence[str]],
        hints: Mapping[str, str],
    ) -> list[Mistake]:
        """The mistakes that pydantic found in `value`.

        fields_at: names that the model knows at a path, which has the tags of `is_tag` too.
        hints: dotted path of a field, or `*.name` for that name anywhere -> words to add where the
        field is missing.
        """
        return [self._mistake(details, fields_at, hints) for details in error.errors()]

    def _mistake(
        self, details: Any, fields_at: Callable[[Path], Sequence[str]], hints: Mapping[str, str]
    ) -> Mistake:
        is_key = "[key]" in details["loc"]
        path = tuple(str(step) for step in details["loc"] if not is_tag(step))
        at, field = self.key_position(path), ".".join(path)
        if details["type"] == "extra_forbidden":
            around = tuple(str(step) for step in details["loc"][:-1] if step != "[key]")
            known = fields_at(around)
            return at, f"{field}: {pydantic_checks.unknown_field(path[-1], known)}"
        if details["type"] == "missing":
            words = hints.get(field) or hints.get(f"*.{path[-1]}")
            return at, f"{field}: this field is missing{f'; {words}' if words else ''}"
        reason = pydantic_checks.sentence(details)
        value = details["input"]
        given = "" if isinstance(value, dict | BaseModel) else f" (not {str(value)[:80]!r})"
        at = at if is_key else self.position(path)
        return at, f"{field}: {reason}{'' if repr(value) in reason else given}"


def is_tag(step: str | int) -> bool:
    """Whether a step of pydantic's path is no field of the file: a key as such, or `<kind>`.

    Models give the members of their unions tags in pointed brackets.
    """
    return step == "[key]" or (isinstance(step, str) and step.startswith("<"))


def parse(text: str, name: str, *, holds: str, example: str) -> YamlDocument:
    """Parse a YAML document whose root is a mapping of fields.

    name: stands for the file in messages.  holds, example: what such a file is called and one field
    of it, for the message about a file that holds no fields.  Raises Invalid if it is not YAML.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as exc:
        (line, column), sentence = yaml_mistakes.explained(text, exc)
        raise Invalid(f"{name}:{line}:{column}: this is not YAML: {sentence}") from exc
    if not isinstance(root, yaml.MappingNode):
        raise Invalid(f"{name}:1:1: a {holds} holds fields", hint=f"such as {example}")
    reader = _NodeReader()
    value = reader.value(root, (), _begin(root))
    return YamlDocument(value, reader.keys, reader.scalars, reader.mistakes)


def read_text(path: pathlib.Path, *, what: str, most_bytes: int, hint: str) -> str:
    """Read a file that somebody has written by hand.

    what: the noun for it, such as `scenario`.  hint: how to get a first one.  Raises Unknown if it
    is not there, Invalid if it is too large, unreadable, or no text in UTF-8.
    """
    if not path.exists():
        raise Unknown(f"there is no {what} {path}", hint=hint)
    if path.is_dir():
        raise Invalid(f"{path} is a folder", hint=f"name the file of a {what} in it")
    try:
        if path.stat().st_size > most_bytes:
            raise Invalid(f"{path} has more than {most_bytes:,} bytes", hint=f"is it a {what}?")
        return path.read_text("utf-8")
    except UnicodeDecodeError as exc:
        raise Invalid(f"{path} is no text in UTF-8: {exc.reason}") from exc
    except OSError as exc:
        raise Invalid(f"{path} cannot be read: {exc.strerror}") from exc


def listed(name: str, mistakes: Iterable[Mistake], *, document: str) -> Invalid:
    """The error that lists all mistakes of a file, each as `name:line:column: sentence`.

    document: the kind of file, such as `mapping`.
    """
    distinct = sorted(set(mistakes))
    count = f"{len(distinct)} mistake{'s' if len(distinct) > 1 else ''}"
    lines = "\n".join(
        f"  {name}:{line}:{column}: {sentence}" for (line, column), sentence in distinct
    )
    return Invalid(f"{count} in the {document}:\n{lines}")


class _NodeReader:
    """One walk over a tree of YAML nodes.  An alias is refused, because it may contain itself."""

    def __init__(self) -> None:
        self.keys: dict[Path, FilePosition] = {}
        self.scalars: dict[Path, FilePosition] = {}
        self.mistakes: list[Mistake] = []
        self._visited: set[int] = set()

    def value(self, node: yaml.Node, path: Path, key: FilePosition) -> Any:
        self.keys[path] = key
        if id(node) in self._visited:
            self._add(key, path, "an alias is not allowed here; write it out")
            return None
        self._visited.add(id(node))
        if isinstance(node, yaml.MappingNode):
            return self._fields(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [
                self.value(item, (*path, str(index)), _begin(item))
                for index, item in enumerate(node.value)
            ]
        self.scalars[path] = _begin(node)
        return None if node.tag == "tag:yaml.org,2002:null" else node.value

    def _fields(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for key, value in node.value:
            at = _begin(key)
            if not isinstance(key, yaml.ScalarNode):
                self._add(at, path, "a field's name must be a plain text")
                continue
            inner = (*path, key.value)
            if key.value in fields:
                first = self.keys[inner].line
                self._add(at, inner, f"it stands twice; the first is on line {first}")
                continue
            fields[key.value] = self.value(value, inner, at)
        return fields

    def _add(self, at: FilePosition, path: Path, sentence: str) -> None:
        self.mistakes.append((at, f"{'.'.join(path)}: {sentence}"))


def _begin(node: yaml.Node) -> FilePosition:
    return FilePosition(node.start_mark.line + 1, node.start_mark.column + 1)
