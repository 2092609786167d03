"""InfluxDB 2.7: line protocol written in bulk, InfluxQL read in chunks, thinned by Flux inside the server.

Measurement = the stream's address, tag `space`, fields as in `line_protocol`.  Sent twice is stored once by InfluxDB's
own rule: same series and time stamp, the later write wins; of samples of one identity with different qualities the worst
is read.  Ids, spaces and signal names hold no quote and no backslash, so nothing leaves its quotes in a query.
"""

import asyncio
import csv
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import numpy as np
import orjson

from broker.batch import BAD, GOOD, NO_VALUE, UNCERTAIN, Long
from broker.errors import BedError, Forbidden, Invalid, Partial, Unavailable, Unknown
from broker.streams import Dtype
from testbed_api.stores import frames, line_protocol
from testbed_api.stores.port import Block, Window

CHUNK_CELLS = 50_000
"""Values that influxd sends at a time, about."""

_REFUSED = frozenset({400, 413, 422})
_READERS: dict[Dtype, Any] = {
    Dtype.FLOAT64: float,
    Dtype.INT64: int,
    Dtype.BOOL: lambda text: text == "true",
    Dtype.STRING: orjson.loads,
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

    async def write(self, blocks: Sequence[Block]) -> None:
        """All lines in as few requests as fit; where InfluxDB refuses, by halves, to know which block it is."""
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
                async for line in answer.aiter_lines():
                    for frame in await asyncio.to_thread(_chunk, line, fields, window):
                        yield frame

    async def thin(self, window: Window, points: int) -> AsyncIterator[Long]:
        """The ends of each span, found by influxd; a sample sent again as worse may still be shown."""
        fields = await self._fields(window)
        if not fields:
            return
        query = _flux(fields, window, self._bucket, frames.span_ns(window, points))
        answer = await _ask(
            self._http,
            "POST",
            "/api/v2/query",
            params={"org": self._organisation},
            json={"query": query, "type": "flux", "dialect": {"header": True, "annotations": []}},
        )
        for frame in await asyncio.to_thread(_thinned, answer.text, window, points):
            yield frame

    async def ready(self) -> None:
        """Ask for its health."""
        await _ask(self._http, "GET", "/health")

    async def _fields(self, window: Window) -> list[_Field]:
        """The fields there are of the signals asked for."""
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
    url: str, *, token: str, organisation: str, bucket: str, timeout_s: float = 30.0
) -> AsyncIterator[InfluxDbStore]:
    """The store in one bucket, made if it is not there.

    url: http://host:port.  Raises Unavailable if InfluxDB is away, Forbidden if the token does not do, Unknown if
    there is no such organisation.
    """
    headers = {"Authorization": f"Token {token}", "Accept-Encoding": "identity"}
    try:
        http = httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout_s)
    except httpx.InvalidURL as exc:
        raise Invalid(f"{url!r} is not a URL: {exc}", hint="write http://host:port") from exc
    async with http:
        await _make_bucket(http, organisation, bucket)
        yield InfluxDbStore(http, organisation, bucket)


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


def _rows(body: bytes | str) -> list[list[Any]]:
    """The rows of an answer to InfluxQL, or of one chunk; raises Unavailable if it tells of an error."""
    if not body:
        return []
    told = orjson.loads(body)
    results = [told, *told.get("results", [])]
    for result in results:
        if "error" in result:
            raise Unavailable(f"InfluxDB could not read on: {result['error']}")
    return [
        row for result in results for series in result.get("series", []) for row in series["values"]
    ]


def _chunk(line: str, fields: Sequence[_Field], window: Window) -> list[Long]:
    """Rows [time, field, …] as frames; of the qualities of one sample the worst."""
    rows = _rows(line)
    if not rows:
        return []
    times, *columns = zip(*rows, strict=True)
    time_ns = np.array(times, np.int64)
    parts = []
    for name in dict.fromkeys(name for name, _ in fields):
        values = np.full(len(rows), None, np.object_)
        quality = np.zeros(len(rows), np.uint8)
        for (owner, code), cells in zip(fields, columns, strict=True):
            if owner == name:
                there = np.array([cell is not None for cell in cells])
                values[there] = np.array(cells, np.object_)[there]
                quality[there] = code
        there = np.array([value is not None for value in values])
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


def _flux(fields: Sequence[_Field], window: Window, bucket: str, span_ns: int) -> str:
    """The two ends of each span, for each group of fields with one type and one order."""
    groups: dict[tuple[Dtype, bool], list[str]] = {}
    for name, quality in fields:
        dtype = Dtype.BOOL if quality == BAD else window.spec.signal(name).dtype
        by_value = quality == GOOD and dtype in frames.ORDERED
        groups.setdefault((dtype, by_value), []).append(line_protocol.field(name, quality))
    source = (  # written out in each pipe: influxd thins inside its storage only what nothing else shares
        f"from(bucket: {orjson.dumps(bucket).decode()})"
        f" |> range(start: time(v: {window.from_ns}), stop: time(v: {window.to_ns}))"
        f' |> filter(fn: (r) => r._measurement == "{window.spec.address}")'
        f' |> filter(fn: (r) => r.space == "{window.space}")'
    )
    span = f"window(every: {span_ns}ns, offset: {window.from_ns % span_ns}ns)"
    text = ['import "json"']
    for number, ((dtype, by_value), names) in enumerate(groups.items()):
        wanted = " or ".join(f'r._field == "{name}"' for name in names)
        value = f"string(v: {'json.encode(v: r._value)' if dtype is Dtype.STRING else 'r._value'})"
        for end in ("min", "max") if by_value else ("first", "last"):
            text.append(
                f"{source} |> filter(fn: (r) => {wanted}) |> {span} |> {end}() |> group()"
                f" |> map(fn: (r) => ({{field: r._field, at: int(v: r._time), value: {value}}}))"
                f' |> yield(name: "{number} {end}")'
            )
    return "\n".join(text)


def _thinned(text: str, window: Window, points: int) -> list[Long]:
    """The samples in Flux's CSV, as frames."""
    known = {
        line_protocol.field(name, quality): (name, quality)
        for name in window.signals
        for quality in (GOOD, UNCERTAIN, BAD)
    }
    found: dict[_Field, list[tuple[int, Any]]] = {}
    at: dict[str, int] = {}
    for row in csv.reader(text.splitlines()):
        if "field" in row:
            at = {name: place for place, name in enumerate(row)}
        elif row:
            name, quality = known[row[at["field"]]]
            read = _READERS[Dtype.BOOL if quality == BAD else window.spec.signal(name).dtype]
            found.setdefault((name, quality), []).append(
                (int(row[at["at"]]), read(row[at["value"]]))
            )
    ends = []
    for (name, quality), samples in found.items():
        values = np.empty(len(samples), np.object_)
        values[:] = [value for _, value in samples]
        time_ns = np.array([time for time, _ in samples], np.int64)
        ends.append(
            _samples(window, name, time_ns, values, np.full(len(samples), quality, np.uint8))
        )
    return list(frames.thinned(window, points, ends))
