"""Stores samples in InfluxDB 2.7: writes line protocol, reads with InfluxQL, thins with Flux.

Each organisation has a bucket of its own (`influxdb_buckets`).  The measurement is the stream's
address, with the tag `space` and fields as in `line_protocol`.  A sample written twice is stored
once, because InfluxDB overwrites a point with the same series and time stamp; of samples with the
same identity and different qualities the worst is read.  Ids, spaces and signal names contain no
quote and no backslash, so they cannot break out of a quoted string in a query.
"""

import asyncio
import csv
import re
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from broker import tls
from broker.aggregation import Aggregate, Aggregation
from broker.batch import BAD, GOOD, NO_VALUE, UNCERTAIN, Long
from broker.errors import BedError, Forbidden, Invalid, Partial, Refused, Unavailable, Unknown
from broker.http_library import httpx
from broker.namespace import StreamAddress
from broker.streams import Dtype
from testbed_api.stores import frames, influxdb_http, line_protocol, side_by_side
from testbed_api.stores.array_texts import ArrayTexts
from testbed_api.stores.coalescing import ThinQueryCoalescer
from testbed_api.stores.influxdb_buckets import LAYOUT, Buckets, position_line
from testbed_api.stores.influxdb_http import EARLIEST_NS, LATEST_NS, flux_string
from testbed_api.stores.port import Block, Position, Window
from testbed_api.stores.side_by_side import SideWrite

CHUNK_CELLS = 50_000
"""Approximate number of values in one chunk of an answer."""

_TOKEN = re.compile(r"[!-~]{1,1000}")

PARALLEL_WRITES = 3
"""Organisations written concurrently; more cost half as much again and are not faster."""

_READERS: dict[Dtype, Any] = {
    Dtype.FLOAT64: float,
    Dtype.INT64: int,
    Dtype.BOOL: lambda text: text == "true",
}
"""Parsers of values in Flux's CSV, by dtype."""

_Field = tuple[str, int]
"""Signal and quality."""
_IndexedBlock = tuple[int, Block]
"""Index of a block in one write, and the block."""
_RejectedBlocks = list[tuple[int, str]]
"""Indexes of blocks that InfluxDB will never accept, with the reasons."""


