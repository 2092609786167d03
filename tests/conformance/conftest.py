"""The brokers that the bus suite runs over."""

from collections.abc import AsyncIterator

import pytest

from tests.conformance import brokers


@pytest.fixture(params=[brokers.open_nats, brokers.open_mosquitto], ids=["nats", "mosquitto"])
async def broker(request, tmp_path) -> AsyncIterator[brokers.Broker]:
    async with request.param(tmp_path) as opened:
        yield opened
