"""The tables of a recording in Parquet, written and read by DuckDB.

A table of a stream has the column `time` (timestamp in ns, UTC, ascending, each once), the values
of each signal, and the quality of a signal whose samples are not all good.  An array is a list.  A
value is empty where its signal has no sample at that time or a bad one; quality is 0 good, 1
uncertain, 2 bad, and empty where there is no sample.  The file's metadata has the spec, with the
units, as JSON.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import orjson

from broker import json_values, messages
from broker.batch import (
    BAD,
    GOOD,
    NO_SAMPLE,
    Gap,
    Series,
    Source,
    filled_column,
    largest_array,
)
from broker.clock import text_of
from broker.errors import BedError, Corrupt, Invalid, Unavailable
from broker.namespace import StreamAddress
from broker.process import files
from broker.recordings import layout, splits
from broker.recordings.manifest import CoveringGrant, DataSplit, RecordedSignal, RecordedStream
from broker.streams import ArrayOf, Dtype, StreamSpec, ValueType

MOST_CELLS = 4_000_000
"""Cells that are written at once, an array's elements each one: signals that share no time stamps
make rows that are nearly empty."""
ROWS_AT_ONCE = 10_000
"""Rows that are read at once; fewer, the longer their arrays are."""
LATEST_NS = 2**63 - 2
SQL_TYPES: Mapping[Dtype, str] = {
    Dtype.FLOAT64: "DOUBLE",
    Dtype.INT64: "BIGINT",
    Dtype.BOOL: "BOOLEAN",
    Dtype.STRING: "VARCHAR",
}
_CONFIG: dict[str, Any] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "memory_limit": "1GB",
    "threads": 2,
}
_READ = "read_parquet(?, hive_partitioning=false)"

RecordedRow = tuple[int, tuple[Any, ...], tuple[int, ...]]
"""Time in ns, a value for each signal (None without a usable sample), and their qualities: a signal
without a sample has NO_SAMPLE."""


@dataclass(slots=True)
class StreamTable:
    """A table of a stream that is being written, in the order of time."""

    sql: duckdb.DuckDBPyConnection
    folder: Path
    spec: StreamSpec
    parts: tuple[DataSplit, ...]
    rows: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    samples: dict[str, int] = field(default_factory=dict)
    not_good: set[str] = field(default_factory=set)

    def bound_memory(self, most_mib: int) -> None:
        """Have DuckDB hold at most so much of the table in memory; raises Unavailable."""
        with _writing(self.folder):
            self.sql.execute(f"SET memory_limit = '{most_mib}MiB'")

    def append(self, series: Mapping[str, Series]) -> None:
        """Add samples that are later than all before; n samples a signal, ascending in time.

        Raises Invalid for a signal that the stream does not have, and for a time that is used
        twice or goes back; Unavailable if they cannot be written.
        """
        for name, each in series.items():
            self._check(name, each)
        columns = [each.time_ns for each in series.values()]
        times = np.unique(np.concatenate([np.empty(0, np.int64), *columns]))
        elements = sum(signal.shape[0] if signal.shape else 1 for signal in self.spec.signals)
        step = max(1, MOST_CELLS // elements)
        for start in range(0, len(times), step):
            self._insert(times[start : start + step], series)
        if len(times):
            self.first_ns = int(times[0]) if self.first_ns is None else self.first_ns
            self.last_ns = int(times[-1])
            self.rows += len(times)
        for name, each in series.items():
            self.samples[name] = self.samples.get(name, 0) + len(each.time_ns)
            if np.any(each.quality != GOOD):
                self.not_good.add(name)

    def _check(self, name: str, series: Series) -> None:
        self.spec.signal(name)
        if not len(series.time_ns):
            return
        is_ascending = bool(np.all(series.time_ns[1:] > series.time_ns[:-1]))
        if not is_ascending or (self.last_ns is not None and series.time_ns[0] <= self.last_ns):
            raise Invalid(
                f"samples of {self.spec.address}/{name} are not in the order of time",
                hint="each later than the one before, and no two at one time",
            )
        if series.time_ns[-1] > LATEST_NS:
            raise Invalid(
                f"a sample of {self.spec.address}/{name} has the last time that there is",
                hint="DuckDB takes it for infinity: leave it out",
            )

    def _insert(self, times: npt.NDArray[np.int64], series: Mapping[str, Series]) -> None:
        arrays: dict[str, Any] = {"t": times}
        cells = ["t"]
        for at, signal in enumerate(self.spec.signals):
            if signal.name not in series:
                cells += ["NULL", "NULL"]
                continue
            columns = columns_at(signal.type, series[signal.name], times)
            arrays |= {f"{key}{at}": column for key, column in columns.items()}
            value = f"v{at}::{sql_type(signal.type)}" if signal.shape else f"v{at}"
            cells += [f"CASE WHEN u{at} THEN {value} END", f"CASE WHEN h{at} THEN q{at} END"]
        with _writing(self.folder):
            self.sql.register("chunk", arrays)
            self.sql.execute(f"INSERT INTO samples SELECT {', '.join(cells)} FROM chunk")  # noqa: S608 - numbered names
            self.sql.unregister("chunk")

    def _finish(self) -> list[RecordedSignal]:
        """Write the Parquet file; the columns of the signals."""
        named = layout.columns(self.spec.names, has_split=bool(self.parts))
        selected = [f"{_instant('t')} AS {identifier(layout.TIME)}"]
        signals: list[RecordedSignal] = []
        for at, name in enumerate(self.spec.names):
            columns = named[name]
            selected.append(f"v{at} AS {identifier(columns.value)}")
            if name in self.not_good:
                selected.append(f"q{at} AS {identifier(columns.quality)}")
            quality = columns.quality if name in self.not_good else None
            samples = self.samples.get(name, 0)
            signals.append(
                RecordedSignal(name=name, column=columns.value, quality=quality, samples=samples)
            )
        if self.parts:
            selected.append(f"{splits.case_sql(self.parts, 't')} AS {identifier(layout.SPLIT)}")
        metadata = {
            "spec": orjson.dumps(messages.spec_to_json(self.spec)).decode(),
            "quality": "0 good, 1 uncertain, 2 bad; empty without a sample",
        }
        path = self.folder / layout.stream_file(self.spec.address)
        with _writing(self.folder):
            _table(self.sql, f"SELECT {', '.join(selected)} FROM samples", path, metadata)  # noqa: S608 - quoted
        return signals

    def recorded(self, source: Source, grants: Sequence[CoveringGrant] | None) -> RecordedStream:
        """Write the file; the stream's part of the manifest."""
        signals = self._finish()
        return RecordedStream(
            spec=orjson.loads(messages.encode_spec(self.spec)),
            file=layout.stream_file(self.spec.address),
            source=source,
            rows=self.rows,
            first=None if self.first_ns is None else text_of(self.first_ns),
            last=None if self.last_ns is None else text_of(self.last_ns),
            signals=signals,
            grants=None if grants is None else list(grants),
        )


