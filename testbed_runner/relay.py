"""Relays the connections of a program to the API and the broker, and to nothing else.

The program speaks plain HTTP and MQTT with a listener that nobody else reaches; the relay speaks
TLS with the testbed where this has it.  What passes is counted and never changed.  A program that
floods or leaves connections open hurts itself alone: connections, memory and bytes per second of a
relay have limits.

On Docker Swarm this runs in a container with Python alone, so it imports no library.
"""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol

from broker.clock import NS_PER_S, Clock
from testbed_runner.traffic import TrafficCounter, Watch

MOST_CONNECTIONS = 32
"""Of one listener; a program that opens more has these refused."""
MOST_BYTES_S = 32 * 1024**2
"""Bytes that a relay passes on in a second, both ways, lest one program takes a core with them."""
MOST_ACCEPTED_S = 50
"""Connections that a listener accepts in a second, after MOST_CONNECTIONS at once."""
LINGER_S = 5.0
"""Time that a program has to close a connection that the testbed has closed."""
HALF_OPEN_S = 60.0
"""Time that the API has to answer a program that has closed its half, where TLS has no halves."""
_READ_BYTES = 64 * 1024
_UNSENT_BYTES = 64 * 1024
_RETRY_S = 1.0


class RelayTarget(Protocol):
    """A listener of the testbed, to which relays connect.

    half_open_s: how long it may go on sending once a program has closed its own half of a
    connection, where TLS cannot tell it so.
    """

    half_open_s: float

    def watch(self, counter: TrafficCounter) -> Watch:
        """Make the watch of a connection to it."""

    async def connect(self, protocol: asyncio.BaseProtocol) -> None:
        """Connect a protocol to it; raises OSError or TimeoutError, which it has reported."""


class Pace:
    """Bounds units of something by so many a second, and lets as many go at once."""

    def __init__(self, most_s: float, burst: float, clock: Clock) -> None:
        """most_s: a second.  burst: as many may go at once after a rest."""
        self._most_s = most_s
        self._burst = burst
        self._clock = clock
        self._left = burst
        self._at_ns = clock.monotonic_ns()

    def take(self, count: float) -> float:
        """Count what has gone; returns the seconds to wait before more goes, 0 for none."""
        now_ns = self._clock.monotonic_ns()
        passed_s, self._at_ns = (now_ns - self._at_ns) / NS_PER_S, now_ns
        self._left = min(self._left + passed_s * self._most_s, self._burst) - count
        return max(-self._left / self._most_s, 0.0)


