"""Fetch a history and write it as a Parquet file."""

from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from broker import api_client, json_values
from broker.batch import BAD, Series, filled_column
from broker.history_query import HistoryQuery
from broker.namespace import StreamAddress
from broker.recordings import parquet
from broker.responses.streams import GapResponse
from broker.streams import ArrayOf, Dtype, ValueType
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

    `time` is in nanoseconds, UTC; values keep their dtype, and an array is a list.  The file's
    metadata holds the stream's address and its spec's version.
    """
    times = np.unique(np.concatenate([series.time_ns for series in history.series.values()]))
    arrays: dict[str, Any] = {"t": times}
    columns = ['make_timestamp_ns(t) AS "time"']
    for index, (name, series) in enumerate(history.series.items()):
        value_type = history.spec.signal(name).type
        arrays[f"v{index}"], arrays[f"m{index}"] = _column(value_type, series, times)
        value = f"v{index}::{parquet.sql_type(value_type)}"
        columns.append(f"CASE WHEN m{index} THEN {value} END AS {parquet.identifier(name)}")
    metadata = {"stream": str(history.spec.address), "spec": str(history.spec.version)}
    entries = ", ".join(f"{key}: {parquet.literal(value)}" for key, value in metadata.items())
    with duckdb.connect() as sql:
        sql.register("arrays", arrays)
        query = f"SELECT {', '.join(columns)} FROM arrays"  # noqa: S608 - quoted
        parquet.copy(sql, query, path, f"FORMAT parquet, KV_METADATA {{{entries}}}")


def _column(value_type: ValueType, series: Series, times: Any) -> tuple[Any, Any]:
    """The values of a signal at the time stamps, and a mask of where there is a usable one."""
    is_array = isinstance(value_type, ArrayOf)
    values = filled_column(
        Dtype.STRING if isinstance(value_type, ArrayOf) else value_type, len(times)
    )
    has_value = np.zeros(len(times), np.bool_)
    usable = series.quality != BAD
    at = np.searchsorted(times, series.time_ns[usable])
    column = series.values[usable]
    values[at] = json_values.array_texts(column) if is_array else column
    has_value[at] = True
    return values, has_value
