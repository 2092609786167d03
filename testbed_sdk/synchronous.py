"""The SDK for programs without asyncio: the same connection, whose calls wait for their result.

from testbed_sdk import connect_sync, run

def main():
    with connect_sync() as testbed:
        for batch in testbed.input("rig"):
            print(batch["Pressure"].values)

run(main)
"""

import functools
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from broker import api_client, profiles
from broker.aggregation import Aggregation
from broker.clock import NS_PER_S, WallClock
from broker.credential import Credential
from broker.history_query import HistoryQuery
from broker.namespace import StreamAddress, checked_space
from broker.settings import BusSettings
from broker.streams import FUTURE_LIMIT_S, PAST_LIMIT_S, Signal, StreamSpec
from broker.time_expressions import Time
from testbed_sdk import connection, history, spans
from testbed_sdk.connection import Testbed
from testbed_sdk.history import History
from testbed_sdk.inputs import Input, Received
from testbed_sdk.loop_thread import LoopThread
from testbed_sdk.outputs import Output
from testbed_sdk.program_time import ProgramTime
from testbed_sdk.settings import HttpSettings, PrototypeSettings

_END_NS: ContextVar[int | None] = ContextVar("end_ns", default=None)
"""The end of the `timeout` that a thread is in, by `ProgramTime.passed_ns`."""

_Async = TypeVar("_Async")
_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")


