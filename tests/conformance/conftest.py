"""What the suites run over: brokers, and databases for the tables."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.clock import WallClock
from testbed.server import pki
from testbed_api.registry.postgresql_address import PostgresqlAddress
from testbed_api.stores import duckdb, influxdb
from tests.conformance import beds, brokers, registries
from tests.conformance.world import World


@pytest.fixture(params=[brokers.open_nats, brokers.open_mosquitto], ids=["nats", "mosquitto"])
async def broker(request, tmp_path) -> AsyncIterator[brokers.Broker]:
    async with request.param(tmp_path) as opened:
        yield opened


@pytest.fixture(params=[brokers.open_nats, brokers.open_mosquitto], ids=["nats", "mosquitto"])
async def secure_broker(request, tmp_path) -> AsyncIterator[brokers.Broker]:
    """One with TLS."""
    folder = tmp_path / "pki"
    pki.init(folder, (), WallClock().now_ns())
    (tmp_path / "broker").mkdir()
    async with request.param(tmp_path / "broker", folder) as opened:
        yield opened


@pytest.fixture(params=["duckdb", "influxdb"])
def opened(request, tmp_path):
    """Opens the store on the same data each time it is called."""
    if request.param == "duckdb":
        return lambda: duckdb.open(tmp_path / "samples.duckdb")
    server = request.getfixturevalue("influxd")
    bucket = f"bucket-{tmp_path.name}"
    return lambda: influxdb.open(
        server.url, token=server.token, organisation=server.organisation, bucket=bucket
    )


@pytest.fixture
async def store(opened):
    async with opened() as store:
        yield store


@pytest.fixture(params=["nats", "mosquitto"])
async def world(request, tmp_path, tables) -> AsyncIterator[World]:
    """A broker with a registry behind it, as it is run."""
    await tables.put_into(tmp_path)
    async with beds.opened(request.param, tmp_path) as bed:
        opened = World(bed)
        await opened.found()
        yield opened


@pytest.fixture(params=["sqlite", "postgresql"])
async def where(request, tmp_path, tables) -> Path | PostgresqlAddress:
    """A database with the tables, each in its own."""
    if request.param == "postgresql":
        return await tables.database(request.getfixturevalue("postgresql"), tmp_path.name)
    await tables.put_into(tmp_path)
    return tmp_path


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request, tmp_path) -> Path | PostgresqlAddress:
    """An empty database, in which the tables are to be made."""
    return registries.where(request, tmp_path)
