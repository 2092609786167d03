"""InfluxDB 2.7: written in bulk as line protocol, read in chunks with InfluxQL, thinned by Flux.

Measurement = the stream's address, tag `space`, fields as in `line_protocol`.  Sent twice is stored
once by InfluxDB's own rule: same series and time stamp, the later write wins; of samples with one
identity and different qualities the worst is read.  Ids, spaces and signal names hold no quote and
no backslash, so nothing leaves its quotes in a query.
"""

import asyncio
import csv
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson

from broker import clock, tls
from broker.batch import BAD, GOOD, NO_VALUE, UNCERTAIN, Long
from broker.errors import BedError, Forbidden, Invalid, Partial, Refused, Unavailable, Unknown
from broker.namespace import StreamAddress
from broker.streams import Dtype
from testbed_api.stores import frames, line_protocol
from testbed_api.stores.port import Block, Window
from testbed_api.stores.sharing import Sharing

LAYOUT = 1
"""How samples stand in a bucket; a point of the measurement `layout` says which one it has."""
EARLIEST_NS, LATEST_NS = -(2**63) + 2, 2**63 - 2
"""The first and the last instant that InfluxDB knows."""

CHUNK_CELLS = 50_000
"""Values that influxd sends at a time, about."""

_REFUSED = frozenset({400, 413, 422})
_READERS: dict[Dtype, Any] = {
    Dtype.FLOAT64: float,
    Dtype.INT64: int,
    Dtype.BOOL: lambda text: text == "true",
}
"""How a value is read from Flux's CSV."""

_Field = tuple[str, int]
"""Signal and quality."""


