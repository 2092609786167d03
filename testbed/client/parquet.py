"""Fetch a history and write it as a Parquet file."""

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import orjson

from broker import api_client
from broker.batch import BAD, Column, Series, filled_column
from broker.history_query import HistoryQuery
from broker.namespace import StreamAddress
from broker.responses.streams import GapResponse
from broker.streams import ArrayOf, Dtype, ValueType
from testbed_sdk import History
from testbed_sdk import history as sdk_history

_ELEMENTS = {Dtype.FLOAT64: "DOUBLE", Dtype.INT64: "BIGINT", Dtype.BOOL: "BOOLEAN"}


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
        value = f"v{index}{_cast(value_type)}"
        columns.append(f"CASE WHEN m{index} THEN {value} END AS {_identifier(name)}")
    metadata = {"stream": str(history.spec.address), "spec": str(history.spec.version)}
    entries = ", ".join(f"{key}: {_literal(value)}" for key, value in metadata.items())
    with duckdb.connect() as sql:
        sql.register("arrays", arrays)
        sql.execute(
            f"COPY (SELECT {', '.join(columns)} FROM arrays) TO {_literal(str(path))}"  # noqa: S608 - quoted
            f" (FORMAT parquet, KV_METADATA {{{entries}}})"
        )


def _column(value_type: ValueType, series: Series, times: Any) -> tuple[Any, Any]:
    """The values of a signal at the time stamps, and a mask of where there is a usable one."""
    is_array = isinstance(value_type, ArrayOf)
    values = filled_column(
        Dtype.STRING if isinstance(value_type, ArrayOf) else value_type, len(times)
    )
    has_value = np.zeros(len(times), np.bool_)
    usable = series.quality != BAD
    at = np.searchsorted(times, series.time_ns[usable])
    values[at] = _texts(series.values[usable]) if is_array else series.values[usable]
    has_value[at] = True
    return values, has_value


def _texts(column: Column) -> Column:
    """Arrays as JSON, which DuckDB casts to lists; of numpy columns it takes no lists."""
    texts = np.empty(len(column), np.object_)
    texts[:] = [orjson.dumps(elements).decode() for elements in column.tolist()]
    return texts


def _cast(value_type: ValueType) -> str:
    """The cast from the text of an array to a list; nothing for other values."""
    return f"::{_ELEMENTS[value_type.dtype]}[]" if isinstance(value_type, ArrayOf) else ""


def _identifier(name: str) -> str:
    """A column's name, quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    """A text, quoted for SQL."""
    return "'" + text.replace("'", "''") + "'"
