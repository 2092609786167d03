"""What the client of the API says of a request that did not go, and of what it was given."""

import httpx
import pytest

from broker import api_client
from broker.errors import Invalid

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
