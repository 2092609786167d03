"""The API's door: the socket, and the server that answers on it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn

from broker import tls
from broker.errors import Taken
from broker.tls import Certificate
from testbed_api.http import request_deadline
from testbed_api.http.app import create_app
from testbed_api.http.dependencies import ApiDependencies

SHUTDOWN_S = 2
HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "frame-ancestors 'none'"),
    ("Referrer-Policy", "no-referrer"),
]
"""Headers of every answer: browsers guess no other type, and frame nothing."""


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """The API's door; raises Taken if the port is in use."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # asyncio sees to it for its own sockets alone: head and body of an answer leave apart, and
        # the second would wait 40 ms for the caller's acknowledgement of the first
        door.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            door.bind((host, port))
            door.listen(128)
        except OSError as exc:
            raise Taken(
                f"cannot listen on {host}:{port}: {exc.strerror}",
                hint="choose another port with --port",
            ) from exc
        yield door


class _Uvicorn(uvicorn.Server):
    """Uvicorn that leaves signals to the process that runs it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _config(
    dependencies: ApiDependencies, certificate: Certificate | None, within_s: float
) -> uvicorn.Config:
    secured = (lambda *_: tls.server_context(certificate)) if certificate else None
    return uvicorn.Config(
        create_app(dependencies),
        http=request_deadline.within(within_s),
        ssl_context_factory=secured,
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # who guesses would come from another address each time
        server_header=False,
        headers=HEADERS,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )


@asynccontextmanager
async def answering(
    dependencies: ApiDependencies,
    listener: socket.socket,
    certificate: Certificate | None = None,
    *,
    within_s: float,
) -> AsyncIterator[None]:
    """The API, answering; requests under way get a moment to end.

    certificate: what it shows, None for no TLS.  within_s: a request has come whole, or is cut off.
    """
    server = _Uvicorn(_config(dependencies, certificate, within_s))
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(
            dependencies.freshness.follow(dependencies.bus), name="freshness"
        )
        keeping = tasks.create_task(dependencies.keeper.run(), name="retention")
        heads = tasks.create_task(dependencies.anchoring.run(dependencies.bus), name="audit heads")
        background = [following, keeping, heads]
        if dependencies.delivery is not None:
            background.append(tasks.create_task(dependencies.delivery.run(), name="notices"))
        tasks.create_task(server.serve(sockets=[listener]), name="api")
        while not server.started:
            await dependencies.clock.sleep(0.01)
        try:
            yield
        finally:
            server.should_exit = True
            for task in background:
                task.cancel()
    await dependencies.anchoring.sign(dependencies.bus)  # all that was done until now
