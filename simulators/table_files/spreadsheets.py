"""Tables in Excel workbooks and Parquet files, as the same cells of text as a CSV file has."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from broker.errors import Invalid
from simulators.table_files.text import Cells, TableText

EXCEL = frozenset({".xlsx", ".xlsm"})
OLD_EXCEL = frozenset({".xls", ".xlsb", ".ods"})
PARQUET = frozenset({".parquet", ".pq"})


def read(path: Path) -> TableText | None:
    """Read a workbook's first sheet, or a Parquet file; None for a file of another kind.

    Raises Invalid for one that cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix in OLD_EXCEL:
        raise Invalid(f"{path}: {suffix} is not read", hint="save it as .xlsx, or as CSV")
    if suffix in EXCEL:
        return _excel(path)
    if suffix in PARQUET:
        from broker.recordings import parquet_table  # noqa: PLC0415 - which loads DuckDB

        names, rows = parquet_table.read(path)
        return _table(path, "Parquet", names, [[_text(value) for value in row] for row in rows])
    return None


def _excel(path: Path) -> TableText:
    from openpyxl import load_workbook  # noqa: PLC0415 - few recordings are workbooks

    try:
        book = load_workbook(path, read_only=True, data_only=True)
    except Exception as exc:
        raise Invalid(f"{path} is no Excel workbook: {exc}", hint="save it as .xlsx") from exc
    try:
        sheet = book.worksheets[0]
        lines = [[_text(value) for value in row] for row in sheet.iter_rows(values_only=True)]
    finally:
        book.close()
    lines = [line for line in lines if any(line)]
    if not lines:
        raise Invalid(f"{path} is empty", hint="its first row names the columns")
    width = max(map(len, lines))
    whole = [[*line, *[""] * (width - len(line))] for line in lines]
    return _table(path, f"Excel, sheet {sheet.title!r}", whole[0], whole[1:])


def _table(path: Path, kind: str, header: list[str], lines: list[list[str]]) -> TableText:
    rows: list[Cells] = [(number, line) for number, line in enumerate(lines, 2) if any(line)]
    if not rows:
        raise Invalid(f"{path} has a header and no rows", hint="one row an instant, below it")
    return TableText(header, rows, kind, "")


def _text(value: Any) -> str:
    """A cell's value as a CSV file would have it."""
    match value:
        case None:
            return ""
        case bool():
            return str(value)
        case datetime():
            return (value.astimezone(UTC) if value.tzinfo else value).isoformat(" ")
        case _:
            return str(value).strip()