class _Blocking(Generic[_Async]):
    """An object of the asynchronous SDK, with the thread on whose loop it lives."""

    def __init__(self, asynchronous: _Async, thread: LoopThread[Testbed]) -> None:
        self._async = asynchronous
        self._thread = thread

    def _call(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        """Run a coroutine on the loop, within the caller's time limits."""
        return self._thread.call(_limited(self._thread.value.program_time, coroutine))


def _blocking(
    method: Callable[Concatenate[_Async, _Params], Coroutine[Any, Any, _Result]],
) -> Callable[Concatenate[_Blocking[_Async], _Params], _Result]:
    """A method that calls an asynchronous one and waits for its result."""

    @functools.wraps(method)
    def call(self: _Blocking[_Async], /, *args: _Params.args, **options: _Params.kwargs) -> _Result:
        return self._call(method(self._async, *args, **options))

    return call


class SyncInput(_Blocking[Input]):
    """A named input: iterate over it for its batches, in the order of the publisher."""

    @property
    def address(self) -> StreamAddress:
        """Address of the stream that the name stands for."""
        return self._async.address

    def open(self) -> None:
        """Subscribe now instead of at the first batch; later publications arrive."""
        self._call(_opened(self._async))

    def __iter__(self) -> Iterator[Received]:
        """Yield the batches until the connection ends, and wait for each; Ctrl-C ends the wait.

        Raises Refused if they are not granted: Paused where the owner has paused the grant,
        NotGranted where it ended or waits, Unknown where there is no such stream that you may read.
        """
        return _SyncBatches(self)

    def _following(self) -> Received:
        return self._call(_following(aiter(self._async)))


class _SyncBatches:
    """An iterator over an input that goes on after a time-out of one of its waits."""

    def __init__(self, stream_input: SyncInput) -> None:
        self._input = stream_input

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Received:
        return self._input._following()  # noqa: SLF001 - a part of it


class SyncOutput(_Blocking[Output]):
    """A named output: published batches are kept until the recorder confirms them."""

    publish = _blocking(Output.publish)
    state_gap = _blocking(Output.state_gap)
    wait_drained = _blocking(Output.wait_drained)

    @property
    def spec(self) -> StreamSpec:
        """Spec of the stream, as it is registered."""
        return self._async.spec

    @property
    def unmarked(self) -> int:
        """Batches that the recorder has not confirmed yet."""
        return self._async.unmarked


class SyncTestbed(_Blocking[Testbed]):
    """A prototype's connection without asyncio: its inputs, its outputs, and history.

    Use it as `with connect_sync() as testbed:`, or call `close` at the end.  Its calls may come
    from several threads.
    """

    history = _blocking(Testbed.history)
    freshness = _blocking(Testbed.freshness)
    sleep = _blocking(Testbed.sleep)

    def now(self) -> datetime:
        """Return the present instant in UTC: of the machine, or of the run that this is part of."""
        return self._async.now()

    def now_ns(self) -> int:
        """Return the present instant as `now` does, in ns since 1970."""
        return self._async.now_ns()

    @contextmanager
    def timeout(self, duration_s: float) -> Iterator[None]:
        """Limit a block: the call of the SDK that is in flight after `duration_s` of the machine,
        or of the run, or the next one, raises TimeoutError.
        """
        end_ns = self._async.program_time.passed_ns() + round(duration_s * NS_PER_S)
        before = _END_NS.get()
        limit = _END_NS.set(end_ns if before is None else min(before, end_ns))
        try:
            yield
        finally:
            _END_NS.reset(limit)

    def input(self, name: str, *, fill: bool = False) -> SyncInput:
        """Return an input by name: `for batch in testbed.input("rig")`.

        fill: after a break, yield the missed samples from history first.
        """
        return SyncInput(self._async.input(name, fill=fill), self._thread)

    def output(
        self,
        name: str,
        signals: Sequence[Signal],
        *,
        description: str = "",
        past_limit_s: float = PAST_LIMIT_S,
        future_limit_s: float = FUTURE_LIMIT_S,
    ) -> SyncOutput:
        """Register an output with its signals, and open it; its limits as in `Testbed.output`."""
        registered = self._async.output(
            name,
            signals,
            description=description,
            past_limit_s=past_limit_s,
            future_limit_s=future_limit_s,
        )
        return SyncOutput(self._call(registered), self._thread)

    def close(self) -> None:
        """Wait for the recorder's last marks, up to `drain_s`, and close the connection."""
        self._thread.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connection; after Ctrl-C at once, without waiting for marks."""
        del kind, traceback
        try:
            self._thread.close(at_once=isinstance(error, KeyboardInterrupt))
        except Exception:
            if error is None:
                raise


def connect_sync(
    settings: PrototypeSettings | None = None, bus_settings: BusSettings | None = None
) -> SyncTestbed:
    """Connect a prototype that has no event loop; its calls wait for their results.

    The connection lives on an event loop in a thread of its own, so it works in a notebook too.
    Settings are read from the environment unless given.  Raises Invalid, Forbidden if the
    credential is wrong, Unavailable if broker or API do not answer.
    """
    thread = LoopThread(connection.connect(settings, bus_settings))
    return SyncTestbed(thread.value, thread)


def read_history(  # noqa: PLR0913 - the parts of a query, by name
    stream: str,
    *signals: str,
    from_: Time | None = None,
    to: Time | None = None,
    points: int | None = None,
    every: str | None = None,
    how: str | None = None,
    space: str | None = None,
) -> History:
    """Fetch stored samples in one call, without asyncio and without the broker.

    stream: its address, organisation/equipment/stream, or a name that TESTBED_INPUTS or
    TESTBED_OUTPUTS binds.  signals: their names, all by default.  from_, to: times such as "-10m",
    "yesterday", "2026-11-23" or an aware datetime; the last hour by default.  points: thin each
    signal to about so many samples, keeping least and greatest values.  every, how: one value for
    each window of that width, such as "1s" and "mean".  space: TESTBED_SPACE by default.  Raises
    Invalid for a wrong setting or time, or if there is no credential; Unknown for a stream that you
    cannot read; Unavailable if the API does not answer.
    """
    settings, http = connection.from_environment(HttpSettings)
    names = settings.inputs | settings.outputs
    address = connection.bound(names, stream, "input or output", is_in_run=settings.is_in_run)
    begin_ns, end_ns = spans.between(WallClock().now_ns(), from_=from_, to=to)
    chosen = settings.space if space is None else checked_space(space)
    windows = Aggregation.parse(every, how)
    query = HistoryQuery(chosen, begin_ns, end_ns, signals, points, aggregation=windows)
    credential = http.credential.get_secret_value()
    if not credential:
        raise profiles.no_credential(os.environ)
    Credential.parse(credential)
    thread = LoopThread(api_client.connect(settings.api, credential, ca=http.ca))
    try:
        return thread.call(history.fetch(thread.value, address, query))
    finally:
        thread.close()


async def _opened(stream_input: Input) -> None:
    """Open an input on the loop that it lives on."""
    await stream_input.open()


async def _following(batches: AsyncIterator[Received]) -> Received:
    """The next batch."""
    return await anext(batches)


async def _limited(time: ProgramTime, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a coroutine until the end that the calling thread has set, at the latest."""
    end_ns = _END_NS.get()
    if end_ns is None:
        return await coroutine
    async with time.timeout((end_ns - time.passed_ns()) / NS_PER_S):
        return await coroutine
