"""A connection to a broker of sensors, by paho-mqtt: TCP or websockets, with or without TLS.

paho's client runs on the event loop: its socket is read when it is readable and no inbox forbids
it, so that a slow spool holds the broker back instead of filling memory.
"""

import asyncio
import socket
import ssl
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from broker import tls
from broker.bus.inbox import Delivery, Inbox, Message
from broker.errors import BedError, Forbidden, Unavailable
from broker.tls import Certificate, TlsEndpoint
from gateway.links.mqtt import refusal
from gateway.mapping.model import MqttBroker

if TYPE_CHECKING:
    from paho.mqtt.reasoncodes import ReasonCode

MISC_EVERY_S = 0.5
MOST_IN_FLIGHT = 1_000
"""Messages that a broker of MQTT 5 sends before one of them is acknowledged."""
_T = TypeVar("_T")
_WANTS_CERTIFICATE = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE")
_REFUSES_CERTIFICATE: tuple[str, ...] = (
    "UNKNOWN_CA",
    "BAD_CERTIFICATE",
    "CERTIFICATE_EXPIRED",
    "CERTIFICATE_REVOKED",
)
_REFUSES_CERTIFICATE += ("CERTIFICATE_UNKNOWN", "UNSUPPORTED_CERTIFICATE", "ACCESS_DENIED")
_AWAY = ("Server unavailable", "Server busy", "Unspecified error", "Server shutting down")
"""Reasons after which another try may be let in."""


class _Client(paho.Client):
    """paho's client, which leaves no socket open where a handshake fails."""

    def _create_socket(self) -> Any:
        self._opened: list[socket.socket] = []
        try:
            return super()._create_socket()
        except BaseException:
            for opened in self._opened:
                opened.close()
            raise

    def _create_socket_connection(self) -> socket.socket:
        opened = super()._create_socket_connection()
        self._opened.append(opened)
        return opened

    def _ssl_wrap_socket(self, tcp_sock: socket.socket) -> ssl.SSLSocket:
        context: ssl.SSLContext = self._ssl_context  # type: ignore[assignment]
        secured = context.wrap_socket(
            tcp_sock, server_hostname=self._host, do_handshake_on_connect=False
        )
        try:
            secured.settimeout(self._connect_timeout)
            secured.do_handshake()
        except BaseException:
            secured.close()
            raise
        return secured


