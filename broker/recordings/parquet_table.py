"""Any Parquet file as a table of Python values, read with DuckDB."""

from pathlib import Path
from typing import Any

import duckdb

from broker.errors import Invalid


def read(path: Path) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Return the names of the columns, and the rows; raises Invalid for what is no Parquet file."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        try:
            result = connection.execute("SELECT * FROM read_parquet(?)", [str(path)])
            return [column[0] for column in result.description or ()], result.fetchall()
        except duckdb.Error as exc:
            raise Invalid(f"{path} is no Parquet file: {str(exc)[:200]}") from exc
