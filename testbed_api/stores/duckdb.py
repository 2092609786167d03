"""The embedded store: one DuckDB file that belongs to one process.

Each (space, stream) is one table of samples in long form, in the schema of its organisation,
appended in the order of arrival; reads sort.  Samples later than all that their signal has are
appended as they are; for others an anti-join finds what is there already, looking only at their
time range, which the file's zone maps make cheap.  DuckDB syncs its log at each
commit: what is written outlives a loss of power.

In the statements only the name of a table and our own columns are text, all else is bound.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import duckdb
import numpy as np

from broker.batch import BAD, GOOD, NO_VALUE, Long, Series
from broker.namespace import StreamAddress
from broker.streams import Dtype
from testbed_api.stores import duckdb_file, frames
from testbed_api.stores.coalescing import Sharing
from testbed_api.stores.duckdb_file import Table
from testbed_api.stores.port import Block, Window

PAGE = 50_000
"""Rows read at a time, then handed on in frames."""
READERS = 2
"""Reads at a time; each uses several cores, and more of them only wait for one another."""

_COLUMN = {Dtype.FLOAT64: "f", Dtype.INT64: "i", Dtype.BOOL: "b", Dtype.STRING: "s"}
_KIND = {dtype: kind for kind, dtype in enumerate(_COLUMN)}
_NO_KIND = len(_KIND)
"""The kind of a sample without a value."""

_CREATE = """CREATE TABLE IF NOT EXISTS {table}
  (signal VARCHAR, time_ns BIGINT, f DOUBLE, i BIGINT, b BOOLEAN, s VARCHAR, quality UTINYINT)"""
_STAGE = """CREATE OR REPLACE TEMP TABLE staged AS
SELECT part, name, time_ns, {f} AS f, {i} AS i, {b} AS b, {s} AS s, quality FROM given"""
_LATEST = "SELECT signal, max(time_ns) FROM {table} WHERE time_ns >= $first GROUP BY signal"
_APPEND = """INSERT INTO {table}
SELECT list_extract($names, name), time_ns, f, i, b, s, quality FROM staged WHERE part = $part"""
_INSERT_MISSING = """INSERT INTO {table}
SELECT DISTINCT ON (name, time_ns) list_extract($names, name), time_ns, f, i, b, s, quality
FROM staged WHERE part = $part AND NOT EXISTS (
  FROM {table} AS old
  WHERE old.time_ns BETWEEN $first AND $last
    AND old.time_ns = staged.time_ns AND old.signal = list_extract($names, staged.name))
ORDER BY staged.rowid"""

_DELETE = "DELETE FROM {table} WHERE time_ns >= $first AND time_ns < $end"
_MINE = "time_ns >= $first AND time_ns < $end AND list_contains($names, signal)"
_EXTENT = "SELECT count(*), min(time_ns), max(time_ns) FROM {table} WHERE {mine}"
_PAGE = """SELECT list_position($names, signal)::INTEGER AS place, time_ns, quality, {columns}
FROM {table} WHERE {mine} AND (time_ns > $first OR list_position($names, signal) > $place)
ORDER BY time_ns, place LIMIT $page"""
_ENDS = """SELECT list_position($names, signal)::INTEGER AS place, {columns}
FROM {table} WHERE {mine} AND quality {quality} GROUP BY place, {since} // $span"""
_BY_VALUE = (
    f"arg_min(time_ns, {{v}}) AS t0, min({{v}}) AS v0, {GOOD} AS q0,"
    f" arg_max(time_ns, {{v}}) AS t1, max({{v}}) AS v1, {GOOD} AS q1"
)
_BY_TIME = (
    "min(time_ns) AS t0, arg_min_null({v}, time_ns) AS v0, arg_min(quality, time_ns) AS q0,"
    " max(time_ns) AS t1, arg_max_null({v}, time_ns) AS v1, arg_max(quality, time_ns) AS q1"
)

_Result = TypeVar("_Result")
_Rows = Mapping[str, Any]