class SourceConnection:
    """A connection that `open` makes once, and that is never renewed.

    lost: ends with the reason once the connection is over.
    """

    def __init__(self, client_id: str, broker: MqttBroker, password: str, inbox: Inbox) -> None:
        """inbox: gets what arrives on its filters, which its reader acknowledges."""
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self._accepted: asyncio.Future[None] = self._loop.create_future()
        self._granted: asyncio.Future[list[ReasonCode]] = self._loop.create_future()
        self._broker = broker
        self._inbox = inbox
        self._paused = False
        self._said = ""
        """The last error that paho wrote to its log."""
        self._beat: asyncio.TimerHandle | None = None
        self._since_ping_s = 0.0
        self._client = self._new_client(client_id, password)

    def _new_client(self, client_id: str, password: str) -> paho.Client:
        broker = self._broker
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            protocol=paho.MQTTv5 if broker.version == "5" else paho.MQTTv311,
            transport="websockets" if broker.place.is_websocket else "tcp",
            clean_session=None if broker.version == "5" else True,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        if broker.user:
            client.username_pw_set(broker.user, password)
        if broker.place.is_websocket:
            client.ws_set_options(broker.place.path)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_log = self._on_log
        client.on_socket_open = self._on_socket_open
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_register_write
        client.on_socket_unregister_write = self._on_unregister_write
        return client

    # --- life ------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, be accepted, and subscribe; raises Forbidden or Unavailable."""
        broker = self._broker
        self._inbox.attach(self.resume)
        try:
            async with asyncio.timeout(broker.timeout_s):
                await self._connect()
                self._beat = self._loop.call_later(MISC_EVERY_S, self._misc)
                await self._unless_lost(self._accepted)
                await self._subscribe()
        except TimeoutError as exc:
            raise Unavailable(
                f"the broker at {broker.place} did not answer in {broker.timeout_s:g} s"
            ) from exc
        except (OSError, ValueError) as exc:
            raise self._unreachable(exc) from exc

    async def _connect(self) -> None:
        place = self._broker.place
        if place.is_secure:
            context = await asyncio.to_thread(self._tls)
            self._client.tls_set_context(context)
        properties = None
        if self._broker.version == "5":
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.ReceiveMaximum = MOST_IN_FLIGHT
        connect = partial(self._client.connect, place.host, place.port, properties=properties)
        await asyncio.to_thread(connect, keepalive=self._broker.keepalive_s)

    def _tls(self) -> ssl.SSLContext:
        """The TLS of the mapping; raises Forbidden for files that cannot be used."""
        broker = self._broker
        try:
            context = tls.client_context(broker.ca, setting="mqtt.ca")
            if broker.certificate is not None and broker.key is not None:
                tls.show_certificate(context, Certificate(broker.certificate, broker.key))
        except BedError as exc:
            raise Forbidden(exc.message, hint=exc.hint) from exc
        return context

    async def _subscribe(self) -> None:
        """Subscribe the inbox's filters; a refusal ends the inbox's iteration with Forbidden."""
        filters = self._inbox.filters
        self._client.subscribe([(each, self._inbox.qos) for each in filters])
        codes = await self._unless_lost(self._granted)
        refused = [each for each, code in zip(filters, codes, strict=True) if code.is_failure]
        if refused:
            self._inbox.refuse(
                Forbidden(
                    f"the broker refused to subscribe {refused[0]}", hint="its access list says so"
                )
            )

    async def _unless_lost(self, future: "asyncio.Future[_T]") -> _T:
        """The result of a future; raises Unavailable or Forbidden if the connection ends before."""
        either: list[asyncio.Future[Any]] = [future, self.lost]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if future.done():
            return future.result()
        raise self._broken(self.lost.result())

    async def close(self) -> None:
        """Disconnect, in order if the connection still stands."""
        if self._beat is not None:
            self._beat.cancel()
        if not self.lost.done():
            self.lost.set_result("it was closed")
        self._client.disconnect()
        with suppress(OSError, ValueError):
            self._client.loop_write()
        self._client._sock_close()  # noqa: SLF001 - paho closes its socket by reading alone

    # --- errors ----------------------------------------------------------------------------------

    def _unreachable(self, exc: OSError | ValueError) -> BedError:
        place = self._broker.place
        endpoint = TlsEndpoint(f"the broker at {place}", "mqtt.url", "mqtt.ca")
        if (error := tls.handshake_error(exc, endpoint)) is not None:
            return error
        if isinstance(exc, ConnectionResetError) and place.is_secure:
            return tls.no_tls(endpoint)
        return Unavailable(
            f"the broker at {place} did not answer: {getattr(exc, 'strerror', None) or exc}",
            hint=f"is it running, and is {place.scheme} the right protocol for this port?",
        )

    def _broken(self, reason: str) -> BedError:
        """The error of a connection that ended before it was accepted."""
        place, said = self._broker.place, self._said.upper()
        has_certificate = self._broker.certificate is not None
        if not has_certificate and any(word in said for word in _WANTS_CERTIFICATE):
            return Forbidden(
                f"the broker at {place} wants a certificate of its clients",
                hint="write its files into mqtt.certificate and mqtt.key",
            )
        if any(word in said for word in (*_WANTS_CERTIFICATE, *_REFUSES_CERTIFICATE)):
            return Forbidden(
                f"the broker at {place} refused the certificate in mqtt.certificate: {self._said}",
                hint="is it issued by the authority that the broker trusts, and not expired?",
            )
        if place.is_secure:
            wanted = "does it want a certificate of its clients? write mqtt.certificate and key"
            return Unavailable(
                f"the broker at {place} closed the connection in the TLS handshake: {reason}",
                hint="does it trust mqtt.certificate?" if has_certificate else wanted,
            )
        return Unavailable(
            f"the broker at {place} closed the connection: {reason}",
            hint="if its listener has TLS, write mqtts:// into mqtt.url; if it speaks MQTT 5 alone,"
            ' mqtt.version: "5"',
        )

    # --- paho's calls, in the event loop's thread but for the first socket -----------------------

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, code: Any, _more: Any) -> None:
        if self._accepted.done():
            return
        name = str(code)
        if not code.is_failure:
            self._accepted.set_result(None)
        elif name in _AWAY:
            self._accepted.set_exception(
                Unavailable(f"the broker at {self._broker.place} says: {name}")
            )
        else:
            self._accepted.set_exception(
                Forbidden(f"the broker at {self._broker.place} {refusal.REFUSED}{name}")
            )

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, code: Any, _more: Any) -> None:
        if not self.lost.done():
            self.lost.set_result(self._said or str(code))

    def _on_subscribe(self, _client: Any, _data: Any, _mid: int, codes: Any, _more: Any) -> None:
        if not self._granted.done():
            self._granted.set_result(codes)

    def _on_message(self, client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        mid, qos = message.mid, message.qos
        self._inbox.put(
            Message(
                topic=message.topic,
                payload=bytes(message.payload),
                retained=message.retain,
                duplicate=message.dup,
                delivery=Delivery(lambda: self._acknowledge(client, mid, qos), 1),
            )
        )

    def _acknowledge(self, client: paho.Client, mid: int, qos: int) -> None:
        if qos and not self.lost.done():
            client.ack(mid, qos)

    def _on_log(self, _client: Any, _data: Any, level: int, text: str) -> None:
        if level == paho.MQTT_LOG_ERR:
            self._said = text.removeprefix("failed to receive on socket: ")

    # --- the socket ------------------------------------------------------------------------------

    def _on_socket_open(self, _client: Any, _data: Any, sock: Any) -> None:
        self._loop.call_soon_threadsafe(self._watch, sock.fileno())

    def _watch(self, descriptor: int) -> None:
        if self._client.socket() is not None:
            self._loop.add_reader(descriptor, self._read)
            self._write()

    def _on_socket_close(self, _client: Any, _data: Any, sock: Any) -> None:
        descriptor = sock.fileno()
        if descriptor >= 0:
            self._loop.remove_reader(descriptor)
            self._loop.remove_writer(descriptor)

    def _on_register_write(self, _client: Any, _data: Any, sock: Any) -> None:
        self._loop.call_soon_threadsafe(self._watch_write, sock.fileno())

    def _watch_write(self, descriptor: int) -> None:
        if self._client.socket() is not None and descriptor >= 0:
            self._loop.add_writer(descriptor, self._write)

    def _on_unregister_write(self, _client: Any, _data: Any, sock: Any) -> None:
        with suppress(ValueError):
            self._loop.remove_writer(sock.fileno())

    def _read(self) -> None:
        """Read what is there, unless the inbox forbids it."""
        while (sock := self._client.socket()) is not None:
            if self._inbox.blocks(stretched=False):
                self._pause(sock.fileno())
                return
            self._client.loop_read()
            sock = self._client.socket()
            if sock is None or not _has_more(sock):
                return

    def _write(self) -> None:
        if self._client.socket() is not None:
            self._client.loop_write()

    def _pause(self, descriptor: int) -> None:
        self._paused = True
        self._loop.remove_reader(descriptor)

    def resume(self) -> None:
        """Read on, if it was paused and the inbox has room again."""
        sock = self._client.socket()
        if self._paused and sock is not None and not self._inbox.blocks(stretched=False):
            self._paused = False
            self._loop.add_reader(sock.fileno(), self._read)
            self._loop.call_soon(self._read)

    def _misc(self) -> None:
        """Keep the connection alive; while it is paused no answer is read, so none is missed."""
        if self.lost.done():
            return
        self._beat = self._loop.call_later(MISC_EVERY_S, self._misc)
        self._since_ping_s += MISC_EVERY_S
        if not self._paused:
            self._client.loop_misc()
            self._since_ping_s = 0.0
        elif self._since_ping_s >= self._broker.keepalive_s / 2:
            self._client._send_pingreq()  # noqa: SLF001 - paho has no public ping
            self._since_ping_s = 0.0


def _has_more(sock: Any) -> bool:
    """Whether bytes wait that the socket has read already, as TLS and websockets do."""
    pending = getattr(sock, "pending", None)
    return pending is not None and pending() > 0