class Relay:
    """The relay of one container: carries what its listeners accept, until it is closed."""

    def __init__(
        self,
        counter: TrafficCounter,
        *,
        clock: Clock,
        tasks: asyncio.TaskGroup,
        report: Callable[[str], None],
    ) -> None:
        """counter: counts all that passes.  tasks: carries the connections.  report: of faults."""
        self.counter = counter
        self._report = report
        self.refused = 0
        """Connections beyond MOST_CONNECTIONS of a listener."""
        self.pace = Pace(MOST_BYTES_S, MOST_BYTES_S, clock)
        self.buffer = memoryview(bytearray(_READ_BYTES))
        """Where each read lands: it is passed on before the next one."""
        self._clock = clock
        self._tasks = tasks
        self._running: set[asyncio.Task[None]] = set()
        self._sides: set[RelayedSide] = set()
        self._listeners: list[socket.socket] = []

    def listen(self, listener: socket.socket, target: RelayTarget, name: str) -> None:
        """Carry all connections of a listening, non-blocking socket, which the relay then owns."""
        self._listeners.append(listener)
        self._run(self._accept(listener, target, name), f"{name}: listener")

    async def close(self) -> None:
        """Close the listeners, and end all connections at once."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(set(self._running))
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        for side in set(self._sides):
            side.abort()
            await side.closed.wait()
        self._sides.clear()

    def _run(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = self._tasks.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _accept(self, listener: socket.socket, target: RelayTarget, name: str) -> None:
        pace = Pace(MOST_ACCEPTED_S, MOST_CONNECTIONS, self._clock)
        connections: set[asyncio.Task[None]] = set()
        while True:
            try:
                accepted, _ = await asyncio.get_running_loop().sock_accept(listener)
            except OSError as exc:  # such as no file descriptor left in this process
                self._report(f"{name}: a connection could not be accepted: {exc}")
                await self._clock.sleep(_RETRY_S)
                continue
            if len(connections) >= MOST_CONNECTIONS:
                self.refused += 1
                accepted.close()
            elif (sides := await self._taken_over(accepted, target)) is not None:
                task = self._run(self._carry(*sides, target), f"{name}: connection")
                connections.add(task)
                task.add_done_callback(connections.discard)
            if (wait_s := pace.take(1)) > 0:
                await self._clock.sleep(wait_s)

    async def _taken_over(
        self, accepted: socket.socket, target: RelayTarget
    ) -> tuple["RelayedSide", "RelayedSide"] | None:
        """Make both sides of a connection: the program's, which is not read yet, and the other.

        Returns None if the connection is gone already.
        """
        watch = target.watch(self.counter)
        near = RelayedSide(self, watch.sent, half_open_s=LINGER_S)
        far = RelayedSide(self, watch.answered, half_open_s=target.half_open_s)
        near.peer, far.peer = far, near
        near.hold(far)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: near, accepted)
        except OSError:
            accepted.close()
            return None
        self._sides |= {near, far}
        return near, far

    async def _carry(self, near: "RelayedSide", far: "RelayedSide", target: RelayTarget) -> None:
        """Connect the far side, and stay until both are closed."""
        try:
            await target.connect(far)
            near.release(far)
        except (OSError, TimeoutError):
            near.abort()  # the program sees that nobody is there, and tries again
        await near.closed.wait()
        await far.closed.wait()
        self._sides -= {near, far}


class RelayedSide(asyncio.BufferedProtocol):
    """One side of a relayed connection: the program's, or the testbed's."""

    peer: "RelayedSide"

    def __init__(self, relay: Relay, look: Callable[[bytes], None], *, half_open_s: float) -> None:
        """look: gets the bytes that arrive on this side, before the other side does.

        half_open_s: how long this side may stay open once the other has sent its last byte, where
        it cannot be told so.
        """
        self.closed = asyncio.Event()
        """Whether it has no socket: not yet, or no more."""
        self.closed.set()
        self.is_at_end = False
        """Whether its last byte has arrived."""
        self._relay = relay
        self._look = look
        self._half_open_s = half_open_s
        self._transport: asyncio.Transport | None = None
        self._holds: set[object] = set()
        self._timer: asyncio.TimerHandle | None = None

    def hold(self, reason: object) -> None:
        """Read no more from this side while there is any reason not to."""
        self._holds.add(reason)
        if self._transport is not None:
            self._transport.pause_reading()

    def release(self, *reasons: object) -> None:
        """Drop reasons not to read, and read again if none is left."""
        self._holds.difference_update(reasons)
        if not self._holds and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        """Send bytes that came from the other side; they are dropped where this one is closed."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def end(self) -> None:
        """Pass on that the other side has sent its last byte, after all that it has sent."""
        transport, is_alone = self._transport, self.peer.closed.is_set()
        if transport is None or transport.is_closing():
            return
        if is_alone:
            self.release(*self._holds)  # nobody gets what still comes, but its end must be seen
        has_halves = transport.can_write_eof()  # TLS has none
        if self.is_at_end or (not has_halves and (is_alone or not self._half_open_s)):
            transport.close()
            return
        if has_halves:
            with suppress(OSError):  # a reset, which is reported next
                transport.write_eof()
        if is_alone or not has_halves:
            self._abort_in(LINGER_S if is_alone else self._half_open_s)

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _abort_in(self, within_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(within_s, self.abort)

    # --- asyncio.BufferedProtocol -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over the socket."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the types
        self._transport = transport
        self.closed.clear()
        transport.set_write_buffer_limits(high=_UNSENT_BYTES)
        if self._holds:
            transport.pause_reading()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes go."""
        del sizehint
        return self._relay.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Look at the bytes, and pass them on."""
        data = bytes(self._relay.buffer[:nbytes])
        self._look(data)
        self.peer.write(data)
        if (wait_s := self._relay.pace.take(nbytes)) > 0:
            self.hold(self._relay)
            asyncio.get_running_loop().call_later(wait_s, self.release, self._relay)

    def eof_received(self) -> bool:
        """Pass on the end of this side; returns whether it stays open for what the other sends."""
        self.is_at_end = True
        is_over = self.peer.is_at_end or self.peer.closed.is_set()
        self.peer.end()
        return not is_over and self._transport is not None and self._transport.can_write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the other side too: in order, or at once if this one was cut."""
        self._transport = None
        self.closed.set()
        if self._timer is not None:
            self._timer.cancel()
        if exc is None:
            self.peer.end()
        else:
            self.peer.abort()

    def pause_writing(self) -> None:
        """Read no more from the other side: this one does not take it as fast."""
        self.peer.hold(self)

    def resume_writing(self) -> None:
        """Read from the other side again."""
        self.peer.release(self)
