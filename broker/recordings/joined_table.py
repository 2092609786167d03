"""Writes streams of a recording as one table, a CSV or Parquet file, for tools that want one."""

from collections.abc import Sequence
from pathlib import Path

from broker.recordings import layout, parquet, splits
from broker.recordings.bundle import OpenRecording
from broker.recordings.manifest import RecordedStream

_CSV_TIME = (
    "strftime(make_timestamp_ns(epoch_ns(time)), '%Y-%m-%dT%H:%M:%S.')"
    " || lpad((epoch_ns(time) % 1000000000)::VARCHAR, 9, '0') || 'Z'"
)
"""The time as RFC 3339 text; strftime's own %n of DuckDB 2.0 writes a broken fraction."""


def write(
    recording: OpenRecording, streams: Sequence[RecordedStream], path: Path, ending: str
) -> None:
    """Write a row for each instant at which one of the streams has a sample.

    The columns are those of the streams, with `organisation/equipment/stream/` before each where
    there are several streams.  ending: the format, .csv or .parquet.  Raises Corrupt
    if a table does not fit, Unavailable if the file cannot be written.
    """
    with parquet.connected(path.parent) as sql:
        sql.execute(f"CREATE TEMP VIEW joined AS {_joined(recording, streams)}")
        selected = "*"
        if parts := recording.manifest.splits:
            selected += f", {splits.case_sql(parts, 'epoch_ns(time)')} AS {layout.SPLIT}"
        is_csv = ending == ".csv"
        if is_csv:
            selected = selected.replace("*", f"* REPLACE ({_CSV_TIME} AS time)", 1)
        options = "FORMAT csv, HEADER" if is_csv else "FORMAT parquet, COMPRESSION zstd"
        query = f"SELECT {selected} FROM joined ORDER BY joined.time"  # noqa: S608 - quoted
        parquet.copy(sql, query, path, options)


def _joined(recording: OpenRecording, streams: Sequence[RecordedStream]) -> str:
    """The streams' columns side by side, as a query."""
    tables = []
    for stream in streams:
        before = f"{stream.address}/" if len(streams) > 1 else ""
        cells = ["time"]
        for signal in stream.signals:
            names = [signal.column, *([signal.quality] if signal.quality else [])]
            cells += [
                f"{parquet.identifier(name)} AS {parquet.identifier(before + name)}"
                for name in names
            ]
        file = parquet.literal(str(recording.path / stream.file))
        source = f"read_parquet({file}, hive_partitioning=false)"
        tables.append(f"(SELECT {', '.join(cells)} FROM {source})")  # noqa: S608 - quoted
    first, *others = tables
    return f"SELECT * FROM {first} {' '.join(f'FULL JOIN {each} USING (time)' for each in others)}"  # noqa: S608 - quoted
