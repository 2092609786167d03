"""The socket that the API listens on; loads nothing of the server."""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from broker.errors import Taken

BACKLOG = 1_024
"""Connections that wait to be taken: all readers may come back at once."""
UNSENT_BYTES = 256 * 1024
"""Bytes of an answer that the kernel takes before the network does, which no revoke reaches."""
_OTHER_PORT = "choose another port with --port"
_WRONG_HOST = frozenset({errno.EADDRNOTAVAIL, socket.EAI_NONAME, socket.EAI_AGAIN})
"""Errors of an address that is not this machine's, or of a name that no address is known of."""


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Open the listening socket of the API; raises Taken if the port is in use."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # asyncio sees to it for its own sockets alone: head and body of an answer leave apart, and
        # the second would wait 40 ms for the caller's acknowledgement of the first
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # Linux, macOS
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        try:
            listener.bind((host, port))
            listener.listen(BACKLOG)
        except (OSError, UnicodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "it is no name of a host"
            is_host = not isinstance(exc, OSError) or exc.errno in _WRONG_HOST
            hint = "name an address of this machine with --host" if is_host else _OTHER_PORT
            raise Taken(f"cannot listen on {host}:{port}: {reason}", hint=hint) from exc
        yield listener
