"""The text of a table file: its encoding, delimiter, header and rows of cells.  Pure."""

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from broker.errors import Invalid
from simulators.table_files import values
from simulators.table_files.form import TableForm

Cells = tuple[int, list[str]]
"""Number of a line, and its cells without the spaces around them."""
DELIMITERS = (";", "\t", ",", "|")
LOOKED_AT = 200
"""Lines from which the form is guessed."""
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_COMMENT = re.compile(r"\s*(#|//|%)")
_SEPARATOR = re.compile(r"sep=(.)\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TableText:
    """Rows of cells, and what was taken for their form.

    header: names of the columns, empty where the file has none.  units: a row of units below it,
    empty for none.  rows: numbers of lines with their cells.
    """

    header: list[str]
    rows: list[Cells]
    encoding: str
    delimiter: str


def parse(path: object, content: bytes, form: TableForm) -> TableText:
    """Read the cells of a file; path: of it, for errors.  Raises Invalid."""
    text, encoding = _decoded(path, content, form)
    delimiter = form.delimiter or _delimiter(text)
    lines = list(_lines(path, text, delimiter))
    if not lines:
        raise Invalid(f"{path} is empty", hint="its first line names the columns")
    header, rows = _split(lines, form)
    if not rows:
        raise Invalid(f"{path} has a header and no rows", hint="one row an instant, below it")
    return TableText(header, rows, encoding, delimiter)


def _decoded(path: object, content: bytes, form: TableForm) -> tuple[str, str]:
    """The text, and its encoding."""
    encoding = form.encoding or next(
        (name for mark, name in _MARKS.items() if content.startswith(mark)), ""
    )
    if not encoding and b"\0" in content[:4000]:
        even, odd = content[:4000:2].count(0), content[1:4000:2].count(0)
        encoding = "utf-16-le" if odd > even else "utf-16-be"
        if max(even, odd) < len(content[:4000]) // 8:
            raise Invalid(f"{path} is no text: it has bytes of zero", hint="name a CSV file")
    for name in (encoding,) if encoding else ("utf-8", "cp1252"):
        try:
            return content.decode(name), name
        except LookupError as exc:
            raise Invalid(f"{path}: there is no encoding {name!r}", hint="such as cp1252") from exc
        except UnicodeDecodeError as exc:
            failure = exc
    line = content.count(b"\n", 0, failure.start) + 1
    raise Invalid(
        f"{path}:{line}: byte 0x{content[failure.start]:02x} is no text in {failure.encoding}",
        hint="say the encoding: --columns FILE with encoding: …",
    )


def _delimiter(text: str) -> str:
    """The sign that cuts most lines into the same number of cells, two or more."""
    for line in text.splitlines()[:5]:
        if match := _SEPARATOR.fullmatch(line):
            return match[1]
    lines = [line for line in text.splitlines()[:LOOKED_AT] if line.strip()]
    lines = [line for line in lines if not _COMMENT.match(line)]
    best, sign = 0, ";"
    for candidate in DELIMITERS:
        if candidate == "," and _is_decimal_comma(lines):
            continue
        try:
            counts = Counter(len(cells) for cells in csv.reader(lines, delimiter=candidate))
        except csv.Error:  # `_lines` says where
            continue
        width, number = max(
            counts.items(), key=lambda each: (each[0] > 1) * each[1], default=(1, 0)
        )
        if width > 1 and number > best:
            best, sign = number, candidate
    return sign


def _is_decimal_comma(lines: Sequence[str]) -> bool:
    """Whether most lines have another delimiter beside commas, which are then decimal signs."""
    return sum(";" in line or "\t" in line for line in lines) > len(lines) / 2


def _lines(path: object, text: str, delimiter: str) -> Iterator[Cells]:
    """Yield number and cells of each line that holds any."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for cells in reader:
            stripped = [cell.strip().strip("\0") for cell in cells]
            first = stripped[0] if stripped else ""
            is_form = reader.line_num <= LOOKED_AT and (
                _COMMENT.match(first) or _SEPARATOR.fullmatch(delimiter.join(cells))
            )
            if any(stripped) and not is_form:
                yield reader.line_num, stripped
    except csv.Error as exc:
        raise Invalid(f"{path}:{reader.line_num}: {exc}", hint="one row a line") from exc


def _split(lines: list[Cells], form: TableForm) -> tuple[list[str], list[Cells]]:
    """The names of the columns, and the rows below them."""
    if form.header is not None:
        names = next((cells for number, cells in lines if number == form.header), [])
        return names, [line for line in lines if line[0] > form.header]
    begin = _first_row(lines)
    width = len(lines[begin][1]) if begin < len(lines) else len(lines[0][1])
    above = [cells for _, cells in lines[:begin] if len(cells) == width]
    named = [cells for cells in above if all(cells) and len(set(cells)) > width // 2]
    header = next((cells for cells in named if cells[0].lower() == "name"), None)
    header = header or (named[-1] if named else above[-1] if above else [])
    return header, lines[begin:]


def _first_row(lines: list[Cells]) -> int:
    """The place of the first line of values: from there on lines look alike."""
    widths = Counter(len(cells) for _, cells in lines[:LOOKED_AT])
    width = max(widths, key=lambda each: (widths[each], each))
    for place, (_, cells) in enumerate(lines):
        if len(cells) == width and _has_values(cells):
            return place
    return min(len(lines), 1)


def _has_values(cells: Sequence[str]) -> bool:
    """Whether a line holds values: a time or a number among its cells, and more than names."""
    return any(values.is_number(cell) or values.is_time(cell) for cell in cells)
