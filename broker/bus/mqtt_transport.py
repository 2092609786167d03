"""The TCP or TLS connection below MQTT: buffered writes, and the keep-alive timer.

Everything written in one turn of the event loop leaves in one call to the system.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

TICK_S = 1.0
LINGER_S = 1.0
"""Time that the peer has to close the connection after we closed our side of it."""


class Transport(asyncio.Protocol):
    """A socket that packets are written to and bytes are received from."""

    def __init__(
        self,
        on_connect: Callable[[], None],
        on_bytes: Callable[[bytes], None],
        on_close: Callable[[str], None],
        *,
        unsent_bytes: int,
    ) -> None:
        """on_close: gets the reason.  unsent_bytes: beyond so many, `writable` waits."""
        self._loop = asyncio.get_running_loop()
        self._on_connect = on_connect
        self._on_bytes = on_bytes
        self._on_close = on_close
        self._unsent_bytes = unsent_bytes
        self._socket: asyncio.Transport | None = None
        self._unsent: list[bytes] = []
        self._closed = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self.last_write_s = self._loop.time()
        """On the event loop's clock."""

    def write(self, packet: bytes) -> None:
        """Buffer a packet until the end of this turn of the event loop."""
        if not self._unsent:
            self._loop.call_soon(self.flush)
        self._unsent.append(packet)

    def flush(self) -> None:
        """Hand all buffered packets to the socket; they are dropped where it is closed."""
        packets, self._unsent = self._unsent, []
        if packets and self._socket is not None and not self._socket.is_closing():
            self._socket.write(b"".join(packets))
            self.last_write_s = self._loop.time()

    @property
    def is_writable(self) -> bool:
        """Whether the socket takes more; True once nothing is written to it any more."""
        return self._writable.is_set()

    async def writable(self) -> None:
        """Return once the socket takes more, or `stop_waiting` was called."""
        await self._writable.wait()

    def stop_waiting(self) -> None:
        """Release everybody who waits in `writable`."""
        self._writable.set()

    def pause_reading(self) -> None:
        """Receive nothing until `resume_reading`."""
        if self._socket is not None:
            self._socket.pause_reading()

    def resume_reading(self) -> None:
        """Receive again."""
        if self._socket is not None:
            self._socket.resume_reading()

    async def close(self) -> None:
        """Close our side, and wait up to LINGER_S for the peer to close its own.

        What the peer still sends is read: closing a socket that holds unread bytes sends a reset,
        which would take our last packets with it.
        """
        socket = self._socket
        if socket is None:
            return
        with suppress(OSError, RuntimeError, TimeoutError):
            socket.resume_reading()
            # TLS ends both ways at once, and reads what is left before it does
            socket.write_eof() if socket.can_write_eof() else socket.close()
            async with asyncio.timeout(LINGER_S):
                await self._closed.wait()
        self.abort()

    def abort(self) -> None:
        """Close at once, without a word to the peer; nothing where the connection is over."""
        if self._socket is not None:
            self._socket.abort()

    # --- asyncio.Protocol -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over the socket."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the types
        self._socket = transport
        transport.set_write_buffer_limits(high=self._unsent_bytes)
        self._on_connect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the end of the connection, whichever side closed it."""
        self._socket = None
        self._closed.set()
        self._on_close(str(exc) if exc else "the broker closed it")

    def pause_writing(self) -> None:
        """Let `writable` wait: too many bytes wait for the socket."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let `writable` return: the socket has taken enough."""
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """Pass the bytes on."""
        self._on_bytes(data)


class KeepAlive:
    """The keep-alive timer: pings a silent broker, and gives up on one that stays silent.

    Source: MQTT 3.1.1, 3.1.2.10.
    """

    def __init__(
        self,
        transport: Transport,
        keepalive_s: float,
        ping: Callable[[], None],
        on_silence: Callable[[str], None],
    ) -> None:
        """ping: sends a PINGREQ.  on_silence: gets the reason, after two silent intervals."""
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._keepalive_s = keepalive_s
        self._send_ping = ping
        self._on_silence = on_silence
        self._timer: asyncio.TimerHandle | None = None
        self._last_read_s = self._loop.time()
        self._pinged = False
        self.unanswered = 0
        """Pings without an answer."""
        self.paused = False
        """Whether we do not read: the broker's silence proves nothing, but it must hear from us."""

    def start(self) -> None:
        """Check every TICK_S, until `stop`."""
        self._timer = self._loop.call_later(TICK_S, self._tick)

    def stop(self) -> None:
        """End the checks."""
        if self._timer is not None:
            self._timer.cancel()

    def received(self) -> None:
        """Note that the broker sent something."""
        self._last_read_s = self._loop.time()
        self._pinged = False

    def resume(self) -> None:
        """Count the broker's silence from now on: we read again."""
        self.paused = False
        self._last_read_s = self._loop.time()

    def ping(self) -> None:
        """Ask the broker for an answer, now."""
        self.unanswered += 1
        self._send_ping()

    def _tick(self) -> None:
        self.start()
        now_s = self._loop.time()
        silent_s = now_s - self._last_read_s
        silent = silent_s >= self._keepalive_s and not self.paused
        if silent and self._pinged and silent_s >= 2 * self._keepalive_s:
            self._on_silence(f"it was silent for {silent_s:.0f} s")
        elif (silent and not self._pinged) or (
            now_s - self._transport.last_write_s >= self._keepalive_s - TICK_S
        ):
            self._pinged = True
            self.ping()
