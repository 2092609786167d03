"""The guard of every test sees what a test may leave behind."""

import socket
import subprocess
import sys
import threading

import pytest

from tests import leftovers

if not leftovers.PROC.exists():
    pytest.skip("children and sockets are read from Linux's /proc", allow_module_level=True)


def held() -> str:
    return "\n".join(leftovers.held(shared_pids=()).values())


def test_a_thread_is_seen_until_it_ends():
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait, name="left-alone")
    thread.start()
    assert "thread left-alone" in held()
    ended.set()
    thread.join()
    assert "left-alone" not in held()


def test_a_child_is_seen_until_somebody_has_waited_for_it():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert f"child {child.pid} " in held()
    assert f"child {child.pid} " not in held()


def test_a_child_of_the_session_is_not_a_tests_own():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert str(child.pid) not in leftovers.held(shared_pids=[child.pid])


def test_a_listening_socket_is_seen_until_it_is_closed():
    with socket.create_server(("127.0.0.1", 0)) as server:
        listening = f"TCP socket on port {server.getsockname()[1]} to port 0"
        assert listening in held()
    assert listening not in held()
