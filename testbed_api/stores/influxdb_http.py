"""InfluxDB 2.7 over HTTP: requests, and what its answers mean.  No error of the client leaves."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import orjson

from broker import clock, tls
from broker.errors import BedError, Forbidden, Invalid, Unavailable, Unknown

EARLIEST_NS, LATEST_NS = -(2**63) + 2, 2**63 - 2
"""The first and the last instant that InfluxDB knows."""

_REFUSED = frozenset({400, 413, 422})


class Server:
    """One of InfluxDB's organisations, as far as the token sees it.

    Every method raises Invalid, Forbidden, Unknown or Unavailable.
    """

    def __init__(self, http: httpx.AsyncClient, organisation: str) -> None:
        """organisation: InfluxDB's, in which all buckets of a testbed lie."""
        self.http = http
        self.organisation = organisation

    async def ask(self, method: str, path: str, **content: Any) -> httpx.Response:
        """One request.  content: as httpx takes it."""
        with translated(self.http):
            answer = await self.http.request(method, path, **content)
        if answer.is_error:
            raise of_status(answer.status_code, answer.content)
        return answer

    async def listed(self, path: str, **params: str) -> list[dict[str, Any]]:
        """What there is of a kind, `buckets` or `orgs`."""
        answer = await self.ask("GET", f"/api/v2/{path}", params=params)
        with translated(self.http):
            found: list[dict[str, Any]] = orjson.loads(answer.content)[path]
        return found

    async def write(self, bucket: str, body: bytes) -> None:
        """Write lines with nanoseconds.

        httpx leaves a request in a ring that the collector finds late; a body that flows is not
        held by it.
        """
        params = {"org": self.organisation, "bucket": bucket, "precision": "ns"}
        size = {"Content-Length": str(len(body))}
        await self.ask("POST", "/api/v2/write", params=params, headers=size, content=_flowing(body))

    async def select(self, bucket: str, query: str) -> list[list[Any]]:
        """The rows of a small InfluxQL query."""
        form = influxql(bucket, query)
        answer = await self.ask("POST", "/query", data=form)
        with translated(self.http):
            return rows(answer.content)

    @asynccontextmanager
    async def selecting(
        self, bucket: str, query: str, chunk: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The same in chunks of so many rows, a line each; `rows` reads one."""
        form = influxql(bucket, query) | {"chunked": "true", "chunk_size": str(chunk)}
        with translated(self.http):
            async with self.http.stream("POST", "/query", data=form) as answer:
                if answer.is_error:
                    raise of_status(answer.status_code, await answer.aread())
                yield _lines(answer)

    async def flux(self, query: str) -> str:
        """A Flux query's answer as CSV."""
        document = {"query": query, "dialect": {"header": True, "annotations": []}}
        params = {"org": self.organisation}
        answer = await self.ask("POST", "/api/v2/query", params=params, json=document)
        return answer.text

    async def delete(self, bucket: str, predicate: str, span: tuple[int, int]) -> None:
        """Delete what a predicate names in a span, both ends included."""
        start, stop = map(clock.text_of, span)
        body = {"start": start, "stop": stop, "predicate": predicate}
        params = {"org": self.organisation, "bucket": bucket}
        await self.ask("POST", "/api/v2/delete", params=params, json=body)


async def _flowing(body: bytes) -> AsyncIterator[bytes]:
    yield body


def influxql(bucket: str, query: str) -> dict[str, str]:
    """The form of an InfluxQL query."""
    return {"db": bucket, "q": query, "epoch": "ns"}


def quoted(text: str) -> str:
    """A text of Flux."""
    return orjson.dumps(text).decode()


@contextmanager
def translated(http: httpx.AsyncClient) -> Iterator[None]:
    """No error of the HTTP client leaves the adapter."""
    try:
        yield
    except (httpx.UnsupportedProtocol, httpx.InvalidURL) as exc:
        raise Invalid(
            f"{http.base_url} is not InfluxDB's address", hint="write http://host:port"
        ) from exc
    except (httpx.RequestError, orjson.JSONDecodeError) as exc:
        asked = tls.TlsEndpoint(f"InfluxDB at {http.base_url}", "TESTBED_STORE", "TESTBED_STORE_CA")
        if told := tls.handshake_error(exc, asked):  # it may be mended while samples wait for it
            raise Unavailable(told.message, hint=told.hint) from exc
        raise Unavailable(
            f"InfluxDB at {http.base_url} did not answer: {exc!r}", hint="is influxd running there?"
        ) from exc


def of_status(status: int, body: bytes) -> BedError:
    """What a status that is no success means."""
    said = body[:300].decode(errors="replace")
    if status in {401, 403}:
        return Forbidden(
            f"InfluxDB refused the token: {said}", hint="is TESTBED_STORE_TOKEN right?"
        )
    if status == 404:
        return Unknown(f"InfluxDB does not know it: {said}")
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


def rows(body: bytes) -> list[list[Any]]:
    """The rows of InfluxQL's answer, or of one chunk.

    Raises Unknown where there is no such bucket, Unavailable for any other error in it.
    """
    if not body:
        return []
    if b"-0," in body or b"-0]" in body:  # a float's negative zero, which reads as an integer
        told = json.loads(body, parse_int=lambda text: -0.0 if text == "-0" else int(text))
    else:
        told = orjson.loads(body)
    results = [told, *told.get("results", [])]
    for result in results:
        if result.get("error", "").startswith("database not found"):
            raise Unknown(f"InfluxDB does not know it: {result['error']}")
        if "error" in result:
            raise Unavailable(f"InfluxDB could not read on: {result['error']}")
    return [
        row for result in results for series in result.get("series", []) for row in series["values"]
    ]
