"""Stores samples in one DuckDB file that belongs to one process: the embedded store.

Each (space, stream) is one table of samples in long form, in the schema of its organisation,
appended in the order of arrival; reads sort.  Samples later than all stored ones of their signal
are appended without a comparison; for others an anti-join skips those stored already.  It reads
their time range only, which the file's zone maps make cheap.  DuckDB syncs its log at each commit,
so a finished write survives a loss of power.

Statements contain table names and the columns below as text; all values are bound parameters.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import duckdb
import numpy as np

from broker.aggregation import Aggregate, Aggregation
from broker.batch import BAD, GOOD, NO_VALUE, UNCERTAIN, Long, Series
from broker.namespace import StreamAddress
from broker.streams import Dtype
from testbed_api.stores import duckdb_file, frames
from testbed_api.stores.array_texts import ArrayTexts
from testbed_api.stores.coalescing import ThinQueryCoalescer
from testbed_api.stores.duckdb_file import SampleTable
from testbed_api.stores.port import Block, Position, Window

PAGE = 50_000
"""Rows read by one query, then split into frames."""
MOST_PAGES = 20
"""Pages of aggregated values that one query computes at most, of which it returns the first."""
READERS = 2
"""Concurrent reads; each uses several cores, so more of them would only wait for one another."""

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
_IN_WINDOW = "time_ns >= $first AND time_ns < $end AND list_contains($names, signal)"
_EXTENT = "SELECT count(*), min(time_ns), max(time_ns) FROM {table} WHERE {in_window}"
_PAGE = """SELECT list_position($names, signal)::INTEGER AS place, time_ns, quality, {columns}
FROM {table} WHERE {in_window} AND (time_ns > $first OR list_position($names, signal) > $place)
ORDER BY time_ns, place LIMIT $page"""
_BOUNDS = """SELECT min(time_ns), max(time_ns) FROM {table}
WHERE time_ns >= $first AND time_ns < $end"""
_ENDS = """SELECT list_position($names, signal)::INTEGER AS place, {columns}
FROM {table} WHERE {in_window} AND quality {quality} GROUP BY place, {since} // $span"""
_BY_VALUE = (
    f"arg_min(time_ns, {{v}}) AS t0, min({{v}}) AS v0, {GOOD} AS q0,"
    f" arg_max(time_ns, {{v}}) AS t1, max({{v}}) AS v1, {GOOD} AS q1"
)
_BY_TIME = (
    "min(time_ns) AS t0, arg_min_null({v}, time_ns) AS v0, arg_min(quality, time_ns) AS q0,"
    " max(time_ns) AS t1, arg_max_null({v}, time_ns) AS v1, arg_max(quality, time_ns) AS q1"
)
_FIRST = "SELECT min(time_ns) FROM {table} WHERE {in_window}"
_WINDOWS = """SELECT list_position($names, signal)::INTEGER AS place, {begin} AS begin_ns,
  {quality} AS quality, {columns}
FROM {table} WHERE {in_window} AND ({begin} > $begin OR list_position($names, signal) > $place)
GROUP BY place, begin_ns ORDER BY begin_ns, place LIMIT $page"""
_BEGIN = "(time_ns - ((time_ns % $every) + $every) % $every)"
_AGGREGATES = {
    Aggregate.MEAN: "avg({v})",
    Aggregate.LAST: "arg_max({v}, time_ns)",
    Aggregate.MIN: "min({v})",
    Aggregate.MAX: "max({v})",
}

_Result = TypeVar("_Result")
_Rows = Mapping[str, Any]


