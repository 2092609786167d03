"""Fetch a history and write it as a Parquet file."""

from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from broker import api_client
from broker.batch import BAD, NO_VALUE, NUMPY, Series
from broker.history_query import HistoryQuery
from broker.namespace import StreamAddress
from broker.responses.streams import GapResponse
from testbed_sdk import History
from testbed_sdk import history as sdk_history


async def export(
    connection: api_client.Api, address: StreamAddress, query: HistoryQuery, path: Path
) -> list[GapResponse]:
    """Fetch a history and write it; its gaps, which the file does not hold."""
    fetched = await sdk_history.fetch(connection, address, query)
    write(path, fetched)
    return [GapResponse.from_gap(gap) for gap in fetched.gaps]


def write(path: Path, history: History) -> None:
    """Write a row for each time stamp and a column for each signal, empty without a usable value.

    `time` is in nanoseconds, UTC; values keep their dtype.  The file's metadata holds the stream's
    address and its spec's version.
    """
    times = np.unique(np.concatenate([series.time_ns for series in history.series.values()]))
    arrays: dict[str, Any] = {"t": times}
    columns = ['make_timestamp_ns(t) AS "time"']
    for index, (name, series) in enumerate(history.series.items()):
        arrays[f"v{index}"], arrays[f"m{index}"] = _column(history, name, series, times)
        columns.append(f"CASE WHEN m{index} THEN v{index} END AS {_identifier(name)}")
    metadata = {"stream": str(history.spec.address), "spec": str(history.spec.version)}
    entries = ", ".join(f"{key}: {_literal(value)}" for key, value in metadata.items())
    with duckdb.connect() as sql:
        sql.register("arrays", arrays)
        sql.execute(
            f"COPY (SELECT {', '.join(columns)} FROM arrays) TO {_literal(str(path))}"  # noqa: S608 - quoted
            f" (FORMAT parquet, KV_METADATA {{{entries}}})"
        )


def _column(history: History, name: str, series: Series, times: Any) -> tuple[Any, Any]:
    """The values of a signal at the time stamps, and a mask of where there is a usable one."""
    dtype = history.spec.signal(name).dtype
    values = np.full(len(times), NO_VALUE[dtype], NUMPY[dtype])
    has_value = np.zeros(len(times), np.bool_)
    usable = series.quality != BAD
    at = np.searchsorted(times, series.time_ns[usable])
    values[at], has_value[at] = series.values[usable], True
    return values, has_value


def _identifier(name: str) -> str:
    """A column's name, quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    """A text, quoted for SQL."""
    return "'" + text.replace("'", "''") + "'"