class InfluxDbStore:
    """A `SeriesStore` over one bucket."""

    def __init__(self, http: httpx.AsyncClient, organisation: str, bucket: str) -> None:
        """Made by `open`."""
        self._http = http
        self._organisation = organisation
        self._bucket = bucket
        self._sharing = Sharing(self._thinned)

    async def write(self, blocks: Sequence[Block]) -> None:
        """All lines in few requests; where InfluxDB refuses, by halves, to find the block."""
        rejected = [one async for one in self._write(blocks, 0)]
        if rejected:
            raise Partial(
                f"InfluxDB refused {len(rejected)} of {len(blocks)} blocks", rejected=rejected
            )

    async def _write(self, blocks: Sequence[Block], at: int) -> AsyncIterator[tuple[int, str]]:
        """Write the blocks, the first of which is number `at`; what is refused is given back."""
        params = {"org": self._organisation, "bucket": self._bucket, "precision": "ns"}
        try:
            for body in await asyncio.to_thread(lambda: list(line_protocol.bodies(blocks))):
                await _ask(self._http, "POST", "/api/v2/write", params=params, content=body)
        except Invalid as exc:
            if len(blocks) == 1:
                yield at, exc.message
                return
            half = len(blocks) // 2
            for part, start in ((blocks[:half], at), (blocks[half:], at + half)):
                async for one in self._write(part, start):
                    yield one

    async def read(self, window: Window) -> AsyncIterator[Long]:
        """Rows as InfluxQL merges them, each with the fields of one time stamp."""
        fields = await self._fields(window)
        if not fields:
            return
        columns = ", ".join(f'"{line_protocol.field(*one)}"::field' for one in fields)
        query = (
            f'SELECT {columns} FROM "{window.spec.address}" WHERE "space"::tag = \'{window.space}\''  # noqa: S608
            f" AND time >= {window.from_ns} AND time < {window.to_ns}"
        )
        chunk = max(CHUNK_CELLS // len(fields), 1)
        form = self._influxql(query) | {"chunked": "true", "chunk_size": str(chunk)}
        with _translated(self._http):
            async with self._http.stream("POST", "/query", data=form) as answer:
                if answer.is_error:
                    raise _of_status(answer.status_code, await answer.aread())
                async for line in _lines(answer):
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
        fields = [one for one in await self._fields(window) if one[0] not in texts]
        if fields:
            ends += await self._ends(fields, window, points)
        return await asyncio.to_thread(frames.thinned, window, points, ends)

    async def _ends(self, fields: Sequence[_Field], window: Window, points: int) -> list[Long]:
        params = {"org": self._organisation}
        document = {
            "query": _flux(fields, window, self._bucket, points),
            "dialect": {"header": True, "annotations": []},
        }
        answer = await _ask(self._http, "POST", "/api/v2/query", params=params, json=document)
        return await asyncio.to_thread(_of_csv, answer.text, fields, window)

    async def delete(self, space: str, stream: StreamAddress, from_ns: int, to_ns: int) -> None:
        """Delete by measurement and tag; InfluxDB counts the end of the span in."""
        first_ns, last_ns = max(from_ns, EARLIEST_NS), min(to_ns - 1, LATEST_NS)
        if first_ns > last_ns:
            return
        body = {
            "start": clock.text_of(first_ns),
            "stop": clock.text_of(last_ns),
            "predicate": f'_measurement="{stream}" AND space="{space}"',
        }
        params = {"org": self._organisation, "bucket": self._bucket}
        await _ask(self._http, "POST", "/api/v2/delete", params=params, json=body)

    async def check_layout(self) -> None:
        """Mark a bucket that is not marked; raises Refused if its layout is of another version."""
        answer = await _ask(
            self._http,
            "POST",
            "/query",
            data=self._influxql('SELECT last("version") FROM "layout"'),
        )
        with _translated(self._http):
            found = [version for _, version in _rows(answer.content)]
        if not found:
            params = {"org": self._organisation, "bucket": self._bucket}
            line = f"layout version={LAYOUT}i".encode()
            await _ask(self._http, "POST", "/api/v2/write", params=params, content=line)
        elif found != [LAYOUT]:
            raise Refused(
                f"the bucket {self._bucket} has layout {found[0]}, this version reads {LAYOUT}",
                hint="use the version that wrote it, or another bucket",
            )

    async def ready(self) -> None:
        """Ask for its health."""
        await _ask(self._http, "GET", "/health")

    async def _fields(self, window: Window) -> list[_Field]:
        """The fields there are of the signals asked for."""
        if not window.signals:
            return []
        query = f'SHOW FIELD KEYS FROM "{window.spec.address}"'
        answer = await _ask(self._http, "POST", "/query", data=self._influxql(query))
        with _translated(self._http):
            known = {name for name, _ in _rows(answer.content)}
        asked = [name for name in window.spec.names if name in window.signals]
        every = [(name, quality) for name in asked for quality in (GOOD, UNCERTAIN, BAD)]
        return [one for one in every if line_protocol.field(*one) in known]

    def _influxql(self, query: str) -> dict[str, str]:
        return {"db": self._bucket, "q": query, "epoch": "ns"}


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
    """The store in one bucket, made if it is not there.

    url: http://host:port, or https://.  ca: whose certificates are believed there, None for those
    that the system believes.  Raises Unavailable if InfluxDB is away, Forbidden if the token does
    not do, Unknown if there is no such organisation, Refused if the bucket is of another version.
    """
    headers = {"Authorization": f"Token {token}", "Accept-Encoding": "identity"}
    if ca is not None and not url.startswith("https:"):
        raise Invalid(
            f"TESTBED_STORE_CA is set, and {url} would be reached without TLS",
            hint="write influxdb+https:// into TESTBED_STORE, or take TESTBED_STORE_CA out",
        )
    trust = await asyncio.to_thread(tls.trusting, ca, setting="TESTBED_STORE_CA")
    try:
        http = httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout_s, verify=trust)
    except httpx.InvalidURL as exc:
        raise Invalid(f"{url!r} is not a URL: {exc}", hint="write http://host:port") from exc
    async with http:
        await _make_bucket(http, organisation, bucket)
        store = InfluxDbStore(http, organisation, bucket)
        await store.check_layout()
        yield store


