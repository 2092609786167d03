"""InfluxDB 2.7: line protocol written synchronously in bulk, InfluxQL read in chunks.

Measurement = the stream's address, tag `space`, a field a signal.  Sent twice is stored once by InfluxDB's own rule: same
series and time stamp, the later write wins; a bad sample hides a value written before under its identity.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import orjson
from broker.batch import BAD, NO_VALUE, NUMPY, Long
from broker.errors import BedError, Forbidden, Invalid, Partial, Unavailable, Unknown
from broker.streams import Dtype
from testbed_api.stores import line_protocol, thinning
from testbed_api.stores.port import Block, Window

POST_LINES = 50_000
CHUNK = 5_000
"""Rows that influxd sends at a time."""
FRAME = 10_000

_REFUSED = frozenset({400, 413, 422})


class InfluxDbStore:
    """A `SeriesStore` over one bucket."""

    def __init__(self, http: httpx.AsyncClient, organisation: str, bucket: str) -> None:
        """Made by `open`."""
        self._http = http
        self._organisation = organisation
        self._bucket = bucket

    async def write(self, blocks: Sequence[Block]) -> None:
        """All lines in as few requests as fit; where InfluxDB refuses, block by block, to know which."""
        together = [line for block in blocks for line in line_protocol.lines(block)]
        try:
            for cut in range(0, len(together), POST_LINES):
                await self._post(together[cut : cut + POST_LINES])
        except Invalid:
            await self._write_apart(blocks)

    async def _write_apart(self, blocks: Sequence[Block]) -> None:
        rejected: list[tuple[int, str]] = []
        for at, block in enumerate(blocks):
            try:
                await self._post(list(line_protocol.lines(block)))
            except Invalid as exc:
                rejected.append((at, exc.message))
        if rejected:
            raise Partial(f"InfluxDB refused {len(rejected)} of {len(blocks)} blocks", rejected=rejected)

    async def _post(self, lines: Sequence[str]) -> None:
        params = {"org": self._organisation, "bucket": self._bucket, "precision": "ns"}
        await _ask(self._http, "POST", "/api/v2/write", params=params, content="\n".join(lines).encode())

    async def read(self, window: Window) -> AsyncIterator[Long]:
        """Rows as InfluxQL merges them, each with the fields of one time stamp."""
        names = [name for name in window.spec.names if name in window.signals]
        fields = [*names, *(name + line_protocol.QUALITY for name in names)]
        columns = ", ".join(f'"{one}"' for one in fields)
        # Ids, spaces and signal names hold no quote and no backslash, so nothing can leave its quotes.
        query = (
            f'SELECT {columns} FROM "{window.spec.address}"'
            f" WHERE \"space\" = '{window.space}' AND time >= {window.from_ns} AND time < {window.to_ns}"
        )
        params: dict[str, str | int] = {"db": self._bucket, "q": query, "epoch": "ns", "chunked": "true", "chunk_size": CHUNK}
        try:
            async with self._http.stream("GET", "/query", params=params) as answer:
                if answer.is_error:
                    raise _of_status(answer.status_code, (await answer.aread()).decode(errors="replace")[:300])
                async for line in answer.aiter_lines():
                    for frame in _frames(_rows(line), names, window):
                        yield frame
        except httpx.TransportError as exc:
            raise _away(self._http, exc) from exc

    def thin(self, window: Window, points: int) -> AsyncIterator[Long]:
        """Thinned here, from all samples of the window."""
        return thinning.thinned(self.read(window), window, points)

    async def ready(self) -> None:
        """Ask for its health."""
        await _ask(self._http, "GET", "/health")


@asynccontextmanager
async def open(  # noqa: A001
    url: str, *, token: str, organisation: str, bucket: str, timeout_s: float = 30.0
) -> AsyncIterator[InfluxDbStore]:
    """The store in one bucket, made if it is not there.

    url: http://host:port.  Raises Unavailable if InfluxDB is away, Forbidden if the token does not do, Unknown if
    there is no such organisation.
    """
    headers = {"Authorization": f"Token {token}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout_s) as http:
        await _make_bucket(http, organisation, bucket)
        yield InfluxDbStore(http, organisation, bucket)


async def _make_bucket(http: httpx.AsyncClient, organisation: str, bucket: str) -> None:
    found = (await _ask(http, "GET", "/api/v2/buckets", params={"limit": 100})).json()["buckets"]
    if bucket in {one["name"] for one in found}:
        return
    owners = (await _ask(http, "GET", "/api/v2/orgs")).json()["orgs"]
    ids = {one["name"]: one["id"] for one in owners}
    if organisation not in ids:
        raise Unknown(
            f"the token sees no organisation {organisation!r} in InfluxDB", hint=f"it sees {', '.join(ids) or 'none'}"
        )
    body = {"orgID": ids[organisation], "name": bucket, "retentionRules": []}
    await _ask(http, "POST", "/api/v2/buckets", json=body)


async def _ask(http: httpx.AsyncClient, method: str, path: str, **content: Any) -> httpx.Response:
    """One request; raises Invalid, Forbidden or Unavailable."""
    try:
        answer = await http.request(method, path, **content)
    except httpx.TransportError as exc:
        raise _away(http, exc) from exc
    if answer.is_error:
        raise _of_status(answer.status_code, answer.text[:300])
    return answer


def _away(http: httpx.AsyncClient, exc: httpx.TransportError) -> Unavailable:
    return Unavailable(f"InfluxDB at {http.base_url} did not answer: {exc!r}", hint="is influxd running there?")


def _of_status(status: int, said: str) -> BedError:
    if status in {401, 403}:
        return Forbidden(f"InfluxDB refused the token: {said}", hint="is TESTBED_STORE_TOKEN right?")
    if status in _REFUSED:
        return Invalid(f"InfluxDB refused it: {said}")
    return Unavailable(f"InfluxDB answered {status}: {said}")


def _rows(line: str) -> list[list[Any]]:
    """The rows of one chunk; raises Unavailable if it tells of an error."""
    if not line:
        return []
    told = orjson.loads(line)
    result = told["results"][0] if "results" in told else told
    if "error" in result:
        raise Unavailable(f"InfluxDB could not read on: {result['error']}")
    return [row for series in result.get("series", []) for row in series["values"]]


def _frames(rows: list[list[Any]], names: list[str], window: Window) -> list[Long]:
    """Rows [time, value…, quality…] as frames in (time, signal) order."""
    if not rows:
        return []
    spec = window.spec
    dtypes = tuple(signal.dtype for signal in spec.signals)
    count = len(names)
    time_ns, signal, values, quality = [], [], [], []
    places = [spec.names.index(name) for name in names]
    for row in rows:
        for at in range(count):
            value, code = row[1 + at], row[1 + count + at] or 0
            if code == BAD:
                value = NO_VALUE[dtypes[places[at]]]
            elif value is None:
                continue
            time_ns.append(row[0])
            signal.append(places[at])
            values.append(float(value) if dtypes[places[at]] is Dtype.FLOAT64 else value)
            quality.append(code)
    column = np.empty(len(values), NUMPY[dtypes[0]] if len(set(dtypes)) == 1 else np.object_)
    column[:] = values
    return [
        Long(
            np.array(time_ns[cut : cut + FRAME], np.int64),
            np.array(signal[cut : cut + FRAME], np.int32),
            column[cut : cut + FRAME],
            np.array(quality[cut : cut + FRAME], np.uint8),
            spec.names,
            dtypes,
        )
        for cut in range(0, len(values), FRAME)
    ]
