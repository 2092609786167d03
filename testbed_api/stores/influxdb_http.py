"""Client of InfluxDB 2.7 over HTTP: sends requests, parses answers and translates errors."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import orjson

from broker import api_client, clock, tls
from broker.errors import BedError, Forbidden, Invalid, Unavailable, Unknown
from broker.http_library import httpx

EARLIEST_NS, LATEST_NS = -(2**63) + 2, 2**63 - 2
"""The first and the last time stamp that InfluxDB accepts."""

_NO_NUMBER = b"json: unsupported value"
"""Of an answer with an infinite value: a sum beyond float64, for no stored sample is infinite."""
_INVALID_STATUSES = frozenset({400, 413, 422})


class InfluxDbClient:
    """Client of one organisation in InfluxDB, limited to the rights of its token.

    Every method raises Invalid, Forbidden, Unknown or Unavailable.
    """

    def __init__(self, http: httpx.AsyncClient, organisation: str) -> None:
        """organisation: the one in InfluxDB that owns all buckets of a testbed."""
        self.http = http
        self.organisation = organisation

    async def request(self, method: str, path: str, **content: Any) -> httpx.Response:
        """Send one request and return the answer.  content: parameters of httpx's `request`."""
        with translated_errors(self.http):
            answer = await self.http.request(method, path, **content)
        if answer.is_error:
            raise error_of_status(answer.status_code, answer.content)
        return answer

    async def list_resources(self, path: str, **params: str) -> list[dict[str, Any]]:
        """List the resources at `/api/v2/<path>`, `buckets` or `orgs`."""
        answer = await self.request("GET", f"/api/v2/{path}", params=params)
        with translated_errors(self.http):
            resources: list[dict[str, Any]] = orjson.loads(answer.content)[path]
        return resources

    async def write(self, bucket: str, body: bytes) -> None:
        """Write lines with time stamps in ns.

        The body is streamed: httpx leaves each request in a reference cycle that the garbage
        collector finds late, and a streamed body is not part of it.
        """
        params = {"org": self.organisation, "bucket": bucket, "precision": "ns"}
        size = {"Content-Length": str(len(body))}
        await self.request(
            "POST", "/api/v2/write", params=params, headers=size, content=_streamed(body)
        )

    async def select(self, bucket: str, query: str) -> list[list[Any]]:
        """Execute a small InfluxQL query and return its rows."""
        form = influxql_form(bucket, query)
        answer = await self.request("POST", "/query", data=form)
        with translated_errors(self.http):
            return rows(answer.content)

    @asynccontextmanager
    async def select_chunks(
        self, bucket: str, query: str, chunk: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Execute an InfluxQL query and stream chunks of `chunk` rows; `rows` parses each."""
        form = influxql_form(bucket, query) | {"chunked": "true", "chunk_size": str(chunk)}
        with translated_errors(self.http):
            async with self.http.stream("POST", "/query", data=form) as answer:
                if answer.is_error:
                    raise error_of_status(answer.status_code, await answer.aread())
                yield _lines(answer)

    async def flux(self, query: str) -> str:
        """Execute a Flux query and return its answer as CSV."""
        document = {"query": query, "dialect": {"header": True, "annotations": []}}
        params = {"org": self.organisation}
        answer = await self.request("POST", "/api/v2/query", params=params, json=document)
        return answer.text

    async def delete(self, bucket: str, predicate: str, span: tuple[int, int]) -> None:
        """Delete the points that match a predicate in a span, both ends included."""
        start, stop = map(clock.text_of, span)
        body = {"start": start, "stop": stop, "predicate": predicate}
        params = {"org": self.organisation, "bucket": bucket}
        await self.request("POST", "/api/v2/delete", params=params, json=body)


async def _streamed(body: bytes) -> AsyncIterator[bytes]:
    yield body


def influxql_form(bucket: str, query: str) -> dict[str, str]:
    """The form fields of an InfluxQL query."""
    return {"db": bucket, "q": query, "epoch": "ns"}


def flux_string(text: str) -> str:
    """The text as a string literal of Flux."""
    return orjson.dumps(text).decode()


@contextmanager
def translated_errors(http: httpx.AsyncClient) -> Iterator[None]:
    """Translate errors of the HTTP client raised in the context into ours."""
    try:
        yield
    except (httpx.UnsupportedProtocol, httpx.InvalidURL) as exc:
        raise Invalid(
            f"{http.base_url} is not InfluxDB's address", hint="write http://host:port"
        ) from exc
    except (httpx.RequestError, orjson.JSONDecodeError) as exc:
        endpoint = tls.TlsEndpoint(
            f"InfluxDB at {http.base_url}", "TESTBED_STORE", "TESTBED_STORE_CA"
        )
        if error := tls.handshake_error(exc, endpoint):  # may be repaired while samples wait
            raise Unavailable(error.message, hint=error.hint) from exc
        raise Unavailable(
            f"InfluxDB at {http.base_url} did not answer: {api_client.reason_of(exc)}",
            hint="is influxd running there?",
        ) from exc


def error_of_status(status: int, body: bytes) -> BedError:
    """The error for an answer with an HTTP status other than success."""
    text = body[:300].decode(errors="replace")
    if status in {401, 403}:
        return Forbidden(
            f"InfluxDB refused the token: {text}", hint="is TESTBED_STORE_TOKEN right?"
        )
    if status == 404:
        return Unknown(f"InfluxDB found nothing there: {text}")
    if status in _INVALID_STATUSES:
        return Invalid(f"InfluxDB refused the request: {text}")
    return Unavailable(f"InfluxDB answered {status}: {text}")


async def _lines(answer: httpx.Response) -> AsyncIterator[bytes]:
    """Split an answer at line feeds only; string values may contain other line separators."""
    parts: list[bytes] = []
    async for chunk in answer.aiter_bytes():
        *ended, rest = chunk.split(b"\n")
        for line in ended:
            yield b"".join([*parts, line])
            parts = []
        parts.append(rest)
    yield b"".join(parts)


def rows(body: bytes) -> list[list[Any]]:
    """Parse the rows of an InfluxQL answer, or of one chunk of it.

    Raises Unknown if the bucket does not exist, Invalid for a mean that is no number, Unavailable
    for any other error in the answer.
    """
    if not body:
        return []
    if body.startswith(b"json: ") and _NO_NUMBER in body:  # no JSON: Go could not write it
        raise Invalid(
            "there is no mean: InfluxDB adds the samples of a window up, and that sum is beyond"
            " float64",
            hint="ask for how=last, min or max, or without the signals whose values are so large",
        )
    if b"-0," in body or b"-0]" in body:  # negative zero of a float, parsed as an integer
        document = json.loads(body, parse_int=lambda text: -0.0 if text == "-0" else int(text))
    else:
        document = orjson.loads(body)
    results = [document, *document.get("results", [])]
    for result in results:
        if result.get("error", "").startswith("database not found"):
            raise Unknown(f"InfluxDB has no such bucket: {result['error']}")
        if "error" in result:
            raise Unavailable(f"InfluxDB could not finish its answer: {result['error']}")
    return [
        row for result in results for series in result.get("series", []) for row in series["values"]
    ]
