"""The kernel's list of connections."""

import os
import socket
import sys

import pytest

from broker.process import sockets
from broker.process.sockets import Peer

ROWS = [
    "   0: 0100007F:49D3 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 899857",
    "   7: 0100007F:49D3 0100007F:B460 01 00000000:00000004 00:00000000 00000000  0  0 900432",
    "   9: 0100007F:49D3 0100007F:B49C 06 00000000:00000000 03:00001555 00000000  0  0 0 3",
    "  20: 0100007F:DDF2 0100007F:49D3 08 00000000:00000000 00:00000000 00000000  0  0 900590",
]
SIX = "1: {0}:49D3 {0}:B460 01 00000000:00000000 00:00000000 00000000 0 0 1"


@pytest.mark.skipif(sys.byteorder == "big", reason="the rows are a little-endian machine's")
def test_only_what_stands_is_listed():
    assert list(sockets.peers(ROWS)) == [Peer("127.0.0.1", 46176)]


@pytest.mark.skipif(sys.byteorder == "big", reason="the rows are a little-endian machine's")
def test_addresses_of_both_kinds_are_read():
    loopback = SIX.format("00000000000000000000000001000000")
    mapped = SIX.format("0000000000000000FFFF00000100007F")
    assert [one.host for one in sockets.peers([loopback, mapped])] == ["::1", "127.0.0.1"]


def test_a_connection_of_this_machine_is_there_until_it_is_closed():
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as mine, server.accept()[0]:
            peer = Peer(*mine.getsockname())
            assert peer in sockets.established(os.getpid())
        assert peer not in sockets.established(os.getpid())


def test_of_no_process_nothing_is_known():
    with pytest.raises(OSError, match="No such file"):
        sockets.established(2**22 + 1)
