"""The kernel's list of connections."""

import contextlib
import os
import socket
import subprocess
import sys

import pytest

from broker.process import sockets
from broker.process.sockets import Peer


@contextlib.contextmanager
def connected(server):
    """The client's end of a connection to a listening socket, accepted."""
    family, address = server.family, server.getsockname()
    with socket.socket(family) as mine:
        mine.connect(address)
        with server.accept()[0]:
            yield mine


def test_only_what_stands_is_listed():
    with socket.create_server(("127.0.0.1", 0)) as server:
        before = sockets.established(os.getpid())
        with connected(server) as mine:
            ends = {Peer(*mine.getsockname()), Peer(*server.getsockname())}
            assert sockets.established(os.getpid()) - before == ends
        with socket.create_connection(server.getsockname()) as mine, server.accept()[0] as theirs:
            theirs.shutdown(socket.SHUT_WR)
            assert not sockets.established(os.getpid()) - before, "half of it is closed: it ends"


def test_addresses_of_both_kinds_are_read():
    with (
        socket.create_server(("::1", 0), family=socket.AF_INET6) as server,
        connected(server) as mine,
    ):
        assert Peer("::1", mine.getsockname()[1]) in sockets.established(os.getpid())
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        address = ("127.0.0.1", server.getsockname()[1])
        with socket.create_connection(address) as mine, server.accept()[0] as theirs:
            assert theirs.getpeername()[0] == "::ffff:127.0.0.1"
            listed = sockets.established(os.getpid())
            assert Peer("127.0.0.1", mine.getsockname()[1]) in listed
            assert not [peer for peer in listed if "ffff" in peer.host]


def test_a_connection_of_this_machine_is_there_until_it_is_closed():
    with socket.create_server(("127.0.0.1", 0)) as server:
        with connected(server) as mine:
            peer = Peer(*mine.getsockname())
            assert peer in sockets.established(os.getpid())
        assert peer not in sockets.established(os.getpid())


def test_of_no_process_nothing_is_known():
    with pytest.raises(OSError, match=f"no process {2**22 + 1}"):
        sockets.established(2**22 + 1)
    with pytest.raises(OSError, match=f"no process {2**22 + 1}"):
        sockets.process_name(2**22 + 1)


def test_a_process_that_listens_nowhere_visible_is_refused_and_does_not_seem_without_peers():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        with pytest.raises(OSError, match=f"process {child.pid} listens in a network namespace"):
            sockets.established(child.pid)
        child.stdin.close()
