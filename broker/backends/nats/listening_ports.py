"""The ports that a NATS server of ours is to listen on; loads nothing of the server."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from broker.errors import Taken
from broker.settings import Address

LOOPBACK = "127.0.0.1"


def check(host: str, port: int) -> None:
    """Raise Taken if an MQTT listener cannot be opened on a port; 0 can always be."""
    with _bound(host, port):
        pass


def choose(host: str, port: int) -> tuple[Address, Address]:
    """Choose an MQTT port, free if `port` is 0, and an internal one; raises Taken if one is in use.

    Both are held until both are known: a port that is let go at once may be given again.
    """
    with _bound(host, port) as mqtt, socket.socket() as inner:
        inner.bind((LOOPBACK, 0))
        return Address(host, mqtt.getsockname()[1]), Address(LOOPBACK, inner.getsockname()[1])


@contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket bound to an address, for as long as the context; raises Taken if it is in use."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, port != 0)
        try:
            bound.bind((host, port))
        except OSError as exc:
            raise Taken(
                f"the broker cannot listen on {Address(host, port)}: {exc.strerror}",
                hint="is another broker running there? choose another port with --mqtt-port",
            ) from exc
        yield bound