class InfluxDbStore:
    """A `SeriesStore` in InfluxDB, with one bucket per organisation."""

    def __init__(self, client: influxdb_http.InfluxDbClient, buckets: Buckets) -> None:
        """Use `open` instead."""
        self._client = client
        self._buckets = buckets
        self._coalescer = ThinQueryCoalescer(self._thinned)

    async def write(self, blocks: Sequence[Block], position: Position | None = None) -> None:
        """Write all lines, in few requests per organisation; the position is the last of its lines.

        If writing fails for an organisation while the mark of the base bucket can be written, the
        cause is that organisation's bucket or samples, and not the store.
        """
        by_organisation: dict[str, list[_IndexedBlock]] = {}
        for indexed in enumerate(blocks):
            by_organisation.setdefault(indexed[1].spec.address.organisation, []).append(indexed)
        rejected, failed = await self._write_each(by_organisation, position)
        if failed:
            await self._buckets.write_mark()
        if rejected or failed:
            later = [
                (at, str(exc)) for name, exc in failed.items() for at, _ in by_organisation[name]
            ]
            message = f"InfluxDB refused {len(rejected)} of {len(blocks)} blocks"
            for name, exc in failed.items():
                message += f"; it accepts nothing of {name}: {exc.message}"
            raise Partial(message, rejected=sorted(rejected), later=sorted(later))

    async def _write_each(
        self, by_organisation: Mapping[str, Sequence[_IndexedBlock]], position: Position | None
    ) -> tuple[_RejectedBlocks, dict[str, BedError]]:
        """Write the blocks of each organisation.

        Returns the rejected blocks, and the errors of organisations that could not be written.
        """
        rejected: _RejectedBlocks = []
        failed: dict[str, BedError] = {}

        async def write(organisation: str) -> bool:
            try:
                bucket = await self._buckets.get_or_create(organisation)
                writing = self._write(bucket, by_organisation[organisation], position)
                refused = [pair async for pair in writing]
                if refused and position is not None:  # its line may be refused with theirs
                    await self._client.write(bucket, position_line(position))
                rejected.extend(refused)
            except Unknown as exc:  # the bucket was deleted: it is looked at before it is made anew
                self._buckets.forget(organisation)
                failed[organisation] = exc
            except (Unavailable, Refused) as exc:
                failed[organisation] = exc
            return organisation not in failed

        writes = {
            organisation: SideWrite(
                partial(write, organisation),
                side_by_side.patience_s(sum(len(block) for _, block in indexed)),
            )
            for organisation, indexed in by_organisation.items()
        }
        given_up = await side_by_side.write_all(writes, parallel=PARALLEL_WRITES)
        return rejected, failed | dict(given_up)

    async def _write(
        self, bucket: str, blocks: Sequence[_IndexedBlock], position: Position | None
    ) -> AsyncIterator[tuple[int, str]]:
        """Write blocks to one bucket, and yield those that InfluxDB refuses, found by bisection."""
        lines = [block for _, block in blocks]
        end = b"" if position is None else position_line(position)
        try:
            bodies = await asyncio.to_thread(lambda: list(line_protocol.bodies(lines)))
            for body in [*bodies[:-1], bodies[-1] + end] if bodies else ():
                await self._client.write(bucket, body)
        except Invalid as exc:
            if len(blocks) == 1:
                yield blocks[0][0], exc.message
                return
            half = len(blocks) // 2
            for part in (blocks[:half], blocks[half:]):
                async for refused in self._write(bucket, part, position):
                    yield refused

    async def read(self, window: Window) -> AsyncIterator[Long]:
        """Read rows with InfluxQL, each with all fields of one time stamp."""
        bucket, fields = await self._fields(window)
        if not fields:
            return
        columns = ", ".join(f'"{line_protocol.field(*signal)}"::field' for signal in fields)
        chunk = max(CHUNK_CELLS // (len(fields) * window.weight), 1)
        selected = self._client.select_chunks(bucket, _select(columns, window), chunk)
        async with selected as lines:
            async for line in lines:
                for frame in await asyncio.to_thread(_parse_chunk, line, fields, window):
                    yield frame

    async def thin(self, window: Window, points: int) -> AsyncIterator[Long]:
        """Read the ends of each span with Flux.

        A sample that was sent again with a worse quality may still be shown with the better one.
        """
        for frame in frames.split(await self._coalescer.thin(window, points)):
            yield frame

    async def _thinned(self, window: Window, points: int) -> Long:
        """Query a thinned window; strings are thinned here, because Flux drops empty ones."""
        bucket, fields = await self._fields(window)
        occupied = await self._occupied(window, bucket) if fields else None
        ends = [] if occupied is None else await self._ends(occupied, points, bucket, fields)
        return await asyncio.to_thread(frames.thinned, occupied or window, points, ends)

    async def _ends(
        self, window: Window, points: int, bucket: str, fields: Sequence[_Field]
    ) -> list[Long]:
        """The samples at the ends of each span; of texts the thinned ones."""
        spec = window.spec
        texts = [name for name in window.signals if spec.signal(name).dtype is Dtype.STRING]
        ends: list[Long] = []
        async for frame in self.read(replace(window, signals=tuple(texts))):
            ends = [frames.thinned(window, points, [*ends, frame])]
        if others := [field for field in fields if field[0] not in texts]:
            answer = await self._client.flux(_end_query(others, window, bucket, points))
            ends += await asyncio.to_thread(_parse_csv, answer, others, window)
        return ends

    async def _occupied(self, window: Window, bucket: str) -> Window | None:
        """The window from the first to the last sample of the stream in it, None without any."""
        rows = _select("*", window)
        ends = "; ".join(f"{rows} ORDER BY time {order} LIMIT 1" for order in ("ASC", "DESC"))
        times = [time_ns for time_ns, *_ in await self._client.select(bucket, ends)]
        return frames.occupied(window, min(times), max(times)) if times else None

    async def aggregate(self, window: Window, aggregation: Aggregation) -> AsyncIterator[Long]:
        """Aggregate with InfluxQL, which sends window by window; Flux would send signal by signal.

        A sample that was sent again with a worse quality may still count with the better one.
        """
        aggregation.check(window.spec, window.signals, window.from_ns)
        bucket, fields = await self._fields(window)
        if not fields:
            return
        columns = ", ".join(_aggregate_column(*field, aggregation.how) for field in fields)
        query = _select(columns, window) + f" GROUP BY time({aggregation.every_ns}ns) fill(none)"
        result = replace(window, spec=aggregation.spec(window.spec))
        chunk = max(CHUNK_CELLS // (len(fields) * window.weight), 1)
        async with self._client.select_chunks(bucket, query, chunk) as lines:
            async for line in lines:
                parsed = await asyncio.to_thread(_parse_chunk, line, fields, result, best=True)
                for frame in parsed:
                    yield frame

    async def delete(self, space: str, stream: StreamAddress, from_ns: int, to_ns: int) -> None:
        """Delete by measurement and tag; the end of a span is included in InfluxDB."""
        first_ns, last_ns = max(from_ns, EARLIEST_NS), min(to_ns - 1, LATEST_NS)
        bucket = await self._buckets.find(stream.organisation)
        if first_ns <= last_ns and bucket is not None:
            predicate = f'_measurement="{stream}" AND space="{space}"'
            try:
                await self._client.delete(bucket, predicate, (first_ns, last_ns))
            except Unknown:  # the bucket was deleted
                self._buckets.forget(stream.organisation)

    async def positions(self, organisations: Collection[str]) -> Mapping[str, Position]:
        """Read the position in the bucket of each organisation."""
        positions = {}
        for name in organisations:
            try:
                position = await self._buckets.position(name)
            except Forbidden:  # whether there is one, nobody knows
                raise
            except Refused:  # it is another testbed's bucket: a write will say so
                continue
            if position is not None:
                positions[name] = position
        return positions

    async def extent(self, space: str, stream: StreamAddress) -> tuple[int, int] | None:
        """Read the first and the last row of the measurement."""
        bucket = await self._buckets.find(stream.organisation)
        rows = f'SELECT * FROM "{stream}" WHERE "space"::tag = \'{space}\' ORDER BY time'  # noqa: S608
        query = f"{rows} ASC LIMIT 1; {rows} DESC LIMIT 1"
        try:
            ends = [] if bucket is None else await self._client.select(bucket, query)
        except Unknown:  # the bucket was deleted
            self._buckets.forget(stream.organisation)
            return None
        return (ends[0][0], ends[-1][0]) if ends else None

    async def ready(self) -> None:
        """Request the health of influxd."""
        await self._client.request("GET", "/health")

    async def _fields(self, window: Window) -> tuple[str, list[_Field]]:
        """The bucket of the window, and the fields of its signals that exist there."""
        bucket = await self._buckets.find(window.spec.address.organisation)
        if bucket is None or not window.signals:
            return "", []
        query = f'SHOW FIELD KEYS FROM "{window.spec.address}"'
        try:
            known = {name for name, _ in await self._client.select(bucket, query)}
        except Unknown:  # the bucket was deleted
            self._buckets.forget(window.spec.address.organisation)
            return "", []
        names = [name for name in window.spec.names if name in window.signals]
        every = [(name, quality) for name in names for quality in (GOOD, UNCERTAIN, BAD)]
        return bucket, [field for field in every if line_protocol.field(*field) in known]


@asynccontextmanager
async def open(  # noqa: A001
    url: str,
    *,
    token: str,
    organisation: str,
    bucket: str,
    ca: Path | None = None,
    timeout_s: float = 30.0,
) -> AsyncIterator[ArrayTexts]:
    """Open the store with the base bucket `bucket`, created if it does not exist.

    url: http://host:port, or https://.  organisation: the one in InfluxDB.  ca: PEM file of the
    authority that issued InfluxDB's certificate, None for the system's authorities.  timeout_s: of
    each request.  Raises Unavailable if InfluxDB is away, Forbidden if the token is not sufficient,
    Unknown if the organisation does not exist, Refused if the layout in the bucket is an unknown
    version.
    """
    headers = {"Authorization": f"Token {token}", "Accept-Encoding": "identity"}
    if ca is not None and not url.startswith("https:"):
        raise Invalid(
            f"TESTBED_STORE_CA is set, and {url} would be reached without TLS",
            hint="write influxdb+https:// into TESTBED_STORE, or take TESTBED_STORE_CA out",
        )
    if not _TOKEN.fullmatch(token):
        raise Invalid(
            "the token for InfluxDB is not one",
            hint="TESTBED_STORE_TOKEN is one line, without spaces",
        )
    trust = await asyncio.to_thread(tls.context_for, url, ca, setting="TESTBED_STORE_CA")
    try:
        http = httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout_s, verify=trust)
    except httpx.InvalidURL as exc:
        raise Invalid(f"{url!r} is not a URL: {exc}", hint="write http://host:port") from exc
    async with http:
        client = influxdb_http.InfluxDbClient(http, organisation)
        buckets = Buckets(client, bucket)
        await _initialise(buckets)
        yield ArrayTexts(InfluxDbStore(client, buckets))


async def _initialise(buckets: Buckets) -> None:
    """Create and mark the base bucket.

    Raises Refused if its layout is an unknown version, or it is an organisation's bucket.
    """
    if not await buckets.exists(buckets.base):
        await buckets.create(buckets.base)
    mark = await buckets.read_mark(buckets.base)
    if mark.version not in {None, LAYOUT}:
        raise Refused(
            f"the bucket {buckets.base} has layout {mark.version}, this version reads {LAYOUT}",
            hint="use the version that wrote it, or another bucket",
        )
    if mark.base is not None:
        raise Refused(
            f"the bucket {buckets.base} is an organisation's of the testbed in {mark.base}",
            hint="name another bucket in TESTBED_STORE",
        )
    if mark.version is None:
        await buckets.write_mark()


def _select(columns: str, window: Window) -> str:
    """The InfluxQL query of some columns of a window."""
    return (
        f'SELECT {columns} FROM "{window.spec.address}" WHERE "space"::tag = \'{window.space}\''  # noqa: S608
        f" AND time >= {window.from_ns} AND time < {window.to_ns}"
    )


def _aggregate_column(name: str, quality: int, how: Aggregate) -> str:
    """The InfluxQL of a field's value in a window; of bad samples it says that there are some."""
    if quality == BAD:
        how = Aggregate.LAST
    kind = "float" if how is Aggregate.MEAN else "field"  # a sum of int64 may not fit into one
    return f'{how}("{line_protocol.field(name, quality)}"::{kind})'


def _parse_chunk(
    line: bytes, fields: Sequence[_Field], window: Window, *, best: bool = False
) -> list[Long]:
    """Parse rows [time, field, …] as frames; fields: of each signal from best to worst quality.

    A sample gets the worst of its qualities, or the best.
    """
    rows = influxdb_http.rows(line)
    if not rows:
        return []
    times, *columns = zip(*rows, strict=True)
    time_ns = np.array(times, np.int64)
    nothing = np.uint8(255)
    by_signal: dict[str, tuple[Any, Any]] = {}
    ascending = list(zip(fields, columns, strict=True))
    for (name, code), cells in ascending[::-1] if best else ascending:  # the last one stays
        values, quality = by_signal.setdefault(
            name, (np.empty(len(rows), np.object_), np.full(len(rows), nothing))
        )
        present = np.array([cell is not None for cell in cells])
        values[present] = np.array(cells, np.object_)[present]
        quality[present] = code
    parts = []
    for name, (values, quality) in by_signal.items():
        present = quality != nothing
        parts.append(_samples(window, name, time_ns[present], values[present], quality[present]))
    return list(frames.split(frames.merged(window, parts)))


def _samples(window: Window, name: str, time_ns: Any, values: Any, quality: Any) -> Long:
    """Samples of one signal as a frame.  values: Python objects; ignored for bad samples."""
    dtype = window.spec.signal(name).dtype
    values[quality == BAD] = NO_VALUE[dtype]
    column = frames.empty_column(window, len(values))
    column[:] = [float(value) for value in values] if dtype is Dtype.FLOAT64 else values
    signal = np.full(len(values), window.spec.names.index(name), np.int32)
    return frames.to_long(window, time_ns, signal, column, quality)


def _end_query(fields: Sequence[_Field], window: Window, bucket: str, points: int) -> str:
    """The Flux query of both ends of each span, for each group of fields of one dtype and order."""
    groups: dict[tuple[Dtype, bool], list[str]] = {}
    for name, quality in fields:
        dtype = Dtype.BOOL if quality == BAD else window.spec.signal(name).dtype
        by_value = quality == GOOD and dtype in frames.ORDERED
        groups.setdefault((dtype, by_value), []).append(line_protocol.field(name, quality))
    source = (  # repeated in each pipe: influxd pushes down into its storage only unshared pipes
        f"from(bucket: {flux_string(bucket)})"
        f" |> range(start: time(v: {window.from_ns}), stop: time(v: {window.to_ns}))"
        f' |> filter(fn: (r) => r._measurement == "{window.spec.address}")'
        f' |> filter(fn: (r) => r.space == "{window.space}")'
    )
    span_ns = frames.span_ns(window, points)
    whole = points < 4  # one span; its length may exceed the durations of Flux
    spans = "" if whole else f"|> window(every: {span_ns}ns, offset: {window.from_ns % span_ns}ns)"
    text: list[str] = []
    for number, ((_, by_value), names) in enumerate(groups.items()):
        wanted = " or ".join(f'r._field == "{name}"' for name in names)
        text += (
            f"{source} |> filter(fn: (r) => {wanted}) {spans} |> {end}() |> group()"
            f' |> keep(columns: ["_field", "_time", "_value"]) |> yield(name: "{number} {end}")'
            for end in (("min", "max") if by_value else ("first", "last"))
        )
    return "\n".join(text)


def _parse_csv(text: str, fields: Sequence[_Field], window: Window) -> list[Long]:
    """Parse the samples in Flux's answer; each table in it has a header of its own."""
    known = {line_protocol.field(*signal): signal for signal in fields}
    ends: dict[str, tuple[list[str], list[str]]] = {name: ([], []) for name in known}
    field = time = value = 0
    for row in csv.reader(text.splitlines()):
        if row[1:3] == ["result", "table"]:
            field, time, value = map(row.index, ("_field", "_time", "_value"))
        elif row:
            times, values = ends[row[field]]
            times.append(row[time].removesuffix("Z"))  # numpy knows UTC only
            values.append(row[value])
    return [
        _end_samples(window, *known[name], *columns) for name, columns in ends.items() if columns[0]
    ]


def _end_samples(
    window: Window, name: str, quality: int, times: Sequence[str], values: Sequence[str]
) -> Long:
    read = _READERS[Dtype.BOOL if quality == BAD else window.spec.signal(name).dtype]
    time_ns = np.array(times, "datetime64[ns]").astype(np.int64)
    codes = np.full(len(times), quality, np.uint8)
    return _samples(window, name, time_ns, np.array([*map(read, values)], np.object_), codes)
