"""A history as a Parquet file."""

from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from broker.batch import BAD, NO_VALUE, NUMPY, Series
from testbed_sdk import History


def write(path: Path, found: History) -> None:
    """A row for each time stamp, a column for each signal; empty where it has no usable value.

    `time` is in ns and UTC; values keep their dtype.  The file's metadata name stream and spec.
    """
    times = np.unique(np.concatenate([one.time_ns for one in found.series.values()]))
    given: dict[str, Any] = {"t": times}
    columns = ['make_timestamp_ns(t) AS "time"']
    for at, (name, series) in enumerate(found.series.items()):
        given[f"v{at}"], given[f"m{at}"] = _column(found, name, series, times)
        columns.append(f"CASE WHEN m{at} THEN v{at} END AS {_name(name)}")
    metadata = {"stream": str(found.spec.address), "spec": str(found.spec.version)}
    told = ", ".join(f"{key}: {_text(value)}" for key, value in metadata.items())
    with duckdb.connect() as sql:
        sql.register("given", given)
        sql.execute(
            f"COPY (SELECT {', '.join(columns)} FROM given) TO {_text(str(path))}"  # noqa: S608 - quoted
            f" (FORMAT parquet, KV_METADATA {{{told}}})"
        )


def _column(found: History, name: str, series: Series, times: Any) -> tuple[Any, Any]:
    """Values and whether there is one, for each of the time stamps."""
    dtype = found.spec.signal(name).dtype
    values = np.full(len(times), NO_VALUE[dtype], NUMPY[dtype])
    there = np.zeros(len(times), np.bool_)
    usable = series.quality != BAD
    at = np.searchsorted(times, series.time_ns[usable])
    values[at], there[at] = series.values[usable], True
    return values, there


def _name(name: str) -> str:
    """A column's name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    """A text in SQL."""
    return "'" + text.replace("'", "''") + "'"