@contextmanager
def stream_table(
    folder: Path, spec: StreamSpec, parts: Sequence[DataSplit] = ()
) -> Iterator[StreamTable]:
    """A table that is collected on the disk of `folder`, so that its size is not that of memory."""
    work = folder / "work.duckdb"
    with _writing(folder), duckdb.connect(str(work), config=_CONFIG) as sql:
        columns = ["t BIGINT"]
        for at, signal in enumerate(spec.signals):
            columns += [f"v{at} {sql_type(signal.type)}", f"q{at} UTINYINT"]
        sql.execute("SET TimeZone = 'UTC'")
        sql.execute(f"CREATE TABLE samples ({', '.join(columns)})")
        yield StreamTable(sql, folder, spec, tuple(parts))
    for each in folder.glob("work.duckdb*"):
        each.unlink()


def write_gaps(folder: Path, gaps: Sequence[tuple[StreamAddress, Gap]]) -> None:
    """Write gaps.parquet: a row for each signal of a gap, an empty signal means all of the stream.

    The column `gap` counts the gaps from 0.
    """
    rows = [
        (number, str(address), signal, gap.from_ns, gap.to_ns, gap.cause)
        for number, (address, gap) in enumerate(gaps)
        for signal in gap.signals or (None,)
    ]
    kinds: Sequence[Any] = (np.int32, object, object, np.int64, np.int64, object)
    columns: list[tuple[Any, ...]] = list(zip(*rows, strict=True)) or [()] * len(kinds)
    arrays = {
        name: np.array(column, kind)
        for name, column, kind in zip("gsnabc", columns, kinds, strict=True)
    }
    with _writing(folder), duckdb.connect(config=_CONFIG) as sql:
        sql.execute("SET TimeZone = 'UTC'")
        sql.register("gaps", arrays)
        selected = (
            "g AS gap, s::VARCHAR AS stream, n::VARCHAR AS signal,"
            f' {_instant("a")} AS "from", {_instant("b")} AS "to", c::VARCHAR AS cause'
        )
        _table(sql, f"SELECT {selected} FROM gaps", folder / layout.GAPS, {})  # noqa: S608 - no value in it


