"""What the reception says to a server, in which order."""

import asyncio

import pytest

from broker.backends.nats import connect_requests
from broker.backends.nats.auth_service import AuthService
from broker.backends.nats.server import Keys
from broker.clock import WallClock
from broker.settings import Address

INFO = b'INFO {"server_id":"x","version":"2.15.1","max_payload":1000000,"proto":1}\r\n'
LOOPBACK = "127.0.0.1"


async def test_the_door_opens_after_the_server_knows_who_answers() -> None:
    said: list[list[bytes]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines: list[bytes] = []
        said.append(lines)
        writer.write(INFO)
        while line := await reader.readline():
            lines.append(line)
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    async def answer(_: object) -> None:
        pytest.fail("no client connects here")

    server = await asyncio.start_server(serve, LOOPBACK, 0)
    address = Address(LOOPBACK, server.sockets[0].getsockname()[1])
    service = AuthService(address, Keys.make(), WallClock())
    async with server, asyncio.TaskGroup() as tasks:
        attending = tasks.create_task(
            service.run(answer, connect_requests.no_rank), name="reception"
        )
        await service.ready()
        (account,) = [
            connection
            for connection in said
            if any(b"$SYS.REQ.USER.AUTH" in line for line in connection)
        ]
        kinds = [line.split()[0] for line in account]
        attending.cancel()
    assert kinds.index(b"SUB") < len(kinds) - 1 - kinds[::-1].index(b"PING")
