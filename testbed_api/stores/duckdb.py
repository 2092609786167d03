"""The embedded store: one DuckDB file that belongs to one process.

Each (space, stream) is one table of samples in long form, appended in the order of arrival; reads sort.  A sample that
is there already is not written again: the anti-join looks only at the time range of what is written, which the
file's zone maps make cheap.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import numpy as np

from broker.batch import BAD, NO_VALUE, NUMPY, Column, Long
from broker.errors import Corrupt, Refused, Taken, Unavailable
from broker.streams import Dtype
from testbed_api.stores.port import Block, Window

LAYOUT = 1
FRAME = 10_000
PAGE = 100_000
"""Rows read at a time, then handed on in frames."""
READERS = 4

_COLUMN = {Dtype.FLOAT64: "f", Dtype.INT64: "i", Dtype.BOOL: "b", Dtype.STRING: "s"}
_CREATE = """CREATE TABLE IF NOT EXISTS {table}
  (signal VARCHAR, time_ns BIGINT, f DOUBLE, i BIGINT, b BOOLEAN, s VARCHAR, quality UTINYINT)"""
_INSERT = """
INSERT INTO {table}
SELECT DISTINCT ON (name, time_ns)
  list_extract($names, code) AS name, time_ns,
  {f} AS f, {i} AS i, {b} AS b, {s} AS s, quality
FROM new
WHERE NOT EXISTS (
  FROM {table} AS old
  WHERE old.time_ns BETWEEN $first AND $last
    AND old.time_ns = new.time_ns AND old.signal = list_extract($names, code))"""
_PAGE = """
SELECT list_position($names, signal)::INTEGER AS place, time_ns, f, i, b, s, quality
FROM {table}
WHERE time_ns >= $first AND time_ns < $end AND list_contains($names, signal)
  AND (time_ns > $after OR list_position($names, signal) > $place)
