"""What the client of the API says of a request that did not go, and of what it was given."""

import asyncio

import httpx
import pytest

from broker import api_client
from broker.errors import Invalid, Unavailable

SECRET = "qwertyuiopasdfghjklzxcvbnm0123456789"


def test_the_reason_of_a_header_that_cannot_be_sent_does_not_repeat_it():
    error = httpx.LocalProtocolError(f"Illegal header value b'Bearer fay.{SECRET}'")
    assert api_client.reason_of(error) == "LocalProtocolError: the request cannot be sent"
    away = httpx.ConnectError("All connection attempts failed")
    assert api_client.reason_of(away) == "ConnectError('All connection attempts failed')"


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        (f"http://fay:{SECRET}@127.0.0.1:9", "does not stand in the address"),
        (f"http://fay:{SECRET}@127.0.0.1:none", "TESTBED_API is no URL"),
    ],
)
async def test_a_secret_in_the_address_is_refused_and_not_repeated(url, sentence):
    with pytest.raises(Invalid, match=sentence) as raised:
        async with api_client.connect(url, ""):
            pass
    assert SECRET not in str(raised.value)
    assert raised.value.__cause__ is None


async def test_a_server_of_our_own_that_does_not_answer_in_time_is_not_said_to_be_down():
    async with (
        await asyncio.start_server(_silent, "127.0.0.1") as silent,
        api_client.connect(
            "http://{}:{}".format(*silent.sockets[0].getsockname()),
            "",
            timeout_s=0.05,
            names=api_client.OWN_SERVER,
        ) as api,
    ):
        with pytest.raises(Unavailable) as raised:
            await api.request("GET", "/streams")
    assert str(raised.value) == (
        "the testbed of this run did not answer in 0.05 s: the computer may be too busy (run again)"
    )


async def _silent(reader, writer):
    """Take a request and answer nothing until the client has gone."""
    await reader.read()
    writer.close()


async def test_a_server_of_our_own_that_has_ended_is_looked_for_in_its_log():
    async with api_client.connect("http://127.0.0.1:9", "", names=api_client.OWN_SERVER) as api:
        with pytest.raises(Unavailable, match=r"did not answer: ConnectError.*server\.log"):
            await api.request("GET", "/streams")
