"""The listeners of deployments: relayed to a real broker and to an API, with and without TLS."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from broker import tls
from broker.backends.nats import server as nats_server
from broker.bus import client
from broker.clock import WallClock
from broker.credential import Credential
from broker.errors import Forbidden, Invalid, Taken, Unavailable
from broker.settings import Address, BusSettings
from testbed_runner import netns, relay
from testbed_runner.doors import INSIDE, Doors
from testbed_runner.netns import Namespace
from testbed_runner.port import Traffic, Upstream
from tests import services
from tests.services import certificates

CLOCK = WallClock()
ADA = Credential("ada", "ada-secret-of-24-letters")
TOPIC = "tb1/live/data/factory/pump-rig/rig"
MARK = "tb1/live/mark/factory/pump-rig"
NOWHERE = Address(services.LOOPBACK, 9)
SECRETS = {ADA.principal: ADA.secret}
LARGE = b"x" * 200_000
REQUEST = b"GET / HTTP/1.1\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n\r\n"
MOST_BUFFERED = 32 * 1024**2
"""Bytes in the buffers of two sockets of the kernel, and in the relay."""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root enters network namespaces")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> tls.Certificate:
    return tls.Certificate(*certificates.make().write(tmp_path_factory.mktemp("tls")))


@asynccontextmanager
async def doors_of(upstream: Upstream, trust: tls.Trust | None = None) -> AsyncIterator[Doors]:
    async with asyncio.TaskGroup() as tasks:
        doors = Doors(upstream, trust=trust, clock=CLOCK, tasks=tasks)
        try:
            yield doors
        finally:
            await doors.close_all()


async def authorize(request: nats_server.ConnectRequest) -> nats_server.Permissions | None:
    topics = frozenset({TOPIC, MARK})
    is_right = SECRETS.get(request.principal) == request.secret
    return nats_server.Permissions(topics, topics) if is_right else None


@asynccontextmanager
async def broker_at(
    folder, port: int, certificate: tls.Certificate | None = None
) -> AsyncIterator[nats_server.NatsBroker]:
    settings = nats_server.NatsSettings(mqtt_port=port, certificate=certificate)
    server = nats_server.embedded(folder, clock=CLOCK, settings=settings)
    async with server.serve(authorize) as nats:
        yield nats


def opened(broker: Address, who: Credential = ADA):
    settings = BusSettings(broker=f"mqtt://{broker}", credential=SecretStr(who.text), timeout_s=5)
    return client.open(settings, CLOCK, client_id=who.principal)


def reports(log: list) -> list[str]:
    """The sentences of the relays in a log."""
    return [entry["reason"] for entry in log if entry["event"] == "relay reported a change"]


async def until(holds: Callable[[], bool], within_s: float = 5) -> None:
    async with asyncio.timeout(within_s):
        while not holds():
            await CLOCK.sleep(0.01)


# --- broker ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_tls", [False, True])
async def test_a_program_reads_and_publishes_through_its_listener(tmp_path, certificate, has_tls):
    trust = tls.Trust(tls.client_context(certificate.chain), "") if has_tls else None
    own = certificate if has_tls else None
    async with broker_at(tmp_path, 0, own) as nats, contextlib.AsyncExitStack() as stack:
        upstream = Upstream(api=NOWHERE, broker=nats.mqtt, broker_tls=has_tls)
        doors = await stack.enter_async_context(doors_of(upstream, trust))
        at = await doors.open(1)
        assert not doors.traffic(1).is_let_in
        bus = await stack.enter_async_context(opened(at.broker))
        await bus.ready()
        assert doors.traffic(1).is_let_in
        subscribed = bus.subscribe([TOPIC, MARK], capacity=10, overflow="block")
        inbox = await stack.enter_async_context(subscribed)
        for topic, payload in ((TOPIC, LARGE), (MARK, b"{}"), (TOPIC, b"{}")):
            await bus.publish(topic, payload)
            assert (await anext(inbox)).payload == payload
        traffic = doors.traffic(1)
        assert (traffic.messages_out, traffic.messages_in) == (2, 2)  # a mark is no batch
        assert traffic.bytes_in > len(LARGE) < traffic.bytes_out
        assert 0 <= CLOCK.monotonic_ns() - traffic.last_out_ns < 5e9


async def test_who_is_not_let_in_by_the_broker_is_not_counted_as_in(tmp_path):
    stranger = Credential("ada", "some-other-secret-of-ada")
    async with (
        broker_at(tmp_path, 0) as nats,
        doors_of(Upstream(api=NOWHERE, broker=nats.mqtt)) as doors,
    ):
        at = await doors.open(1)
        async with opened(at.broker, stranger) as bus:
            with pytest.raises((Forbidden, Unavailable)):
                await bus.ready()
        assert doors.traffic(1).bytes_in
        assert not doors.traffic(1).is_let_in


async def test_a_program_connects_again_once_the_broker_is_back(tmp_path):
    port = services.free_port()
    upstream = Upstream(api=NOWHERE, broker=Address(services.LOOPBACK, port))
    async with doors_of(upstream) as doors, contextlib.AsyncExitStack() as stack:
        at = await doors.open(1)
        async with broker_at(tmp_path, port):
            bus = await stack.enter_async_context(opened(at.broker))
            await bus.ready()
        with capture_logs() as log:
            await until(lambda: not bus.is_connected)
            await until(lambda: any("is away" in reason for reason in reports(log)))
            async with broker_at(tmp_path, port):
                await until(lambda: bus.is_connected, 15)
                await bus.publish(TOPIC, b"{}")
    assert doors.traffic(1) == Traffic()  # closed
    away, back = reports(log)
    assert away.startswith(f"the broker at 127.0.0.1:{port} is away: ")
    assert back == f"the broker at 127.0.0.1:{port} is back"


async def test_a_certificate_of_a_strange_authority_is_named_in_the_log(tmp_path, certificate):
    other, _ = certificates.make().write(tmp_path / "other")
    trust = tls.Trust(tls.client_context(other), "")
    async with tcp_server(answer_to_eof, certificate) as api:
        upstream = Upstream(api=api, broker=NOWHERE, api_tls=True)
        async with doors_of(upstream, trust) as doors:
            at = await doors.open(1)
            with capture_logs() as log:
                assert await exchanged(at.api, b"hello") == b""
    assert "TESTBED_CA" in str(log)


# --- API ------------------------------------------------------------------------------------------


@asynccontextmanager
async def tcp_server(serve, certificate: tls.Certificate | None = None) -> AsyncIterator[Address]:
    """A server of bytes, as the peer of a relay.  serve: gets reader and writer."""
    context = tls.server_context(certificate) if certificate else None
    server = await asyncio.start_server(serve, services.LOOPBACK, 0, ssl=context)
    async with server:
        yield Address(services.LOOPBACK, server.sockets[0].getsockname()[1])


async def answer_to_eof(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read to the end, answer with as much, and close."""
    with contextlib.suppress(ConnectionError):
        received = await reader.read()
        writer.write(OK + received)
        await writer.drain()
    writer.close()