def read_rows(
    folder: Path, stream: RecordedStream, from_ns: int | None = None, to_ns: int | None = None
) -> Iterator[RecordedRow]:
    """Yield the rows of a stream in the order of time, some thousand at a time.

    from_ns, to_ns: span of the rows, the first included and the second not.  Raises Corrupt.
    """
    path = folder / stream.file
    bounds = [(f"time >= {_instant('?')}", from_ns), (f"time < {_instant('?')}", to_ns)]
    given = [(text, bound) for text, bound in bounds if bound is not None]
    where = f" WHERE {' AND '.join(text for text, _ in given)}" if given else ""
    query = f"SELECT {', '.join(_cells(stream))} FROM {_READ}{where}"  # noqa: S608 - quoted
    spec = stream.stream_spec()
    rows_at_once = max(1, ROWS_AT_ONCE // largest_array(spec, spec.names))
    with reading(path) as sql:
        result = sql.execute(query, [str(path), *(bound for _, bound in given)])
        while rows := result.fetchmany(rows_at_once):
            for row in rows:
                yield row[0], row[1::2], row[2::2]


def _cells(stream: RecordedStream) -> list[str]:
    """Time, and value and quality of each signal, as expressions of SQL."""
    cells, spec = [f"epoch_ns({identifier(layout.TIME)})"], stream.stream_spec()
    for signal in stream.signals:
        value, value_type = identifier(signal.column), spec.signal(signal.name).type
        if isinstance(value_type, ArrayOf):  # the cast refuses lists of another length
            cells.append(f"{value}::{SQL_TYPES[value_type.dtype]}[{value_type.size}]")
        else:
            cells.append(value)
        if signal.quality is None:
            cells.append(f"CASE WHEN {value} IS NULL THEN {NO_SAMPLE} ELSE {GOOD} END::UTINYINT")
        else:
            cells.append(f"coalesce({identifier(signal.quality)}, {NO_SAMPLE})::UTINYINT")
    return cells


@contextmanager
def reading(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection of its own to read a file with; raises Corrupt if it is no table that fits."""
    try:
        with duckdb.connect(config=_CONFIG) as sql:
            sql.execute("SET TimeZone = 'UTC'")
            yield sql
    except duckdb.Error as exc:
        reason = str(exc).partition("\n")[0]
        raise Corrupt(f"{path} is not the table that the manifest describes: {reason}") from exc


@contextmanager
def connected(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that reads tables and writes a file into a folder.

    Raises Corrupt for a table that is none, Unavailable if the file cannot be written.
    """
    try:
        with duckdb.connect(config=_CONFIG) as sql:
            sql.execute("SET TimeZone = 'UTC'")
            yield sql
    except duckdb.InvalidInputException as exc:
        raise Corrupt(f"a table is not as the manifest describes it: {exc}") from exc
    except duckdb.Error as exc:
        raise unwritten(folder, exc) from exc


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Translate an error of DuckDB while a file is written; raises Unavailable."""
    try:
        yield
    except duckdb.Error as exc:
        raise unwritten(folder, exc) from exc


def unwritten(folder: Path, exc: Exception) -> BedError:
    """The error of a recording that cannot be written, such as on a full disk."""
    full = files.full_disk(folder.parent, exc, "another path for it")
    reason = getattr(exc, "strerror", None) or str(exc).partition("\n")[0]
    hint = "choose a folder of yours, on a disk with room"
    return full or Unavailable(f"{folder.parent} cannot be written: {reason}", hint=hint)


def sql_type(value_type: ValueType) -> str:
    """The type of a column of values; arrays are lists.

    DuckDB 2.0 writes an empty cell of its own arrays of a fixed length into Parquet so that pyarrow
    refuses the file.
    """
    if isinstance(value_type, ArrayOf):
        return f"{SQL_TYPES[value_type.dtype]}[]"
    return SQL_TYPES[value_type]


def columns_at(
    value_type: ValueType, series: Series, times: npt.NDArray[np.int64]
) -> dict[str, Any]:
    """Columns at these time stamps: v values, u whether usable, q qualities, h whether there is a
    sample.

    Arrays are JSON texts, for DuckDB to cast: of a column of objects it would guess the type.
    """
    column_type = Dtype.STRING if isinstance(value_type, ArrayOf) else value_type
    values = filled_column(column_type, len(times))
    quality = np.zeros(len(times), np.uint8)
    has_sample = np.zeros(len(times), np.bool_)
    if len(times):
        begin = np.searchsorted(series.time_ns, times[0])
        inside = slice(begin, np.searchsorted(series.time_ns, times[-1], side="right"))
        at = np.searchsorted(times, series.time_ns[inside])
        column = series.values[inside]
        values[at] = column if column_type is value_type else json_values.array_texts(column)
        quality[at] = series.quality[inside]
        has_sample[at] = True
    return {"v": values, "u": has_sample & (quality != BAD), "q": quality, "h": has_sample}


def _instant(column: str) -> str:
    """A column of whole ns since 1970 UTC as a timestamp that knows its zone."""
    return f"make_timestamp_ns({column})::TIMESTAMPTZ_NS"


def _table(
    sql: duckdb.DuckDBPyConnection, query: str, path: Path, metadata: Mapping[str, str]
) -> None:
    """Write the answer of a query as Parquet, with the file's metadata."""
    entries = ", ".join(f"{key}: {literal(value)}" for key, value in metadata.items())
    options = f", KV_METADATA {{{entries}}}" if metadata else ""
    copy(sql, query, path, f"FORMAT parquet, COMPRESSION zstd{options}")


def copy(sql: duckdb.DuckDBPyConnection, query: str, path: Path, options: str) -> None:
    """Write the answer of a query into a file, with the options of DuckDB's COPY."""
    sql.execute(f"COPY ({query}) TO {literal(str(path))} ({options})")


def identifier(name: str) -> str:
    """A column's name, quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text, quoted for SQL."""
    return "'" + text.replace("'", "''") + "'"
