"""InfluxDB 2.7: written in bulk as line protocol, read in chunks with InfluxQL, thinned by Flux.

Each organisation has a bucket of its own (`influxdb_buckets`).  Measurement = the stream's address,
tag `space`, fields as in `line_protocol`.  Sent twice is stored
once by InfluxDB's own rule: same series and time stamp, the later write wins; of samples with one
identity and different qualities the worst is read.  Ids, spaces and signal names hold no quote and
no backslash, so nothing leaves its quotes in a query.
"""

import asyncio
import csv
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from broker import tls
from broker.batch import BAD, GOOD, NO_VALUE, UNCERTAIN, Long
from broker.errors import BedError, Invalid, Partial, Refused, Unavailable, Unknown
from broker.namespace import StreamAddress
from broker.streams import Dtype
from testbed_api.stores import frames, influxdb_http, line_protocol
from testbed_api.stores.coalescing import Sharing
from testbed_api.stores.influxdb_buckets import LAYOUT, Buckets
from testbed_api.stores.influxdb_http import EARLIEST_NS, LATEST_NS, quoted
from testbed_api.stores.port import Block, Window

CHUNK_CELLS = 50_000
"""Values that influxd sends at a time, about."""

SIDE_BY_SIDE = 3
"""Organisations written at a time: more of them cost half as much again, and are no sooner done."""

_READERS: dict[Dtype, Any] = {
    Dtype.FLOAT64: float,
    Dtype.INT64: int,
    Dtype.BOOL: lambda text: text == "true",
}
"""How a value is read from Flux's CSV."""

_Field = tuple[str, int]
"""Signal and quality."""
_Numbered = tuple[int, Block]
"""A block, and its place among those of one write."""
_Rejected = list[tuple[int, str]]
"""Places of blocks that InfluxDB will never take, with the reasons."""