async def answer_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a request with a large body, and close."""
    with contextlib.suppress(ConnectionError):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + LARGE)
        await writer.drain()
    writer.close()


@contextlib.contextmanager
def stalled_server() -> Iterator[Address]:
    """A listener whose connections nobody ever reads from."""
    with socket.create_server((services.LOOPBACK, 0), backlog=100) as server:
        yield Address(services.LOOPBACK, server.getsockname()[1])


async def connected(at: Address) -> socket.socket:
    return await asyncio.to_thread(socket.create_connection, (at.host, at.port), 5)


async def exchanged(at: Address, request: bytes, *, ends: bool = False) -> bytes:
    """All that a connection answers to a request.  ends: whether its half is closed after it."""
    reader, writer = await asyncio.open_connection(at.host, at.port)
    try:
        writer.write(request)
        if ends:
            writer.write_eof()
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_each_half_of_a_connection_ends_by_itself():
    async with (
        tcp_server(answer_to_eof) as api,
        doors_of(Upstream(api=api, broker=NOWHERE)) as doors,
    ):
        at = await doors.open(1)
        assert await exchanged(at.api, LARGE, ends=True) == OK + LARGE
        assert doors.traffic(1).is_let_in
        assert doors.traffic(1).bytes_out == len(LARGE)


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("has_tls", [False, True])
async def test_an_answer_arrives_whole_before_its_connection_ends(certificate, has_tls, ends):
    trust = tls.Trust(tls.client_context(certificate.chain), "")
    async with tcp_server(answer_at_once, certificate if has_tls else None) as api:
        upstream = Upstream(api=api, broker=NOWHERE, api_tls=has_tls)
        async with doors_of(upstream, trust) as doors:
            at = await doors.open(1)
            assert await exchanged(at.api, REQUEST, ends=ends) == OK + LARGE


async def test_a_program_that_floods_fills_no_memory_and_holds_up_nobody():
    async with contextlib.AsyncExitStack() as stack:
        broker = stack.enter_context(stalled_server())
        api = await stack.enter_async_context(tcp_server(answer_at_once))
        doors = await stack.enter_async_context(doors_of(Upstream(api=api, broker=broker)))
        at = await doors.open(1)
        flooding = stack.enter_context(await connected(at.broker))
        flooding.settimeout(0)
        assert await sent_until_full(flooding) < MOST_BUFFERED
        assert await exchanged(at.api, REQUEST) == OK + LARGE


async def sent_until_full(sending: socket.socket) -> int:
    """Send until nothing more is taken for half a second; returns the bytes."""
    sent, idle = 0, 0
    while idle < 10:
        try:
            sent += sending.send(LARGE)
            idle = 0
        except BlockingIOError:
            idle += 1
            await CLOCK.sleep(0.05)
        await CLOCK.sleep(0)
    return sent


async def test_a_program_that_leaves_connections_open_gets_no_more_of_them():
    with stalled_server() as api:
        async with doors_of(Upstream(api=api, broker=NOWHERE)) as doors:
            first, second = await doors.open(1), await doors.open(2)
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(relay.MOST_CONNECTIONS):
                    stack.enter_context(await connected(first.api))
                await CLOCK.sleep(0.2)
                assert await exchanged(first.api, REQUEST) == b""  # refused: else it would wait
                other = stack.enter_context(await connected(second.api))
                other.sendall(REQUEST)
                await until(lambda: doors.traffic(2).bytes_out == len(REQUEST))


async def test_closed_listeners_end_their_connections():
    with stalled_server() as api:
        async with doors_of(Upstream(api=api, broker=NOWHERE)) as doors:
            at = await doors.open(1)
            reader, writer = await asyncio.open_connection(at.api.host, at.api.port)
            writer.write(REQUEST)
            await until(lambda: doors.traffic(1).bytes_out == len(REQUEST))
            await doors.close(1)
            async with asyncio.timeout(5):
                assert await reader.read() == b""
            writer.close()
            assert not doors.is_open(1)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(at.api.host, at.api.port)


async def test_a_runner_that_starts_again_listens_where_the_program_was_told_to_connect():
    async with (
        tcp_server(answer_at_once) as api,
        doors_of(Upstream(api=api, broker=NOWHERE)) as doors,
    ):
        at = await doors.open(1)
        await doors.close(1)
        assert await doors.open(1, at) == at
        assert await exchanged(at.api, REQUEST) == OK + LARGE
        with pytest.raises(Taken, match=str(at.api.port)):
            await doors.open(2, at)


# --- network namespaces ---------------------------------------------------------------------------

PROGRAM = f"""
import fcntl, socket, struct, sys
with socket.socket() as s:  # loopback up, as every container engine does
    fcntl.ioctl(s, 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40))
