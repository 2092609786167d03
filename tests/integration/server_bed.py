"""Fixtures of many tests: a server in this process, and the owners of two organisations."""

import pytest

from tests.integration.test_server import serving
from tests.owners import founded


@pytest.fixture
async def server(tmp_path):
    """A server that runs in this process, with a data folder of its own."""
    async with serving(tmp_path / "data") as running:
        yield running


@pytest.fixture
async def owners(server):
    """Clients of the API, signed in as the owners of a factory and of a company."""
    async with founded(f"http://{server.api}", server.administrator) as organisations:
        yield organisations