class InfluxDbStore:
    """A `SeriesStore` over a bucket an organisation."""

    def __init__(self, server: influxdb_http.Server, buckets: Buckets) -> None:
        """Made by `open`."""
        self._server = server
        self._buckets = buckets
        self._sharing = Sharing(self._thinned)

    async def write(self, blocks: Sequence[Block]) -> None:
        """All lines in few requests an organisation.

        What fails while a mark can be written is that organisation's trouble, not the store's.
        """
        mine: dict[str, list[_Numbered]] = {}
        for numbered in enumerate(blocks):
            mine.setdefault(numbered[1].spec.address.organisation, []).append(numbered)
        rejected, failed = await self._each(mine)
        if failed:
            if len(failed) == len(mine) and all(_is_away(one) for one in failed.values()):
                raise next(iter(failed.values()))
            await self._buckets.mark()
            again, failed = await self._each({one: mine[one] for one in failed})
            rejected += again
        if rejected or failed:
            later = [(at, str(exc)) for one, exc in failed.items() for at, _ in mine[one]]
            message = f"InfluxDB refused {len(rejected)} of {len(blocks)} blocks"
            for one, exc in failed.items():
                message += f"; of {one} it takes nothing: {exc.message}"
            raise Partial(message, rejected=sorted(rejected), later=sorted(later))

    async def _each(
        self, mine: Mapping[str, Sequence[_Numbered]]
    ) -> tuple[_Rejected, dict[str, BedError]]:
        """Write each organisation's: what was rejected, and whose could not be written."""
        rejected: _Rejected = []
        failed: dict[str, BedError] = {}
        turn = asyncio.Semaphore(SIDE_BY_SIDE)

        async def write(organisation: str) -> None:
            try:
                async with turn:
                    bucket = await self._buckets.made(organisation)
                    rejected.extend([one async for one in self._write(bucket, mine[organisation])])
            except Unknown as exc:  # somebody dropped it: the next time it is made anew
                self._buckets.forget(organisation)
                failed[organisation] = exc
            except (Unavailable, Refused) as exc:
                failed[organisation] = exc

        async with asyncio.TaskGroup() as tasks:
            for organisation in mine:
                tasks.create_task(write(organisation), name=f"write {organisation}")
        return rejected, failed

    async def _write(
        self, bucket: str, blocks: Sequence[_Numbered]
    ) -> AsyncIterator[tuple[int, str]]:
        """Write blocks into one bucket; where InfluxDB refuses, by halves, to find the block."""
        lines = [block for _, block in blocks]
        try:
            for body in await asyncio.to_thread(lambda: list(line_protocol.bodies(lines))):
                await self._server.write(bucket, body)
        except Invalid as exc:
            if len(blocks) == 1:
                yield blocks[0][0], exc.message
                return
            half = len(blocks) // 2
            for part in (blocks[:half], blocks[half:]):
                async for one in self._write(bucket, part):
                    yield one

    async def read(self, window: Window) -> AsyncIterator[Long]:
        """Rows as InfluxQL merges them, each with the fields of one time stamp."""
        bucket, fields = await self._fields(window)
        if not fields:
            return
        columns = ", ".join(f'"{line_protocol.field(*one)}"::field' for one in fields)
        query = (
            f'SELECT {columns} FROM "{window.spec.address}" WHERE "space"::tag = \'{window.space}\''  # noqa: S608
            f" AND time >= {window.from_ns} AND time < {window.to_ns}"
        )
        chunk = max(CHUNK_CELLS // len(fields), 1)
        async with self._server.selecting(bucket, query, chunk) as lines:
            async for line in lines:
                for frame in await asyncio.to_thread(_chunk, line, fields, window):
                    yield frame

    async def thin(self, window: Window, points: int) -> AsyncIterator[Long]:
        """The ends of each span, found by influxd; one sent again as worse may still be shown."""
        for frame in frames.cut(await self._sharing.thinned(window, points)):
            yield frame

    async def _thinned(self, window: Window, points: int) -> Long:
        """Strings are thinned here: Flux takes an empty one for none."""
        texts = [one for one in window.signals if window.spec.signal(one).dtype is Dtype.STRING]
        ends: list[Long] = []
        async for frame in self.read(replace(window, signals=tuple(texts))):
            ends = [frames.thinned(window, points, [*ends, frame])]
        bucket, every = await self._fields(window)
        if fields := [one for one in every if one[0] not in texts]:
            found = await self._server.flux(_flux(fields, window, bucket, points))
            ends += await asyncio.to_thread(_of_csv, found, fields, window)
        return await asyncio.to_thread(frames.thinned, window, points, ends)

    async def delete(self, space: str, stream: StreamAddress, from_ns: int, to_ns: int) -> None:
        """Delete by measurement and tag; InfluxDB counts the end of the span in."""
        first_ns, last_ns = max(from_ns, EARLIEST_NS), min(to_ns - 1, LATEST_NS)
        bucket = await self._buckets.of(stream.organisation)
        if first_ns <= last_ns and bucket is not None:
            predicate = f'_measurement="{stream}" AND space="{space}"'
            try:
                await self._server.delete(bucket, predicate, (first_ns, last_ns))
            except Unknown:  # somebody dropped the bucket
                self._buckets.forget(stream.organisation)

    async def ready(self) -> None:
        """Ask for its health."""
        await self._server.ask("GET", "/health")

    async def _fields(self, window: Window) -> tuple[str, list[_Field]]:
        """The bucket, and the fields in it that there are of the signals asked for."""
        bucket = await self._buckets.of(window.spec.address.organisation)
        if bucket is None or not window.signals:
            return "", []
        query = f'SHOW FIELD KEYS FROM "{window.spec.address}"'
        try:
            known = {name for name, _ in await self._server.select(bucket, query)}
        except Unknown:  # somebody dropped it
            self._buckets.forget(window.spec.address.organisation)
            return "", []
        asked = [name for name in window.spec.names if name in window.signals]
        every = [(name, quality) for name in asked for quality in (GOOD, UNCERTAIN, BAD)]
        return bucket, [one for one in every if line_protocol.field(*one) in known]


@asynccontextmanager
async def open(  # noqa: A001
    url: str,
    *,
    token: str,
    organisation: str,
    bucket: str,
    ca: Path | None = None,
    timeout_s: float = 30.0,
) -> AsyncIterator[InfluxDbStore]:
    """The store in `bucket`, made if it is not there, and one more for each organisation.

    url: http://host:port, or https://.  ca: whose certificates are believed there, None for those
    that the system believes.  organisation: InfluxDB's.  Raises Unavailable if InfluxDB is away,
    Forbidden if the token does not do, Unknown if there is no such organisation, Refused if the
    layout in the bucket is an unknown version.
    """
    headers = {"Authorization": f"Token {token}", "Accept-Encoding": "identity"}
    if ca is not None and not url.startswith("https:"):
        raise Invalid(
            f"TESTBED_STORE_CA is set, and {url} would be reached without TLS",
            hint="write influxdb+https:// into TESTBED_STORE, or take TESTBED_STORE_CA out",
        )
    trust = await asyncio.to_thread(tls.client_context, ca, setting="TESTBED_STORE_CA")
    try:
        http = httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout_s, verify=trust)
    except httpx.InvalidURL as exc:
        raise Invalid(f"{url!r} is not a URL: {exc}", hint="write http://host:port") from exc
    async with http:
        server = influxdb_http.Server(http, organisation)
        buckets = Buckets(server, bucket)
        await _bring_up(buckets)
        yield InfluxDbStore(server, buckets)


