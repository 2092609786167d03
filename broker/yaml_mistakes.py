"""The sentence and the line for a text that is not YAML, as a person would say it.  Pure.

PyYAML names tokens of its grammar, at the place where its parser gave up: the cause is often above.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import yaml

OPENING = (yaml.FlowSequenceStartToken, yaml.FlowMappingStartToken)
CLOSING = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken)

_COLON = re.compile(r":(?:\s|$)")
_WRONG_BLOCK = re.compile(r"found '<block (?:mapping|sequence) start>'")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where PyYAML gave up.  lines: of the text.  at: index of the line.  column: in that line."""

    lines: Sequence[str]
    at: int
    column: int


def explained(text: str, error: yaml.YAMLError | RecursionError) -> tuple[tuple[int, int], str]:
    """Line and column, counted from 1, and the sentence that says why a text is not YAML.

    The column is that of the line's first sign, because the cause may be anywhere behind it.
    """
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        return (line, column), f"the character U+{error.character:04X} stands here; take it out"
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        deep = isinstance(error, RecursionError)
        return (1, 1), "it is nested too deeply" if deep else str(error)
    mark, lines = error.problem_mark, text.splitlines()
    at = min(mark.line, max(len(lines) - 1, 0))
    place = _Place(lines or [""], at, mark.column)
    at, sentence = (
        _sign(place, error)
        or _quote(text, place, error)
        or _bracket(text, mark.index)
        or _colon(place, error)
        or _indentation(place, error)
        or (at, error.problem or "it cannot be read")
    )
    return (at + 1, _first_column(place.lines[at])), sentence


def _sign(place: _Place, error: yaml.MarkedYAMLError) -> tuple[int, str] | None:
    """A sign that may not stand where it does: a tab, or the first sign of a value."""
    line, problem = place.lines[place.at], error.problem or ""
    if "\t" in line[: len(line) - len(line.lstrip())] or "'\\t'" in problem:
        return place.at, "a tab stands here; use spaces, not tabs"
    if match := re.match(r"found character '(.)' that cannot start", problem):
        return place.at, f"a value cannot begin with {match[1]}; put it in quotes"
    if "alias" in problem or "scanning an a" in (error.context or ""):
        return place.at, "a value cannot begin with * or &; put it in quotes"
    if "another document" in problem:
        return place.at, "a second document begins here, and a file holds one; take --- out"
    if "escape" in problem or "scanning a double-quoted" in (error.context or ""):
        return place.at, r"\ has a meaning of its own in double quotes; use single quotes"
    return None


def _quote(text: str, place: _Place, error: yaml.MarkedYAMLError) -> tuple[int, str] | None:
    """A quote that is not closed, or is closed too early."""
    if "quoted scalar" in (error.context or "") and error.context_mark is not None:
        return error.context_mark.line, "the quote that is opened here is not closed"
    if "found '<scalar>'" not in (error.problem or "") or error.problem_mark is None:
        return None
    quoted = [
        token
        for token in _tokens(text, error.problem_mark.index)
        if isinstance(token, yaml.ScalarToken) and token.style in {"'", '"'}
    ]
    if not quoted or quoted[-1].end_mark.line != place.at:
        return None
    begin = quoted[-1].start_mark.line
    if begin != place.at:
        return begin, "the quote that is opened here is not closed"
    return place.at, "something stands behind the closing quote; put all of it in quotes"


def _bracket(text: str, index: int) -> tuple[int, str] | None:
    """A bracket that is open where the parser gave up."""
    opened: list[yaml.Token] = []
    for token in _tokens(text, index):
        if isinstance(token, OPENING):
            opened.append(token)
        elif isinstance(token, CLOSING) and opened:
            opened.pop()
    if not opened:
        return None
    sign = text[opened[-1].start_mark.index]
    return opened[
        -1
    ].start_mark.line, f"the {sign} that is opened here is not closed, or a comma is missing"


def _colon(place: _Place, error: yaml.MarkedYAMLError) -> tuple[int, str] | None:
    """A colon that is missing, or one too many."""
    problem = error.problem or ""
    if "could not find expected ':'" in problem and error.context_mark is not None:
        return _without_colon(place.lines, error.context_mark.line)
    if "mapping values are not allowed" not in problem:
        return None
    if _COLON.search(place.lines[place.at][: place.column]):
        return place.at, "two colons stand in this line; put the value in quotes"
    above = _above(place.lines, place.at)
    if above is None or place.lines[above].lstrip().startswith("- "):
        return None
    return None if _COLON.search(place.lines[above]) else _without_colon(place.lines, above)


def _without_colon(lines: Sequence[str], at: int) -> tuple[int, str]:
    text = lines[at].strip()
    if ":" in text:
        return at, "there is no space behind the colon; write `name: value`"
    return at, "there is no colon behind the field's name; write `name: value`"


def _indentation(place: _Place, error: yaml.MarkedYAMLError) -> tuple[int, str] | None:
    """A line that is indented differently from its neighbours."""
    lines, at = place.lines, place.at
    problem = error.problem or ""
    if "mapping values are not allowed" in problem:
        other = _above(lines, at)
    elif _WRONG_BLOCK.search(problem):
        other = _neighbour(lines, at)
    else:
        return None
    if other is None or _indent(lines[other]) == _indent(lines[at]):
        return at, f"the indentation of line {at + 1} does not fit the lines above it"
    below = _below(lines, at)
    is_usual = below is not None and _indent(lines[below]) == _indent(lines[at])
    odd, usual = (other, at) if is_usual and _is_alone(lines, other) else (at, other)
    return odd, (
        f"this line is indented by {_spaces(lines[odd])} and line {usual + 1} by"
        f" {_spaces(lines[usual])}; indent the fields of one block alike"
    )


def _neighbour(lines: Sequence[str], at: int) -> int | None:
    """The last line of the block above, which is indented more, at that block's own indentation."""
    deeper: list[int] = []
    above = _above(lines, at)
    while above is not None and _indent(lines[above]) > _indent(lines[at]):
        deeper.append(above)
        above = _above(lines, above)
    return min(deeper, key=lambda line: _indent(lines[line]), default=None)


def _is_alone(lines: Sequence[str], at: int) -> bool:
    """Whether no line above belongs to the same block."""
    above = _above(lines, at)
    while above is not None and _indent(lines[above]) > _indent(lines[at]):
        above = _above(lines, above)
    return above is None or _indent(lines[above]) < _indent(lines[at])


def _above(lines: Sequence[str], at: int) -> int | None:
    """The nearest line above that is neither empty nor a comment."""
    return next((line for line in range(at - 1, -1, -1) if _is_read(lines[line])), None)


def _below(lines: Sequence[str], at: int) -> int | None:
    return next((line for line in range(at + 1, len(lines)) if _is_read(lines[line])), None)


def _is_read(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _first_column(line: str) -> int:
    return len(line) - len(line.lstrip()) + 1


def _spaces(line: str) -> str:
    count = _indent(line)
    return f"{count or 'no'} space{'' if count == 1 else 's'}"


def _tokens(text: str, until: int) -> list[yaml.Token]:
    """The tokens of a text that begin before an index, as far as it can be read."""
    tokens: list[yaml.Token] = []
    try:
        for token in yaml.scan(text, Loader=yaml.SafeLoader):
            if token.start_mark.index >= until:
                break
            tokens.append(token)
    except yaml.YAMLError:
        pass  # it is the error that is explained
    return tokens
