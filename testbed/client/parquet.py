"""Fetch a history and write it as a Parquet file."""

from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from broker import api_client
from broker.history_query import HistoryQuery
from broker.namespace import StreamAddress
from broker.recordings import parquet
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

    `time` is in nanoseconds, UTC; values keep their dtype, and an array is a list.  The file's
    metadata holds the stream's address and its spec's version.
    """
    times = np.unique(np.concatenate([series.time_ns for series in history.series.values()]))
    arrays: dict[str, Any] = {"t": times}
    columns = ['make_timestamp_ns(t) AS "time"']
    for index, (name, series) in enumerate(history.series.items()):
        value_type = history.spec.signal(name).type
        columns_of = parquet.columns_at(value_type, series, times)
        arrays[f"v{index}"], arrays[f"m{index}"] = columns_of["v"], columns_of["u"]
        value = f"v{index}::{parquet.sql_type(value_type)}"
        columns.append(f"CASE WHEN m{index} THEN {value} END AS {parquet.identifier(name)}")
    metadata = {"stream": str(history.spec.address), "spec": str(history.spec.version)}
    entries = ", ".join(f"{key}: {parquet.literal(value)}" for key, value in metadata.items())
    with duckdb.connect() as sql:
        sql.register("arrays", arrays)
        query = f"SELECT {', '.join(columns)} FROM arrays"  # noqa: S608 - quoted
        parquet.copy(sql, query, path, f"FORMAT parquet, KV_METADATA {{{entries}}}")
