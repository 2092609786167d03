"""An asynchronous context that is held open in a thread with an event loop of its own.

Everything that the context opens lives on that loop.  Other threads run coroutines there with
`LoopThread.call`, which waits for the result, so a program needs no event loop of its own, and one
that has a running loop, as a notebook has, can call it too.
"""

import asyncio
import atexit
import threading
from collections.abc import Coroutine
from concurrent import futures
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Generic, TypeVar

from broker import errors
from broker.errors import BedError, Invalid, Unavailable
from testbed_sdk.workers import CALLING_THREAD

WAKE_S = 0.5
"""A wait ends so often and begins anew: Windows lets Ctrl-C through between two waits alone."""

_Value = TypeVar("_Value")
_Result = TypeVar("_Result")


class LoopThread(Generic[_Value]):
    """A thread that has entered an asynchronous context, until it is closed.

    The thread ends with the process.  A program that does not close it leaves the context at its
    end all the same, as `close` does.
    """

    def __init__(self, context: AbstractAsyncContextManager[_Value]) -> None:
        """Enter the context, and wait for that; raises what entering raises."""
        self._context = context
        self._loop = asyncio.new_event_loop()
        self._holder: asyncio.Task[None] | None = None
        self._leave = asyncio.Event()
        self._started = threading.Event()
        self._entered: futures.Future[_Value] = futures.Future()
        self._failure: BaseException | None = None
        self._closed = False
        self._has_ended = False
        """The context was left: its loop takes no more calls while it ends."""
        self._handing = threading.Lock()
        """Held while a coroutine is handed to the loop, so that none comes after `_has_ended`."""
        self._thread = threading.Thread(target=self._run, name="testbed", daemon=True)
        self._thread.start()
        atexit.register(self.close)
        try:
            self.value = self._wait(self._entered)
        except BaseException:
            self.close(at_once=True)
            raise

    def call(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        """Run a coroutine on the loop and return its result; Ctrl-C cancels it.

        Raises what the coroutine raises, Invalid after `close`, and otherwise the error that ended
        the context.
        """
        with self._handing:
            if self._has_ended:
                coroutine.close()
                raise self._over()
            caller = CALLING_THREAD.set(threading.current_thread())
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
            CALLING_THREAD.reset(caller)
        try:
            return self._wait(future)
        except futures.CancelledError:
            raise self._over() from None
        except BaseException:
            future.cancel()
            raise

    def close(self, *, at_once: bool = False) -> None:
        """Leave the context and end the thread; nothing if that was done.

        at_once: cancel what the context does, instead of leaving it in order; Ctrl-C while it is
        left in order does the same.  Raises the error that ended the context before, or with
        leaving it.
        """
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        self._started.wait()
        try:
            self._ask_to_end(at_once=at_once)
            while self._thread.is_alive():
                self._thread.join(WAKE_S)
        except BaseException:
            self._ask_to_end(at_once=True)
            raise
        if self._failure is not None:
            raise self._failure

    def _ask_to_end(self, *, at_once: bool) -> None:
        with suppress(RuntimeError):  # the loop has ended
            if at_once and self._holder is not None:
                self._loop.call_soon_threadsafe(self._holder.cancel)
            else:
                self._loop.call_soon_threadsafe(self._leave.set)

    def _wait(self, future: "futures.Future[_Result]") -> _Result:
        while not future.done():
            futures.wait([future], timeout=WAKE_S)
            if not self._thread.is_alive() and not future.done():
                raise self._over()
        return future.result()

    def _over(self) -> BaseException:
        """The error for who calls after the end of the context."""
        if self._failure is not None:
            return self._failure
        if self._closed:
            return Invalid("the connection is closed", hint="open another one: connect_sync()")
        return Unavailable("the connection has ended", hint="open another one: connect_sync()")

    # --- in the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        with (
            suppress(asyncio.CancelledError),
            asyncio.Runner(loop_factory=lambda: self._loop) as runner,
        ):
            runner.run(self._hold())

    async def _hold(self) -> None:
        """Hold the context open; its error is noted before others on the loop are cancelled."""
        self._holder = asyncio.current_task()
        self._started.set()
        try:
            async with self._context as value:
                self._entered.set_result(value)
                await self._leave.wait()
        except asyncio.CancelledError:
            self._entered.cancel()
            raise
        except BaseException as exc:  # noqa: BLE001 - raised in the thread that waits
            if self._entered.done():
                self._failure = _first(exc)
            else:
                self._entered.set_exception(_first(exc))
        finally:
            with self._handing:  # what was handed over is a task by the time that all are cancelled
                self._has_ended = True


def _first(exc: BaseException) -> BaseException:
    """The first of a group of BedErrors; any other error as it is."""
    if isinstance(exc, ExceptionGroup):
        expected, others = exc.split(BedError)
        if expected is not None and others is None:
            return errors.first_of(expected)
    return exc
