"""The client of the API sends a POST again whose answer was lost, and says when it gave up."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from broker import api_client
from broker.credential import Credential
from broker.errors import Unavailable
from tests.services import LOOPBACK, free_port

ANSWER = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Pauses of a test."""
    monkeypatch.setattr(api_client, "AGAIN_AFTER_S", (0.02, 0.02, 0.02, 0.02))


@asynccontextmanager
async def losing(answers: int, port: int = 0) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that reads requests whole and closes the first few connections without an answer."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        requests.append(head + await reader.readexactly(int(length[1]) if length else 0))
        if len(requests) > answers:
            writer.write(ANSWER)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, LOOPBACK, port)
    async with server:
        yield f"http://{LOOPBACK}:{server.sockets[0].getsockname()[1]}", requests


def keys(requests: list[bytes]) -> list[bytes]:
    return [
        match[1] for each in requests if (match := re.search(rb"(?i)idempotency-key: (\w+)", each))
    ]


async def test_a_post_whose_answer_was_lost_goes_again_with_its_key():
    credential = Credential.make("fay").text
    async with losing(2) as (url, requests), api_client.connect(url, credential) as api:
        assert await api.request("POST", "/grants", json={"a": 1}) == {}
        assert await api.request("POST", "/grants", json={"a": 1}) == {}
    first, *others = keys(requests)
    assert others[:2] == [first, first]
    assert len(requests) == len(others) + 1 == 4
    assert others[2] != first
    assert len({request.partition(b"\r\n\r\n")[2] for request in requests}) == 1


async def test_a_post_that_was_never_answered_may_have_been_carried_out():
    credential = Credential.make("fay").text
    async with losing(99) as (url, requests), api_client.connect(url, credential) as api:
        with pytest.raises(Unavailable, match="the request may have been carried out"):
            await api.request("POST", "/grants", json={})
    assert len(requests) == 5
    assert len(set(keys(requests))) == 1


async def test_what_did_not_reach_the_api_is_not_sent_again():
    url = f"http://{LOOPBACK}:{free_port()}"
    async with api_client.connect(url, Credential.make("fay").text) as api:
        with pytest.raises(Unavailable, match="did not answer") as raised:
            await api.request("POST", "/grants", json={})
    assert "carried out" not in str(raised.value)


@pytest.mark.parametrize(("method", "credential"), [("GET", "fay"), ("POST", "")])
async def test_a_get_and_a_post_without_a_credential_go_once(method, credential):
    text = Credential.make(credential).text if credential else ""
    async with losing(1) as (url, requests), api_client.connect(url, text) as api:
        with pytest.raises(Unavailable):
            await api.request(method, "/sign-in")
    assert len(requests) == 1
    assert keys(requests) == []