async def _make_bucket(http: httpx.AsyncClient, organisation: str, bucket: str) -> None:
    params = {"name": bucket}
    found = _json(http, await _ask(http, "GET", "/api/v2/buckets", params=params))["buckets"]
    if found:
        return
    owners = _json(http, await _ask(http, "GET", "/api/v2/orgs"))["orgs"]
    ids = {one["name"]: one["id"] for one in owners}
    if organisation not in ids:
        raise Unknown(
            f"the token sees no organisation {organisation!r} in InfluxDB",
            hint=f"it sees {', '.join(ids) or 'none'}",
        )
    body = {"orgID": ids[organisation], "name": bucket, "retentionRules": []}
    await _ask(http, "POST", "/api/v2/buckets", json=body)


async def _ask(http: httpx.AsyncClient, method: str, path: str, **content: Any) -> httpx.Response:
    """One request; raises Invalid, Forbidden or Unavailable."""
    with _translated(http):
        answer = await http.request(method, path, **content)
    if answer.is_error:
        raise _of_status(answer.status_code, answer.content)
    return answer


def _json(http: httpx.AsyncClient, answer: httpx.Response) -> Any:
    with _translated(http):
        return orjson.loads(answer.content)


@contextmanager
def _translated(http: httpx.AsyncClient) -> Iterator[None]:
    """No error of the HTTP client leaves the adapter."""
    try:
        yield
    except (httpx.UnsupportedProtocol, httpx.InvalidURL) as exc:
        raise Invalid(
            f"{http.base_url} is not InfluxDB's address", hint="write http://host:port"
        ) from exc
    except (httpx.RequestError, orjson.JSONDecodeError) as exc:
        asked = tls.Asked(f"InfluxDB at {http.base_url}", "TESTBED_STORE", "TESTBED_STORE_CA")
        if told := tls.failure(exc, asked):  # it may be mended while samples wait for it
            raise Unavailable(told.message, hint=told.hint) from exc
        raise Unavailable(
            f"InfluxDB at {http.base_url} did not answer: {exc!r}", hint="is influxd running there?"
        ) from exc


def _of_status(status: int, body: bytes) -> BedError:
    said = body[:300].decode(errors="replace")
    if status in {401, 403}:
        return Forbidden(
            f"InfluxDB refused the token: {said}", hint="is TESTBED_STORE_TOKEN right?"
        )
    if status in _REFUSED:
        return Invalid(f"InfluxDB refused it: {said}")
    return Unavailable(f"InfluxDB answered {status}: {said}")


async def _lines(answer: httpx.Response) -> AsyncIterator[bytes]:
    """What stands between line feeds; a string's value may hold all else that ends a line."""
    parts: list[bytes] = []
    async for read in answer.aiter_bytes():
        *ended, rest = read.split(b"\n")
        for line in ended:
            yield b"".join([*parts, line])
            parts = []
        parts.append(rest)
    yield b"".join(parts)


def _rows(body: bytes) -> list[list[Any]]:
    """The rows of InfluxQL's answer, or of one chunk; raises Unavailable if that is an error."""
    if not body:
        return []
    if b"-0," in body or b"-0]" in body:  # a float's negative zero, which reads as an integer
        told = json.loads(body, parse_int=lambda text: -0.0 if text == "-0" else int(text))
    else:
        told = orjson.loads(body)
    results = [told, *told.get("results", [])]
    for result in results:
        if "error" in result:
            raise Unavailable(f"InfluxDB could not read on: {result['error']}")
    return [
        row for result in results for series in result.get("series", []) for row in series["values"]
    ]


def _chunk(line: bytes, fields: Sequence[_Field], window: Window) -> list[Long]:
    """Rows [time, field, …] as frames; of the qualities of one sample the worst."""
    rows = _rows(line)
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
        f"from(bucket: {orjson.dumps(bucket).decode()})"
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