ORDER BY time_ns, place LIMIT {page}"""
_THIN = """
WITH spans AS (
  SELECT signal, (time_ns - $first) // $width AS span, quality = 0 AS good, quality = 2 AS bad,
         time_ns, CASE WHEN list_contains($ordered, signal) THEN coalesce(f, i) END AS number, i
  FROM {table}
  WHERE time_ns >= $first AND time_ns < $end AND list_contains($names, signal)
), ends AS (
  SELECT signal,
    coalesce(arg_min(time_ns, coalesce(i, number)) FILTER (good), min(time_ns) FILTER (good), min(time_ns)) AS low,
    coalesce(arg_max(time_ns, coalesce(i, number)) FILTER (good), max(time_ns) FILTER (good), max(time_ns)) AS high
  FROM spans GROUP BY signal, span
), chosen AS (SELECT signal, low AS time_ns FROM ends UNION SELECT signal, high FROM ends)
SELECT list_position($names, signal)::INTEGER AS place, time_ns, f, i, b, s, quality
FROM {table} SEMI JOIN chosen USING (signal, time_ns)
WHERE time_ns >= $first AND time_ns < $end
ORDER BY time_ns, place"""

_T = TypeVar("_T")


class DuckDbStore:
    """A `SeriesStore` over one file."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Made by `open`."""
        self._connection = connection
        self._writing = asyncio.Lock()
        self._reading = asyncio.Semaphore(READERS)
        self._tables = {
            str(name) for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        }

    async def write(self, blocks: Sequence[Block]) -> None:
        """One transaction for all blocks."""
        async with self._writing:
            await _in_thread(self._write, blocks)

    def _write(self, blocks: Sequence[Block]) -> None:
        by_table: dict[str, list[Block]] = {}
        for block in blocks:
            by_table.setdefault(_table(block.space, str(block.spec.address)), []).append(block)
        made: set[str] = set()
        cursor = self._connection.cursor()
        try:
            cursor.begin()
            for table, mine in by_table.items():
                if table not in self._tables:
                    cursor.execute(_CREATE.format(table=_quoted(table)))
                    made.add(table)
                _insert(cursor, table, mine)
            cursor.commit()
        finally:
            cursor.close()  # rolls back what was not committed
        self._tables |= made

    async def read(self, window: Window) -> AsyncIterator[Long]:
        """Page by page behind the last sample of the page before."""
        table = _table(window.space, str(window.spec.address))
        if table not in self._tables:
            return
        query = _PAGE.format(table=_quoted(table), page=PAGE)
        names = _in_order(window)
        after, at = window.from_ns, 0
        while True:
            place = {"names": names, "first": after, "end": window.to_ns, "after": after, "place": at}
            rows = await self._fetch(query, place)
            for frame in _frames(rows, window, names):
                yield frame
            if len(rows["place"]) < PAGE:
                return
            after, at = int(rows["time_ns"][-1]), int(rows["place"][-1])

    async def thin(self, window: Window, points: int) -> AsyncIterator[Long]:
        """Least and greatest of each span, found in SQL."""
        table = _table(window.space, str(window.spec.address))
        if table not in self._tables:
            return
        names = _in_order(window)
        numbers = (Dtype.FLOAT64, Dtype.INT64)
        place = {
            "names": names,
            "ordered": [name for name in names if window.spec.signal(name).dtype in numbers],
            "first": window.from_ns,
            "end": window.to_ns,
            "width": max(-(-(window.to_ns - window.from_ns) // max(points // 2, 1)), 1),
        }
        rows = await self._fetch(_THIN.format(table=_quoted(table)), place)
        for frame in _frames(rows, window, names):
            yield frame

    async def ready(self) -> None:
        """Ask the file a question."""
        await self._fetch("SELECT 1 AS one", {})

    async def _fetch(self, query: str, place: Mapping[str, object]) -> dict[str, Any]:
        def fetch() -> dict[str, Any]:
            with self._connection.cursor() as cursor:
                found: dict[str, Any] = cursor.execute(query, dict(place)).fetchnumpy()
                return found

        async with self._reading:
            return await _in_thread(fetch)


@asynccontextmanager
async def open(path: Path, *, memory: str = "1GB", threads: int = 2) -> AsyncIterator[DuckDbStore]:  # noqa: A001
    """The store in one file, made if it is not there.

    memory: most that DuckDB uses, such as "1GB".  Raises Taken if another process has it, Refused if its layout is of
    another version, Corrupt if it is no such file.
    """
    config: dict[str, Any] = {"memory_limit": memory, "threads": threads}
    try:
        connection = await asyncio.to_thread(duckdb.connect, str(path), config=config)
    except duckdb.IOException as exc:
        if "lock" in str(exc):
            raise Taken(f"{path} is open in another process", hint="one process owns the file: ask its API") from exc
        if "not a valid DuckDB" in str(exc):
            raise Corrupt(f"{path} is not a DuckDB file") from exc
        raise Unavailable(f"{path} cannot be opened: {exc}") from exc
    except duckdb.Error as exc:
        raise Corrupt(f"{path} cannot be opened: {exc}") from exc
    try:
        await _in_thread(lambda: _check_layout(connection, path))
        yield DuckDbStore(connection)
    finally:
        await asyncio.to_thread(connection.close)


def _check_layout(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS layout (version INTEGER)")
    found = connection.execute("SELECT version FROM layout").fetchall()
    if not found:
        connection.execute("INSERT INTO layout VALUES (?)", [LAYOUT])
    elif found != [(LAYOUT,)]:
        raise Refused(
            f"{path} has layout {found[0][0]}, this version reads {LAYOUT}", hint="use the version that wrote it"
        )


def _insert(cursor: duckdb.DuckDBPyConnection, table: str, blocks: Sequence[Block]) -> None:
    """Insert what is not there yet, dtype by dtype, from columns."""
    by_dtype: dict[Dtype, list[tuple[str, Any]]] = {}
    for block in blocks:
        for name, series in block.series:
            if len(series.time_ns):
                by_dtype.setdefault(block.spec.signal(name).dtype, []).append((name, series))
    for dtype, found in by_dtype.items():
        names = list(dict.fromkeys(name for name, _ in found))
        codes = [np.full(len(one.time_ns), names.index(name) + 1, np.int32) for name, one in found]
        times = np.concatenate([one.time_ns for _, one in found])
        new = {
            "code": np.concatenate(codes),
            "time_ns": times,
            "value": np.concatenate([one.values for _, one in found]),
            "quality": np.concatenate([one.quality for _, one in found]),
        }
        cursor.register("new", new)
        values = dict.fromkeys("fibs", "NULL") | {_COLUMN[dtype]: f"CASE WHEN quality <> {BAD} THEN value END"}
        place = {"names": names, "first": int(times.min()), "last": int(times.max())}
        cursor.execute(_INSERT.format(table=_quoted(table), **values), place)
        cursor.unregister("new")


def _frames(rows: Mapping[str, Any], window: Window, names: Sequence[str]) -> list[Long]:
    """Rows as frames; `place` counts from 1 in `names`, a frame's signals from 0 in the spec."""
    spec = window.spec
    dtypes = tuple(signal.dtype for signal in spec.signals)
    places = np.array([spec.names.index(name) for name in names], np.int32)
    signal = places[rows["place"].astype(np.int64) - 1] if len(rows["place"]) else np.empty(0, np.int32)
    quality = rows["quality"].astype(np.uint8)
    values = _values(rows, signal, quality, dtypes)
    return [
        Long(
            rows["time_ns"][cut : cut + FRAME].astype(np.int64),
            signal[cut : cut + FRAME],
            values[cut : cut + FRAME],
            quality[cut : cut + FRAME],
            spec.names,
            dtypes,
        )
        for cut in range(0, len(signal), FRAME)
    ]


def _values(rows: Mapping[str, Any], signal: Column, quality: Column, dtypes: tuple[Dtype, ...]) -> Column:
    present = {dtypes[at] for at in np.unique(signal).tolist()}
    alone = len(set(dtypes)) == 1
    values = np.empty(len(signal), NUMPY[dtypes[0]] if alone else np.object_)
    for dtype in present:
        mine = np.isin(signal, [at for at, one in enumerate(dtypes) if one is dtype])
        nothing: Any = NO_VALUE[dtype]
        column = np.ma.filled(rows[_COLUMN[dtype]][mine], nothing)
        values[mine] = column if alone else column.tolist()
        values[mine & (quality == BAD)] = nothing
    return values


def _in_order(window: Window) -> list[str]:
    return [name for name in window.spec.names if name in window.signals]


def _table(space: str, stream: str) -> str:
    return f"{space}/{stream}"


def _quoted(table: str) -> str:
    return '"' + table.replace('"', '""') + '"'


async def _in_thread(call: Callable[..., _T], *args: object) -> _T:
    """Run one call of DuckDB off the loop, its errors translated."""
    try:
        return await asyncio.to_thread(call, *args)
    except (duckdb.IOException, duckdb.FatalException, duckdb.OutOfMemoryException, duckdb.TransactionException) as exc:
        raise Unavailable(f"the DuckDB file did not take it: {exc}", hint="is the disk full?") from exc
    except duckdb.SerializationException as exc:
        raise Corrupt(f"the DuckDB file is damaged: {exc}") from exc