class DuckDbStore:
    """A `SeriesStore` in one DuckDB file."""

    def __init__(self, file: duckdb_file.DuckDbFile) -> None:
        """Use `open` instead."""
        self._file = file
        self._writer = ThreadPoolExecutor(1, "duckdb-writer")
        self._readers = ThreadPoolExecutor(READERS, "duckdb-reader")
        self._coalescer = ThinQueryCoalescer(self._thinned)
        self._tables: set[SampleTable] = set()
        self._latest: dict[tuple[SampleTable, str], int] = {}
        """Latest time in ns of each (table, signal) queried so far; used by the writer only."""

    async def write(self, blocks: Sequence[Block], position: Position | None = None) -> None:
        """Write all blocks, and the position, in one transaction."""
        await self._run_in(self._writer, self._write, blocks, position)

    def _write(self, blocks: Sequence[Block], position: Position | None) -> None:
        organisations = sorted({block.spec.address.organisation for block in blocks})
        by_table: dict[SampleTable, list[_SignalRun]] = {}
        for block in blocks:
            for name, series in block.series():
                if len(series.time_ns):
                    run = _SignalRun.from_series(name, block.spec.signal(name).dtype, series)
                    by_table.setdefault(
                        SampleTable.for_stream(block.space, block.spec.address), []
                    ).append(run)
        try:
            with self._file.transaction() as cursor:
                inserts: list[_Insert] = []
                for table, runs in by_table.items():
                    inserts += self._split_runs(cursor, table, runs)
                _stage(cursor, inserts)
                for at, insert in enumerate(inserts):
                    insert.execute(cursor, at)
                if position is not None:
                    self._file.write_position(cursor, organisations, position)
        except duckdb.Error:
            self._latest.clear()  # the transaction may or may not be committed: query again
            raise
        self._tables |= by_table.keys()

    def _split_runs(
        self, cursor: duckdb.DuckDBPyConnection, table: SampleTable, runs: Sequence["_SignalRun"]
    ) -> Iterator["_Insert"]:
        """Split runs into those to append and those to compare with stored samples."""
        if table not in self._tables:
            cursor.execute(table.create_schema())
            cursor.execute(_CREATE.format(table=table))
        unknown = {run.name for run in runs if (table, run.name) not in self._latest}
        if unknown:
            first = min(run.first for run in runs)
            rows = cursor.execute(_LATEST.format(table=table), {"first": first}).fetchall()
            latest = dict(rows)
            self._latest |= {(table, name): latest.get(name, first - 1) for name in unknown}
        append_only, compared = _Insert(table, append_only=True), _Insert(table, append_only=False)
        for run in runs:
            latest_ns = self._latest[table, run.name]
            insert = append_only if run.first > latest_ns and run.ascends else compared
            insert.runs.append(run)
            self._latest[table, run.name] = max(latest_ns, run.last)
        yield from (insert for insert in (append_only, compared) if insert.runs)

    async def read(self, window: Window) -> AsyncIterator[Long]:
        """Read page by page, in time slices of about one page each, so that no sort is larger."""
        count, first, last = await self._run_in(self._readers, self._extent, window)
        size = _page_size(window)
        width = max((last - first) * size // (2 * count), 1) if count else 1
        at, place = first, 0
        while count and at <= last:
            end = min(at + width, last + 1)
            page = await self._run_in(self._readers, self._page, window, at, place, end)
            for frame in frames.split(page):
                yield frame
            if len(page) == size:
                at, place, width = (
                    int(page.time_ns[-1]),
                    _place_of_last(window, page),
                    max(width // 2, 1),
                )
            else:
                at, place, width = end, 0, width * 2 if len(page) < size // 4 else width

    def _extent(self, window: Window) -> tuple[int, int, int]:
        """Number of samples in the window, and the times of the first and the last in ns."""
        if not self._has_samples(window):
            return 0, 0, 0
        [(count, first, last)] = self._file.fetch_all(
            _statement(window, _EXTENT), _parameters(window)
        )
        return count, first or 0, last or 0

    def _page(self, window: Window, at: int, place: int, end: int) -> Long:
        page = {"first": at, "end": end, "place": place, "page": _page_size(window)}
        parameters = _parameters(window) | page
        dtypes = {window.spec.signal(name).dtype for name in window.signals}
        query = _statement(window, _PAGE, columns=", ".join(_COLUMN[dtype] for dtype in dtypes))
        with self._file.cursor() as cursor:
            rows = cursor.execute(query, parameters).fetchnumpy()
        return _to_long(window, rows, _signals_in_order(window))

    async def thin(self, window: Window, points: int) -> AsyncIterator[Long]:
        """Read the minimum and maximum of each span with SQL."""
        for frame in frames.split(await self._coalescer.thin(window, points)):
            yield frame

    async def _thinned(self, window: Window, points: int) -> Long:
        return await self._run_in(self._readers, self._read_thinned, window, points)

    def _read_thinned(self, window: Window, points: int) -> Long:
        occupied = self._occupied(window)
        ends = [] if occupied is None else self._read_ends(occupied, points)
        return frames.thinned(occupied or window, points, ends)

    def _read_ends(self, window: Window, points: int) -> list[Long]:
        ends: list[Long] = []
        parameters = _parameters(window) | {"span": frames.span_ns(window, points)}
        with self._file.cursor() as cursor:
            for dtype, column in _COLUMN.items():
                names = [
                    name
                    for name in _signals_in_order(window)
                    if window.spec.signal(name).dtype is dtype
                ]
                for query in _end_queries(window, dtype) if names else ():
                    rows = cursor.execute(query, parameters | {"names": names}).fetchnumpy()
                    ends += (_end_samples(window, rows, names, column, end) for end in "01")
        return ends

    def _occupied(self, window: Window) -> Window | None:
        """The window from the first to the last sample of the stream in it, None without any."""
        if not self._has_samples(window):
            return None
        ends = {"first": window.from_ns, "end": window.to_ns}
        [(first, last)] = self._file.fetch_all(_statement(window, _BOUNDS), ends)
        return None if first is None else frames.occupied(window, first, last)

    async def aggregate(self, window: Window, aggregation: Aggregation) -> AsyncIterator[Long]:
        """Aggregate with SQL, slice by slice: some whole windows that give about one page."""
        aggregation.check(window.spec, window.signals, window.from_ns)
        size = _page_size(window)
        least = max(size // max(len(window.signals), 1), 1)
        width, place = least, 0
        at = await self._run_in(self._readers, self._first, window, window.from_ns)
        while at is not None and at < window.to_ns:
            end = min(aggregation.begin_ns(at) + width * aggregation.every_ns, window.to_ns)
            part = replace(window, from_ns=at, to_ns=end)
            page = await self._run_in(self._readers, self._window_page, part, aggregation, place)
            for frame in frames.split(page):
                yield frame
            if len(page) == size:
                at, place = max(int(page.time_ns[-1]), at), _place_of_last(window, page)
                width = max(width // 2, least)
            elif len(page):
                at, place = end, 0
                width = min(width * 2, MOST_PAGES * least) if len(page) < size // 4 else width
            else:
                at, place = await self._run_in(self._readers, self._first, window, end), 0

    def _first(self, window: Window, from_ns: int) -> int | None:
        """Time of the first sample in the window from an instant on, None if there is none."""
        if not self._has_samples(window):
            return None
        parameters = _parameters(window) | {"first": from_ns}
        [(first,)] = self._file.fetch_all(_statement(window, _FIRST), parameters)
        return None if first is None else int(first)

    def _window_page(self, part: Window, aggregation: Aggregation, place: int) -> Long:
        """One page of aggregated samples; place: signals up to it are left out at the begin."""
        begin_ns, every_ns = aggregation.begin_ns(part.from_ns), aggregation.every_ns
        page = {"begin": begin_ns, "every": every_ns, "place": place}
        page["page"] = _page_size(part)
        with self._file.cursor() as cursor:
            query = _window_query(part, aggregation)
            rows = cursor.execute(query, _parameters(part) | page).fetchnumpy()
        result = replace(part, spec=aggregation.spec(part.spec))
        return _to_long(result, rows | {"time_ns": rows["begin_ns"]}, _signals_in_order(part))

    async def delete(self, space: str, stream: StreamAddress, from_ns: int, to_ns: int) -> None:
        """Delete rows, then checkpoint, so that the file reuses their space."""
        await self._run_in(
            self._writer, self._delete, SampleTable.for_stream(space, stream), from_ns, to_ns
        )

    def _delete(self, table: SampleTable, from_ns: int, to_ns: int) -> None:
        if not self._table_exists(table):
            return
        with self._file.cursor() as cursor:
            parameters = {"first": from_ns, "end": to_ns}
            cursor.execute(_DELETE.format(table=table), parameters)
        with suppress(
            duckdb.TransactionException
        ):  # a read is running: a later checkpoint will do it
            self._file.fetch_all("CHECKPOINT")

    async def positions(self, organisations: Collection[str]) -> Mapping[str, Position]:
        """Read the table of positions."""
        return await self._run_in(self._readers, self._file.positions, organisations)

    async def extent(self, space: str, stream: StreamAddress) -> tuple[int, int] | None:
        """Read the least and the greatest time of the table."""
        table = SampleTable.for_stream(space, stream)
        return await self._run_in(self._readers, self._ends, table)

    def _ends(self, table: SampleTable) -> tuple[int, int] | None:
        if not self._table_exists(table):
            return None
        query = f"SELECT min(time_ns), max(time_ns) FROM {table}"  # noqa: S608 - ids in quotes
        [(first, last)] = self._file.fetch_all(query)
        return None if first is None else (first, last)

    async def ready(self) -> None:
        """Execute a trivial query."""
        await self._run_in(self._readers, self._file.fetch_all, "SELECT 1")

    def _has_samples(self, window: Window) -> bool:
        return bool(window.signals) and self._table_exists(
            SampleTable.for_stream(window.space, window.spec.address)
        )

    def _table_exists(self, table: SampleTable) -> bool:
        query = "SELECT 1 FROM duckdb_tables() WHERE schema_name = ? AND table_name = ?"
        if table not in self._tables and self._file.fetch_all(query, [*table]):
            self._tables.add(table)
        return table in self._tables

    async def _run_in(
        self, pool: ThreadPoolExecutor, call: Callable[..., _Result], *args: object
    ) -> _Result:
        """Run a call in a thread pool; if the caller is cancelled, the call still finishes."""
        with duckdb_file.translated_errors():
            return await asyncio.get_running_loop().run_in_executor(pool, call, *args)

    async def close(self) -> None:
        """Finish running calls, then close the file; called by `open`."""
        for pool in (self._writer, self._readers):
            await asyncio.to_thread(pool.shutdown)
        await asyncio.to_thread(self._file.close)


@asynccontextmanager
async def open(  # noqa: A001
    path: Path, *, most_bytes: int = 1024**3, threads: int = 2
) -> AsyncIterator[ArrayTexts]:
    """Open the store in the file at `path`, created if it does not exist.

    most_bytes: memory limit of DuckDB.  threads: cores that DuckDB uses.  Raises Taken if another
    process has the file open, Refused if its layout is an unknown version, Corrupt if it is not a
    DuckDB file.
    """
    file = duckdb_file.DuckDbFile(path, {"memory_limit": f"{most_bytes}B", "threads": threads})
    with duckdb_file.translated_errors():
        await asyncio.to_thread(file.initialise)
    store = DuckDbStore(file)
    try:
        yield ArrayTexts(store)
    finally:
        await store.close()


class _SignalRun(NamedTuple):
    """Samples of one signal.

    first, last: earliest and latest time in ns.  ascends: whether the times ascend strictly.
    """

    name: str
    dtype: Dtype
    series: Series
    first: int
    last: int
    ascends: bool

    @classmethod
    def from_series(cls, name: str, dtype: Dtype, series: Series) -> "_SignalRun":
        times = series.time_ns
        if len(times) == 1:  # frequent, thousands in a write: skip the array operations
            time_ns = int(times[0])
            return cls(name, dtype, series, time_ns, time_ns, ascends=True)
        ascends = bool(np.all(times[1:] > times[:-1]))
        return cls(name, dtype, series, int(times.min()), int(times.max()), ascends)


@dataclass(frozen=True, slots=True)
class _Insert:
    """The runs that one INSERT statement adds to one table.

    append_only: each run ascends, and begins after all stored samples of its signal.
    """

    table: SampleTable
    append_only: bool
    runs: list[_SignalRun] = field(default_factory=list)

    def names(self) -> list[str]:
        return list(dict.fromkeys(run.name for run in self.runs))

    def execute(self, cursor: duckdb.DuckDBPyConnection, at: int) -> None:
        """Insert the staged rows of this statement.  at: its index among those of the write."""
        parameters: dict[str, Any] = {"names": self.names(), "part": at}
        if not self.append_only:
            parameters["first"] = min(run.first for run in self.runs)
            parameters["last"] = max(run.last for run in self.runs)
        query = _APPEND if self.append_only else _INSERT_MISSING
        cursor.execute(query.format(table=self.table), parameters)


def _stage(cursor: duckdb.DuckDBPyConnection, inserts: Sequence[_Insert]) -> None:
    """Pass all samples of a write to DuckDB in one call, as columns: each call costs 1 ms."""
    runs = [
        (at, places[run.name], run)
        for at, insert in enumerate(inserts)
        for places in [{name: place for place, name in enumerate(insert.names(), start=1)}]
        for run in insert.runs
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


def _end_queries(window: Window, dtype: Dtype) -> Iterator[str]:
    """Queries of the ends of each span for one dtype: of good samples, then of the others."""
    wide = window.to_ns - window.from_ns >= 2**63
    since = "(time_ns::HUGEINT - $first)" if wide else "(time_ns - $first)"
    good = _BY_VALUE if dtype in frames.ORDERED else _BY_TIME
    for quality, ends in ((f"= {GOOD}", good), (f"<> {GOOD}", _BY_TIME)):
        columns = ends.format(v=_COLUMN[dtype])
        yield _statement(window, _ENDS, columns=columns, quality=quality, since=since)


def _window_query(part: Window, aggregation: Aggregation) -> str:
    """The query of one page of aggregated samples, with a column for each dtype of the values."""
    values: dict[str, list[str]] = {}
    for dtype in dict.fromkeys(part.spec.signal(name).dtype for name in part.signals):
        value = _AGGREGATES[aggregation.how].format(v=_COLUMN[dtype])
        values.setdefault(_COLUMN[aggregation.dtype(dtype)], []).append(value)
    columns = {
        column: ", ".join(
            f"{each} FILTER (WHERE quality = {code})"
            for code in (GOOD, UNCERTAIN)
            for each in expressions
        )
        for column, expressions in values.items()
    }
    quality = "min(quality)"
    if aggregation.how is Aggregate.MEAN:  # the sum of large values may be beyond float64
        quality = f"CASE WHEN isfinite(coalesce({columns['f']})) THEN min(quality) ELSE {BAD} END"
    return _statement(
        part,
        _WINDOWS,
        begin=_BEGIN,
        quality=quality,
        columns=", ".join(f"coalesce({text}) AS {column}" for column, text in columns.items()),
    )


def _end_samples(window: Window, rows: _Rows, names: Sequence[str], column: str, end: str) -> Long:
    """Samples at one end of each span.  end: "0" for the first or minimum, "1" for the other."""
    columns = {"place": rows["place"], "time_ns": rows["t" + end], "quality": rows["q" + end]}
    return _to_long(window, columns | {column: rows["v" + end]}, names)


def _to_long(window: Window, rows: _Rows, names: Sequence[str]) -> Long:
    """Rows of a query as a frame; the column `place` is the index in `names`, from 1."""
    spec = window.spec
    places = np.array([spec.names.index(name) for name in names], np.int32)
    signal = places[rows["place"] - 1]
    quality = np.asarray(rows["quality"], np.uint8)
    values = frames.empty_column(window, len(signal))
    for dtype, column in _COLUMN.items():
        if column in rows:
            of_dtype = [at for at, other in enumerate(spec.dtypes) if other is dtype]
            chosen = np.isin(signal, of_dtype)
            nothing: Any = NO_VALUE[dtype]
            cells = np.ma.filled(rows[column][chosen], nothing)
            cells[quality[chosen] == BAD] = nothing
            values[chosen] = cells if values.dtype == cells.dtype else cells.tolist()
    return frames.to_long(window, np.asarray(rows["time_ns"]), signal, values, quality)


def _page_size(window: Window) -> int:
    """Rows that one query reads of a window."""
    return max(PAGE // window.weight, 2)


def _place_of_last(window: Window, page: Long) -> int:
    """Index of the signal of the page's last sample among those of the window, from 1."""
    return _signals_in_order(window).index(page.names[int(page.signal[-1])]) + 1


def _parameters(window: Window) -> dict[str, Any]:
    return {"names": _signals_in_order(window), "first": window.from_ns, "end": window.to_ns}


def _signals_in_order(window: Window) -> list[str]:
    return [name for name in window.spec.names if name in window.signals]


def _statement(window: Window, template: str, **clauses: str) -> str:
    table = SampleTable.for_stream(window.space, window.spec.address)
    return template.format(table=table, in_window=_IN_WINDOW, **clauses)
