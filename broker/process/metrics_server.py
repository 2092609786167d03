"""Serves a process's metrics to Prometheus over HTTP, on loopback.

One page of text is all it serves; each response ends its connection.
"""

import asyncio
from collections.abc import Awaitable, Callable

from broker.errors import BedError, Taken

HOST = "127.0.0.1"
TEXT = "text/plain; version=0.0.4; charset=utf-8"
"""Content type of Prometheus's text format."""
ANSWER_S = 5.0
MOST_AT_ONCE = 8
MOST_REQUEST_BYTES = 8_192

_BROKEN = (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)
"""Errors that a client may cause on its connection."""

Page = Callable[[], Awaitable[bytes]]


async def serve(port: int, page: Page, *, setting: str) -> None:
    """Answer `GET /metrics` on loopback until cancelled; raises Taken if the port is in use.

    page: makes the page anew for each request.  setting: name of the setting of the port.
    """
    answering: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        try:
            if task is not None and len(answering) < MOST_AT_ONCE:
                answering.add(task)
                task.add_done_callback(answering.discard)
                async with asyncio.timeout(ANSWER_S):
                    await _answer(reader, writer, page)
        except _BROKEN:
            pass
        finally:
            writer.close()

    try:
        server = await asyncio.start_server(answer, HOST, port, limit=MOST_REQUEST_BYTES)
    except OSError as exc:
        raise Taken(
            f"the metrics cannot listen on {HOST}:{port}: {exc.strerror}",
            hint=f"set {setting} to another port, or to 0",
        ) from exc
    async with server:
        try:
            await server.serve_forever()
        finally:
            for task in answering:
                task.cancel()
            if answering:
                await asyncio.wait(answering)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, page: Page) -> None:
    """Answer one request (RFC 9112); only the first line of its head is read."""
    head = await reader.readuntil(b"\r\n\r\n")
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    if path != b"/metrics":
        status, kind, body = "404 Not Found", "text/plain", b"the figures are at /metrics\n"
    elif method != b"GET":
        status, kind, body = "405 Method Not Allowed", "text/plain", b"ask with GET\n"
    else:
        try:
            status, kind, body = "200 OK", TEXT, await page()
        except BedError as exc:
            status, kind, body = "503 Service Unavailable", "text/plain", f"{exc}\n".encode()
    lines = (f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}")
    writer.write("\r\n".join((*lines, "Connection: close", "", "")).encode() + body)
    await writer.drain()