print("up", flush=True)
sys.stdin.readline()
with socket.create_connection(("127.0.0.1", 8600)) as s:
    s.sendall({REQUEST!r})
    received = b""
    while part := s.recv(65536):
        received += part
print(len(received), flush=True)
for address in sys.argv[1:]:
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), 2).close()
        print("reached")
    except OSError as exc:
        print(exc.strerror)
"""


@asynccontextmanager
async def isolated(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program in a network namespace of its own, whose loopback is up."""
    command = ("unshare", "--net", sys.executable, "-c", PROGRAM, *arguments)
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert await process.stdout.readline() == b"up\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@needs_root
async def test_a_program_without_a_network_reaches_its_listeners_and_nothing_else():
    async with (
        tcp_server(answer_at_once) as api,
        doors_of(Upstream(api=api, broker=NOWHERE)) as doors,
    ):
        async with isolated(str(api), "192.0.2.1:80") as program:
            assert await doors.open_inside(1, program.pid) == INSIDE
            program.stdin.write(b"go\n")
            async with asyncio.timeout(10):
                lines = (await program.stdout.read()).decode().splitlines()
        assert lines == [str(len(OK + LARGE)), "Connection refused", "Network is unreachable"]
        assert doors.traffic(1).is_let_in


@needs_root
async def test_listeners_are_bound_again_in_a_namespace_that_has_them_no_more():
    async with isolated() as program, doors_of(Upstream(api=NOWHERE, broker=NOWHERE)) as doors:
        for _ in range(2):
            await doors.open_inside(1, program.pid)
        with pytest.raises(Unavailable, match="Address already in use"):
            await doors.open_inside(2, program.pid)


def own_namespaces() -> set[Path]:
    """The network namespaces of all threads of this process."""
    return {(thread / "ns/net").readlink() for thread in Path("/proc/self/task").iterdir()}


@needs_root
async def test_no_thread_of_the_runner_stays_in_a_strange_namespace():
    before = own_namespaces()
    async with isolated() as program:
        with Namespace(program.pid) as namespace:
            assert namespace.is_alive
            for listener in namespace.listen(INSIDE):
                listener.close()
    assert own_namespaces() == before
    assert len(before) == 1
    assert netns.may_enter() == ""


@needs_root
async def test_a_process_that_is_not_the_containers_is_left_alone():
    with pytest.raises(Invalid, match="shares the network of the runner"):
        Namespace(os.getpid())
    async with isolated() as program:
        with pytest.raises(Invalid, match="none of container 0123456789ab"):
            Namespace(program.pid, container="0123456789ab" + 52 * "c")
        namespace = Namespace(program.pid)
    with namespace:
        assert not namespace.is_alive
    with pytest.raises(Unavailable, match="has ended"):
        Namespace(program.pid)