class DuckDbStore:
    """A `SeriesStore` over one file."""

    def __init__(self, file: duckdb_file.File) -> None:
        """Made by `open`."""
        self._file = file
        self._writer = ThreadPoolExecutor(1, "duckdb-writer")
        self._readers = ThreadPoolExecutor(READERS, "duckdb-reader")
        self._sharing = Sharing(self._thinned)
        self._tables: set[Table] = set()
        self._latest: dict[tuple[Table, str], int] = {}
        """The latest time of each (table, signal), as far as it was asked for; the writer's own."""

    async def write(self, blocks: Sequence[Block]) -> None:
        """One transaction for all blocks."""
        await self._in(self._writer, self._write, blocks)

    def _write(self, blocks: Sequence[Block]) -> None:
        by_table: dict[Table, list[_Run]] = {}
        for block in blocks:
            for name, series in block.series():
                if len(series.time_ns):
                    run = _Run.of(name, block.spec.signal(name).dtype, series)
                    by_table.setdefault(Table.of(block.space, block.spec.address), []).append(run)
        try:
            with self._file.transaction() as cursor:
                parts: list[_Part] = []
                for table, runs in by_table.items():
                    parts += self._sorted(cursor, table, runs)
                _stage(cursor, parts)
                for at, part in enumerate(parts):
                    part.insert(cursor, at)
        except duckdb.Error:
            self._latest.clear()  # whether it was committed after all is for the file to say
            raise
        self._tables |= by_table.keys()

    def _sorted(
        self, cursor: duckdb.DuckDBPyConnection, table: Table, runs: Sequence["_Run"]
    ) -> Iterator["_Part"]:
        """What can be appended as it is, and what must be compared with what is there."""
        if table not in self._tables:
            cursor.execute(table.create_schema())
            cursor.execute(_CREATE.format(table=table))
        strange = {run.name for run in runs if (table, run.name) not in self._latest}
        if strange:
            first = min(run.first for run in runs)
            found = cursor.execute(_LATEST.format(table=table), {"first": first})
            latest = dict(found.fetchall())
            self._latest |= {(table, name): latest.get(name, first - 1) for name in strange}
        fresh, again = _Part(table, fresh=True), _Part(table, fresh=False)
        for run in runs:
            known = self._latest[table, run.name]
            part = fresh if run.first > known and run.ascends else again
            part.runs.append(run)
            self._latest[table, run.name] = max(known, run.last)
        yield from (part for part in (fresh, again) if part.runs)

    async def read(self, window: Window) -> AsyncIterator[Long]:
        """Page behind page, in slices of time that hold about one page: no sort is larger."""
        count, first, last = await self._in(self._readers, self._extent, window)
        width = max((last - first) * PAGE // (2 * count), 1) if count else 1
        at, place = first, 0
        while count and at <= last:
            end = min(at + width, last + 1)
            page = await self._in(self._readers, self._page, window, at, place, end)
            for frame in frames.cut(page):
                yield frame
            if len(page) == PAGE:
                at, place, width = int(page.time_ns[-1]), _place(window, page), max(width // 2, 1)
            else:
                at, place, width = end, 0, width * 2 if len(page) < PAGE // 4 else width

    def _extent(self, window: Window) -> tuple[int, int, int]:
        """How many samples the window has, and the times of the first and the last."""
        if not self._has(window):
            return 0, 0, 0
        [(count, first, last)] = self._file.ask(_about(window, _EXTENT), _asked(window))
        return count, first or 0, last or 0

    def _page(self, window: Window, at: int, place: int, end: int) -> Long:
        asked = _asked(window) | {"first": at, "end": end, "place": place, "page": PAGE}
        dtypes = {window.spec.signal(name).dtype for name in window.signals}
        query = _about(window, _PAGE, columns=", ".join(_COLUMN[dtype] for dtype in dtypes))
        with self._file.cursor() as cursor:
            rows = cursor.execute(query, asked).fetchnumpy()
        return _samples(window, rows, _in_order(window))

    async def thin(self, window: Window, points: int) -> AsyncIterator[Long]:
        """The ends of each span, found in SQL."""
        for frame in frames.cut(await self._sharing.thinned(window, points)):
            yield frame

    async def _thinned(self, window: Window, points: int) -> Long:
        return await self._in(self._readers, self._ends, window, points)

    def _ends(self, window: Window, points: int) -> Long:
        found: list[Long] = []
        if not self._has(window):
            return frames.joined(window, found)
        asked = _asked(window) | {"span": frames.span_ns(window, points)}
        with self._file.cursor() as cursor:
            for dtype, column in _COLUMN.items():
                names = [one for one in _in_order(window) if window.spec.signal(one).dtype is dtype]
                for query in _queries_of_ends(window, dtype) if names else ():
                    rows = cursor.execute(query, asked | {"names": names}).fetchnumpy()
                    found += (_end(window, rows, names, column, end) for end in "01")
        return frames.thinned(window, points, found)

    async def delete(self, space: str, stream: StreamAddress, from_ns: int, to_ns: int) -> None:
        """Delete rows, then have the file give their room to what comes."""
        await self._in(self._writer, self._delete, Table.of(space, stream), from_ns, to_ns)

    def _delete(self, table: Table, from_ns: int, to_ns: int) -> None:
        if not self._knows(table):
            return
        with self._file.cursor() as cursor:
            asked = {"first": from_ns, "end": to_ns}
            cursor.execute(_DELETE.format(table=table), asked)
        with suppress(duckdb.TransactionException):  # somebody reads: then a later checkpoint does
            self._file.ask("CHECKPOINT")

    async def ready(self) -> None:
        """Ask the file a question."""
        await self._in(self._readers, self._file.ask, "SELECT 1")

    def _has(self, window: Window) -> bool:
        return bool(window.signals) and self._knows(Table.of(window.space, window.spec.address))

    def _knows(self, table: Table) -> bool:
        query = "SELECT 1 FROM duckdb_tables() WHERE schema_name = ? AND table_name = ?"
        if table not in self._tables and self._file.ask(query, [*table]):
            self._tables.add(table)
        return table in self._tables

    async def _in(
        self, pool: ThreadPoolExecutor, call: Callable[..., _Result], *args: object
    ) -> _Result:
        """Run one call off the loop; one that is no longer waited for still comes to its end."""
        with duckdb_file.translated():
            return await asyncio.get_running_loop().run_in_executor(pool, call, *args)

    async def close(self) -> None:
        """Finish what was begun, then close the file; called by `open`."""
        for pool in (self._writer, self._readers):
            await asyncio.to_thread(pool.shutdown)
        await asyncio.to_thread(self._file.close)


@asynccontextmanager
async def open(  # noqa: A001
    path: Path, *, most_bytes: int = 1024**3, threads: int = 2
) -> AsyncIterator[DuckDbStore]:
    """The store in one file, made if it is not there.

    most_bytes: of memory that DuckDB uses.  Raises Taken if another process has it, Refused
    if its layout is an unknown version, Corrupt if it is no such file.
    """
    file = duckdb_file.File(path, {"memory_limit": f"{most_bytes}B", "threads": threads})
    with duckdb_file.translated():
        await asyncio.to_thread(file.bring_up)
    store = DuckDbStore(file)
    try:
        yield store
    finally:
        await store.close()


class _Run(NamedTuple):
    """Samples of one signal.  first, last: the ends of their times, in whatever order they are."""

    name: str
    dtype: Dtype
    series: Series
    first: int
    last: int
    ascends: bool

    @classmethod
    def of(cls, name: str, dtype: Dtype, series: Series) -> "_Run":
        times = series.time_ns
        if len(times) == 1:  # so they come by the thousand
            time_ns = int(times[0])
            return cls(name, dtype, series, time_ns, time_ns, ascends=True)
        ascends = bool(np.all(times[1:] > times[:-1]))
        return cls(name, dtype, series, int(times.min()), int(times.max()), ascends)


@dataclass(frozen=True, slots=True)
class _Part:
    """What one statement inserts into one table.

    fresh: each run ascends, and begins after all that its signal has.
    """

    table: Table
    fresh: bool
    runs: list[_Run] = field(default_factory=list)

    def names(self) -> list[str]:
        return list(dict.fromkeys(run.name for run in self.runs))

    def insert(self, cursor: duckdb.DuckDBPyConnection, at: int) -> None:
        """Insert the staged rows of part number `at`, this one."""
        asked: dict[str, Any] = {"names": self.names(), "part": at}
        if not self.fresh:
            asked["first"] = min(run.first for run in self.runs)
            asked["last"] = max(run.last for run in self.runs)
        query = _APPEND if self.fresh else _INSERT_MISSING
        cursor.execute(query.format(table=self.table), asked)


def _stage(cursor: duckdb.DuckDBPyConnection, parts: Sequence[_Part]) -> None:
    """Hand all samples of a write to DuckDB at once, as columns: each time costs a millisecond."""
    runs = [
        (at, places[run.name], run)
        for at, part in enumerate(parts)
        for places in [{name: place for place, name in enumerate(part.names(), start=1)}]
        for run in part.runs
    ]
    if not runs:
        return
    sizes = [len(run.series.time_ns) for _, _, run in runs]
    quality = np.concatenate([run.series.quality for _, _, run in runs])
    kind = np.repeat(np.array([_KIND[run.dtype] for _, _, run in runs], np.uint8), sizes)
    kind[quality == BAD] = _NO_KIND
    given = {
        "part": np.repeat(np.array([at for at, _, _ in runs], np.int32), sizes),
        "name": np.repeat(np.array([name for _, name, _ in runs], np.int32), sizes),
        "time_ns": np.concatenate([run.series.time_ns for _, _, run in runs]),
        "quality": quality,
        "kind": kind,
    }
    columns = dict.fromkeys(_COLUMN.values(), "NULL")
    for dtype in {run.dtype for _, _, run in runs}:
        column = _COLUMN[dtype]
        nothing = np.array([NO_VALUE[dtype]])
        given[column] = np.concatenate(
            [
                run.series.values if run.dtype is dtype else np.repeat(nothing, size)
                for size, (_, _, run) in zip(sizes, runs, strict=True)
            ]
        )
        columns[column] = f"CASE WHEN kind = {_KIND[dtype]} THEN {column} END"
    cursor.register("given", given)
    cursor.execute(_STAGE.format(**columns))


def _queries_of_ends(window: Window, dtype: Dtype) -> Iterator[str]:
    """For signals of one dtype: the ends of the good samples of each span, then of the others."""
    wide = window.to_ns - window.from_ns >= 2**63
    since = "(time_ns::HUGEINT - $first)" if wide else "(time_ns - $first)"
    good = _BY_VALUE if dtype in frames.ORDERED else _BY_TIME
    for quality, ends in ((f"= {GOOD}", good), (f"<> {GOOD}", _BY_TIME)):
        columns = ends.format(v=_COLUMN[dtype])
        yield _about(window, _ENDS, columns=columns, quality=quality, since=since)


def _end(window: Window, rows: _Rows, names: Sequence[str], column: str, end: str) -> Long:
    """One of the two ends of each span."""
    mine = {"place": rows["place"], "time_ns": rows["t" + end], "quality": rows["q" + end]}
    return _samples(window, mine | {column: rows["v" + end]}, names)


def _samples(window: Window, rows: _Rows, names: Sequence[str]) -> Long:
    """Rows as columns of the port; `place` counts from 1 in `names`."""
    spec = window.spec
    places = np.array([spec.names.index(name) for name in names], np.int32)
    signal = places[rows["place"] - 1]
    quality = np.asarray(rows["quality"], np.uint8)
    values = frames.column(window, len(signal))
    for dtype, column in _COLUMN.items():
        if column in rows:
            of_dtype = [at for at, one in enumerate(spec.signals) if one.dtype is dtype]
            mine = np.isin(signal, of_dtype)
            nothing: Any = NO_VALUE[dtype]
            found = np.ma.filled(rows[column][mine], nothing)
            found[quality[mine] == BAD] = nothing
            values[mine] = found if values.dtype == found.dtype else found.tolist()
    return frames.of(window, np.asarray(rows["time_ns"]), signal, values, quality)


def _place(window: Window, page: Long) -> int:
    """Where the page's last signal stands among those asked for, from 1."""
    return _in_order(window).index(page.names[int(page.signal[-1])]) + 1


def _asked(window: Window) -> dict[str, Any]:
    return {"names": _in_order(window), "first": window.from_ns, "end": window.to_ns}


def _in_order(window: Window) -> list[str]:
    return [name for name in window.spec.names if name in window.signals]


def _about(window: Window, query: str, **parts: str) -> str:
    table = Table.of(window.space, window.spec.address)
    return query.format(table=table, mine=_MINE, **parts)