async def _bring_up(buckets: Buckets) -> None:
    """Make the bucket and mark it; raises Refused if its layout is an unknown version."""
    if not await buckets.is_there(buckets.base):
        await buckets.make(buckets.base)
    mark = await buckets.mark_of(buckets.base)
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
        await buckets.mark()


def _is_away(exc: BedError) -> bool:
    """Whether it may be the whole store that is away."""
    return isinstance(exc, Unavailable)


def _chunk(line: bytes, fields: Sequence[_Field], window: Window) -> list[Long]:
    """Rows [time, field, …] as frames; of the qualities of one sample the worst."""
    rows = influxdb_http.rows(line)
    if not rows:
        return []
    times, *columns = zip(*rows, strict=True)
    time_ns = np.array(times, np.int64)
    nothing = np.uint8(255)
    found: dict[str, tuple[Any, Any]] = {}
    for (name, code), cells in zip(
        fields, columns, strict=True
    ):  # each signal's from best to worst
        values, quality = found.setdefault(
            name, (np.empty(len(rows), np.object_), np.full(len(rows), nothing))
        )
        there = np.array([cell is not None for cell in cells])
        values[there] = np.array(cells, np.object_)[there]
        quality[there] = code
    parts = []
    for name, (values, quality) in found.items():
        there = quality != nothing
        parts.append(_samples(window, name, time_ns[there], values[there], quality[there]))
    return list(frames.cut(frames.joined(window, parts)))


def _samples(window: Window, name: str, time_ns: Any, values: Any, quality: Any) -> Long:
    """Samples of one signal; `values` are Python's, and anything where there is none."""
    dtype = window.spec.signal(name).dtype
    values[quality == BAD] = NO_VALUE[dtype]
    column = frames.column(window, len(values))
    column[:] = [float(value) for value in values] if dtype is Dtype.FLOAT64 else values
    signal = np.full(len(values), window.spec.names.index(name), np.int32)
    return frames.of(window, time_ns, signal, column, quality)


def _flux(fields: Sequence[_Field], window: Window, bucket: str, points: int) -> str:
    """The two ends of each span, for each group of fields with one type and one order."""
    groups: dict[tuple[Dtype, bool], list[str]] = {}
    for name, quality in fields:
        dtype = Dtype.BOOL if quality == BAD else window.spec.signal(name).dtype
        by_value = quality == GOOD and dtype in frames.ORDERED
        groups.setdefault((dtype, by_value), []).append(line_protocol.field(name, quality))
    source = (  # in each pipe anew: influxd thins inside its storage only what no other pipe shares
        f"from(bucket: {quoted(bucket)})"
        f" |> range(start: time(v: {window.from_ns}), stop: time(v: {window.to_ns}))"
        f' |> filter(fn: (r) => r._measurement == "{window.spec.address}")'
        f' |> filter(fn: (r) => r.space == "{window.space}")'
    )
    span_ns = frames.span_ns(window, points)
    whole = points < 4  # one span, whose length a duration of Flux may not hold
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


def _of_csv(text: str, fields: Sequence[_Field], window: Window) -> list[Long]:
    """The samples in Flux's answer; each table in it has a header of its own."""
    known = {line_protocol.field(*one): one for one in fields}
    found: dict[str, tuple[list[str], list[str]]] = {name: ([], []) for name in known}
    field = time = value = 0
    for row in csv.reader(text.splitlines()):
        if row[1:3] == ["result", "table"]:
            field, time, value = map(row.index, ("_field", "_time", "_value"))
        elif row:
            times, values = found[row[field]]
            times.append(row[time].removesuffix("Z"))  # numpy has UTC alone
            values.append(row[value])
    return [_end(window, *known[name], *ends) for name, ends in found.items() if ends[0]]


def _end(
    window: Window, name: str, quality: int, times: Sequence[str], values: Sequence[str]
) -> Long:
    read = _READERS[Dtype.BOOL if quality == BAD else window.spec.signal(name).dtype]
    time_ns = np.array(times, "datetime64[ns]").astype(np.int64)
    codes = np.full(len(times), quality, np.uint8)
    return _samples(window, name, time_ns, np.array([*map(read, values)], np.object_), codes)
