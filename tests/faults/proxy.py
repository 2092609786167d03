"""A wire that can be cut: a TCP proxy on loopback, in a thread with a loop of its own."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future

from tests.services import LOOPBACK


class Wire:
    """Forwards to `target`; while cut, nothing passes and nobody is told (a blackhole)."""

    def __init__(self, target: int, loop: asyncio.AbstractEventLoop) -> None:
        """target: a port of loopback; who connects while nobody listens there is let go again."""
        self.port = 0
        self._target = target
        self._loop = loop
        self._whole = asyncio.Event()
        self._whole.set()
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """From now on nothing passes."""
        self._loop.call_soon_threadsafe(self._whole.clear)

    def heal(self) -> None:
        """Everything passes again; what was under way arrives late, as on a real network."""
        self._loop.call_soon_threadsafe(self._whole.set)

    def reset(self) -> None:
        """Every connection ends at once."""
        self._loop.call_soon_threadsafe(self._abort)

    def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(LOOPBACK, self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass(reader, back))
                tasks.create_task(self._pass(there, writer))
        finally:
            self._writers -= {writer, back}
            writer.transport.abort()
            back.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await self._whole.wait()
                writer.write(data)
                await writer.drain()
            await self._whole.wait()
            writer.write_eof()

    async def serve(self, ready: Future["Wire"]) -> None:
        """Accept until cancelled."""
        server = await asyncio.start_server(self._accept, LOOPBACK, 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set_result(self)
        try:
            await self._loop.create_future()
        finally:
            server.close()
            self._abort()


@contextlib.contextmanager
def wire(target: int) -> Iterator[Wire]:
    """A wire to that port."""
    ready: Future[Wire] = Future()
    serving: list[asyncio.Task[None] | None] = []

    async def serve() -> None:
        serving.append(asyncio.current_task())
        with contextlib.suppress(asyncio.CancelledError):
            await Wire(target, asyncio.get_running_loop()).serve(ready)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name=f"wire to {target}")
    thread.start()
    opened = ready.result(10)
    try:
        yield opened
    finally:
        for task in serving:
            if task is not None:
                opened._loop.call_soon_threadsafe(task.cancel)
        thread.join(10)
