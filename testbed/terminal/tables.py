"""Print rows as a framed table on a terminal, as blocks of `field: value` on a narrow one.

Where no terminal takes the output, it is plain columns, as other tools print them into a pipe: a
line for each row, with nothing cut or broken.  On a terminal ids, names of streams, fingerprints
and times are never cut or broken either, since they are compared and copied; only cells of prose
are broken into lines.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Generic, TypeVar

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from broker.responses.base import ApiResponse
from testbed.terminal.screen import Screen, plain

PROSE = frozenset({"description", "label", "purpose", "reason", "value"})
"""Fields of answers that hold words for people, or JSON."""
PROSE_COLUMNS = 24
"""Columns that are left to a cell of prose at least, where it is longer."""
FRAME_COLUMNS = 3
"""Columns that a table adds to each cell: a line, and a space on both sides."""
NOTHING = "-"

_INSTANT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d*?)\.?0*Z")
_FRACTION = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.\d+Z$")
_ABSENT = re.compile(r"null (?:is|for) ([^;]+)")

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True, kw_only=True)
class TableColumn(Generic[Row]):
    """A column of a table: its heading, and its cell of each row.

    cell: one line or several.  style: rich's style of the cell.  is_prose: whether the cell may be
    broken into lines.
    """

    heading: str
    cell: Callable[[Row], str]
    style: Callable[[Row], str] | None = None
    is_prose: bool = False


def fields(
    model: type[ApiResponse], *names: str, whole_seconds: bool = False
) -> list[TableColumn[Any]]:
    """A column for each of these fields of an answer.

    whole_seconds: whether instants are cut to the second, where no more than that is compared.
    """
    return [field(model, name, whole_seconds=whole_seconds) for name in names]


def field(
    model: type[ApiResponse],
    name: str,
    *,
    style: Callable[[Any], str] | None = None,
    whole_seconds: bool = False,
) -> TableColumn[Any]:
    """A column of a field of an answer; null is written as the field's description names it.

    whole_seconds: whether an instant is cut to the second.  Raises KeyError for a field
    that the answer does not have.
    """
    described = model.model_fields[name]
    absent = _ABSENT.match(described.description or "")
    text_of_null = absent[1] if absent else NOTHING

    def cell(row: Any) -> str:
        value = getattr(row, name)
        if whole_seconds and isinstance(value, str):
            value = _FRACTION.sub(r"\1Z", value)
        return text_of_null if value is None else text(value)

    heading = (described.alias or name).replace("_", " ")
    return TableColumn(heading=heading, cell=cell, style=style, is_prose=name in PROSE)


def text(value: object) -> str:
    """A value of an answer as a cell: one line, or for a list of streams a line each."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.15g}"
    if isinstance(value, str):
        return plain(instant(value)) or NOTHING
    if isinstance(value, list | tuple):
        between = "\n" if any(isinstance(item, ApiResponse) for item in value) else ", "
        return between.join(map(text, value)) or NOTHING
    return plain(str(value))


def instant(value: str) -> str:
    """An instant without the zeros that end its fraction of a second; other texts unchanged."""
    if match := _INSTANT.fullmatch(value):
        return f"{match[1].rstrip('.')}Z"
    return value


def print_rows(rows: Sequence[Row], columns: Sequence[TableColumn[Row]], out: Screen) -> None:
    """Print the rows as a table, as plain columns or as blocks of lines; `none` without any.

    Plain columns are for a pipe, blocks for a terminal that is too narrow; an empty line follows
    each block.
    """
    if not rows:
        out.print("none")
        return
    cells = [[_cell(row, column) for column in columns] for row in rows]
    widths = [
        max(_width(column.heading), *(_width(line[index].plain) for line in cells))
        for index, column in enumerate(columns)
    ]
    if out.is_piped:
        _print_plain([column.heading for column in columns], cells, widths, out)
        return
    least = [
        min(width, PROSE_COLUMNS) if column.is_prose else width
        for column, width in zip(columns, widths, strict=True)
    ]
    if sum(least) + FRAME_COLUMNS * len(columns) + 1 > out.width:
        _print_records(cells, columns, out)
        out.print()
        return
    table = Table()
    for column, width, least_width in zip(columns, widths, least, strict=True):
        table.add_column(
            column.heading,
            min_width=least_width,
            max_width=width,
            no_wrap=not column.is_prose,
            overflow="fold",
        )
    for line in cells:
        table.add_row(*line)
    out.print(table)


def print_record(row: Row, columns: Sequence[TableColumn[Row]], out: Screen) -> None:
    """Print one row as a block of `field: value`."""
    _print_records([[_cell(row, column) for column in columns]], columns, out)


def _print_plain(
    headings: Sequence[str], rows: Sequence[Sequence[Text]], widths: Sequence[int], out: Screen
) -> None:
    """Print a line of headings and a line for each row, in columns with two spaces between.

    The last column is not filled up, so that a long sentence there makes its own line long alone.
    """
    for cells in [headings, *([cell.plain for cell in row] for row in rows)]:
        for parts in zip_longest(*(cell.split("\n") for cell in cells), fillvalue=""):
            padded = [
                part + " " * (width - cell_len(part))
                for part, width in zip(parts, widths, strict=True)
            ]
            out.print("  ".join(padded).rstrip())


def _print_records(
    rows: Sequence[Sequence[Text]], columns: Sequence[TableColumn[Any]], out: Screen
) -> None:
    """Print a block of lines for each row, with an empty line between two."""
    indent = max(_width(column.heading) for column in columns) + 2
    for number, cells in enumerate(rows):
        if number:
            out.print()
        for column, cell in zip(columns, cells, strict=True):
            label = f"{column.heading}:".ljust(indent)
            for line in cell.split("\n"):
                out.print(Text.assemble(label, line))
                label = " " * indent


def _cell(row: Row, column: TableColumn[Row]) -> Text:
    return Text(column.cell(row), style=column.style(row) if column.style else "")


def _width(cell: str) -> int:
    """The columns that a cell takes: those of its longest line."""
    return max((cell_len(line) for line in cell.split("\n")), default=0)
