"""The API's HTTP server."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import structlog
import uvicorn

from broker.errors import Unavailable
from testbed_api.audit.clock_watch import ClockStep
from testbed_api.http import request_deadline
from testbed_api.http.app import create_app
from testbed_api.http.dependencies import ApiDependencies

SHUTDOWN_S = 2
PASSED_OVER_AGAIN_S = 5.0
"""The pause before connections whose right has ended are ended again."""
LAST_HEAD_S = 3.0
"""The longest wait at the end for the broker to take the last head of the audit."""
HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
]
"""Headers of every answer: browsers guess no other type, and tell nobody where they come from.
`middleware.content_policy` says what a page may load.
"""

log = structlog.get_logger()


class _Uvicorn(uvicorn.Server):
    """A Uvicorn server that leaves signals to the process that runs it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _config(
    dependencies: ApiDependencies, context: ssl.SSLContext | None, within_s: float
) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(dependencies),
        http=request_deadline.within(within_s),
        ssl_context_factory=None if context is None else _showing(context),
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # who guesses would come from another address each time
        server_header=False,
        headers=HEADERS,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )


def _showing(context: ssl.SSLContext) -> Callable[..., ssl.SSLContext]:
    return lambda *_: context


def _cancel(task: asyncio.Task[None], _ended: asyncio.Task[None]) -> None:
    task.cancel()


@asynccontextmanager
async def answering(
    dependencies: ApiDependencies,
    listener: socket.socket,
    context: ssl.SSLContext | None = None,
    *,
    within_s: float,
) -> AsyncIterator[None]:
    """Run the API until left; requests under way get a moment to end.

    context: with the certificate that it shows, None for no TLS.  within_s: a request has come
    whole, or is cut off.
    """
    server = _Uvicorn(_config(dependencies, context, within_s))
    async with asyncio.TaskGroup() as tasks:
        feeds = tasks.create_task(dependencies.live_feeds.run(), name="live feeds")
        watch = tasks.create_task(dependencies.rights_watch.run(), name="rights watch")
        background = [
            tasks.create_task(work, name=name) for name, work in _upkeep(dependencies).items()
        ]
        api = tasks.create_task(server.serve(sockets=[listener]), name="api")
        for serving in (feeds, watch):  # to the end of the last answer
            api.add_done_callback(partial(_cancel, serving))
        while not server.started:
            await dependencies.clock.sleep(0.01)
        try:
            yield
        finally:
            server.should_exit = True
            dependencies.deployment_news.end()
            for task in background:
                task.cancel()
    try:
        async with asyncio.timeout(LAST_HEAD_S):
            await dependencies.anchoring.sign(dependencies.bus)  # all that was done until now
    except TimeoutError:
        log.warning("last head of the audit was not handed out", waited_s=LAST_HEAD_S)


def _upkeep(dependencies: ApiDependencies) -> dict[str, Coroutine[None, None, None]]:
    """The work beside the requests, by name; it ends when the API is left."""
    work = {
        "freshness": dependencies.freshness.follow(dependencies.bus),
        "retention": dependencies.keeper.run(),
        "recordings": dependencies.recording_maker.run(),
        "images": dependencies.prototype_material.images.run(),
        "clock": _watch_clock(dependencies),
        "audit heads": dependencies.anchoring.run(dependencies.bus),
        "certificates": dependencies.certificates.run(dependencies.clock),
    }
    if dependencies.delivery is not None:
        work["notices"] = dependencies.delivery.run()
    return work


async def _watch_clock(dependencies: ApiDependencies) -> None:
    """Watch the machine's clock until cancelled: after a step the audit is signed at once.

    One ahead passes over instants at which rights end; connections that lived by them are ended.
    """

    async def follow(step: ClockStep) -> None:
        await dependencies.anchoring.sign(dependencies.bus)
        if step.by_ns > 0:
            await end_passed_over(dependencies, step)

    await dependencies.clock_watch.run(follow)


async def end_passed_over(dependencies: ApiDependencies, step: ClockStep) -> None:
    """End the connections whose right a step passed over; again until the broker confirms it."""
    while True:
        try:
            await dependencies.rights_changes.passed_over(step.from_ns, step.to_ns)
        except Unavailable as exc:
            log.error("connections were not ended after a step of the clock", reason=str(exc))  # noqa: TRY400 - the reason says it
            await dependencies.clock.sleep(PASSED_OVER_AGAIN_S)
        else:
            return
