"""What only PostgreSQL can show: being away, coming back, and letting nobody in."""

import asyncio
import socket

import asyncpg
import pytest
import sqlalchemy.exc
from sqlalchemy.dialects.postgresql import asyncpg as dialect

from broker.errors import BedError, Forbidden, Unavailable, Unknown
from broker.rights import Role
from testbed_api.domain import organisations
from testbed_api.domain.organisations import Organisation
from testbed_api.recorder.ledger import Ledger
from testbed_api.registry import engine as ways
from testbed_api.registry import postgresql
from testbed_api.registry.engine import open_engine, transaction
from testbed_api.registry.registry import Registry
from tests import services
from tests.conformance import registries
from tests.services import postgresql as product


@pytest.fixture
def address(postgresql, tmp_path):
    return registries.database(postgresql, tmp_path)


async def test_a_registry_that_restarts_is_away_and_comes_back_by_itself():
    with product.data_folder() as folder, product.serve(folder) as server:
        address = postgresql.address_of(server.new_database("restarted"), product.PASSWORD)
        async with open_engine(address) as engine:
            registry, ledger = Registry(engine), Ledger(engine)
            await registry.organisations.add(Organisation("factory", "The factory"))
            ada = organisations.person("ada", "factory", {Role.OWNER}, 0)
            await registry.principals.add(ada)
            server.crash()
            for attempt in (
                registry.principals.in_organisation("factory", 0),
                ledger.counts(),
                registry.principals.add(ada),
            ):
                with pytest.raises(Unavailable, match="the registry did not answer"):
                    await attempt
            with product.serve(folder, port=server.port):
                assert await registry.principals.find("ada", 0) == ada
                assert (await ledger.counts())["gaps"] == 0


async def test_a_crash_in_a_transaction_undoes_it_whole():
    with product.data_folder() as folder, product.serve(folder) as server:
        address = postgresql.address_of(server.new_database("crashed"), product.PASSWORD)
        async with open_engine(address) as engine:

            async def write() -> None:
                async with transaction(engine.registry, write=True) as sql:
                    await sql.exec_driver_sql(
                        "INSERT INTO organisations VALUES ('a', 'A', 'partner')"
                    )
                    server.crash()
                    await sql.exec_driver_sql(
                        "INSERT INTO organisations VALUES ('b', 'B', 'partner')"
                    )

            with pytest.raises(Unavailable):
                await write()
            with product.serve(folder, port=server.port):
                assert await Registry(engine).organisations.all() == []


async def test_one_that_is_not_there_is_unavailable():
    port = services.free_port()
    address = postgresql.address_of(f"postgresql://testbed@127.0.0.1:{port}/testbed")
    with pytest.raises(Unavailable, match=f"testbed@127.0.0.1:{port}/testbed did not answer"):
        async with open_engine(address):
            pass


async def test_one_that_is_silent_is_unavailable_in_time(monkeypatch):
    monkeypatch.setattr(postgresql, "CONNECT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        address = postgresql.address_of(f"postgresql://testbed@127.0.0.1:{port}/testbed")
        with pytest.raises(Unavailable, match="did not answer: TimeoutError"):
            async with open_engine(address):
                pass


@pytest.mark.parametrize(
    ("user", "password", "database", "error", "sentence"),
    [
        ("testbed", "wrong", "postgres", Forbidden, "TESTBED_REGISTRY_PASSWORD"),
        ("nobody", product.PASSWORD, "postgres", Forbidden, "does not let us in"),
        ("testbed", product.PASSWORD, "nowhere", Unknown, "createdb --owner=testbed nowhere"),
    ],
)
async def test_who_may_not_enter_is_told_why(postgresql, user, password, database, error, sentence):
    host = f"{postgresql.host}:{postgresql.port}"
    address = ways.postgresql.address_of(f"postgresql://{user}@{host}/{database}", password)
    with pytest.raises(error) as raised:
        async with open_engine(address):
            pass
    assert sentence in str(raised.value)
    assert password not in str(raised.value)


async def test_who_may_not_make_tables_is_told_so(address):
    async with open_engine(address) as engine, engine.registry.begin() as sql:
        await sql.exec_driver_sql("CREATE ROLE guest LOGIN PASSWORD 'guests-password'")
    guest = f"postgresql://guest@{address.host}:{address.port}/postgres"
    with pytest.raises(Forbidden, match="make guest the owner"):
        async with open_engine(postgresql.address_of(guest, "guests-password")):
            pass


async def test_two_hundred_statements_at_once_wait_for_each_other(address):
    async with open_engine(address) as engine:
        registry = Registry(engine)
        async with asyncio.TaskGroup() as tasks:
            for number in range(200):
                tasks.create_task(registry.principals.find("ada", 0), name=str(number))


def errors_of(branch):
    return {branch}.union(*(errors_of(each) for each in branch.__subclasses__()))


FOREIGN = errors_of(asyncpg.PostgresError) | errors_of(asyncpg.InterfaceError)


@pytest.mark.parametrize("kind", sorted(FOREIGN, key=lambda each: each.__name__))
async def test_every_error_of_connecting_is_translated(kind):
    address = postgresql.address_of("postgresql://testbed@127.0.0.1/testbed")
    assert issubclass(kind, ways.AWAY)
    assert isinstance(postgresql.error_of(kind("what happened"), address), BedError)


def test_every_error_of_a_statement_is_one_of_the_known():
    known = errors_of(dialect.AsyncAdapt_asyncpg_dbapi.Error)
    assert {each.__name__ for each in known} >= {"OperationalError", "InterfaceError"}
    assert issubclass(sqlalchemy.exc.TimeoutError, ways.AWAY)
    assert issubclass(TimeoutError, ways.AWAY)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mysql://testbed@host/testbed", "is no registry"),
        ("postgresql://host/testbed", "is no registry"),
        ("postgresql://testbed@host", "is no registry"),
        ("postgresql://testbed@host/a/b", "is no registry"),
        ("postgresql://testbed@host/testbed?sslmode=maybe", "is no registry"),
        ("postgresql://testbed@host/testbed?options=x", "is no registry"),
        ("postgresql://testbed:secret@host/testbed", "TESTBED_REGISTRY_PASSWORD"),
        ("postgresql://testbed@host:x/testbed", "no URL"),
    ],
)
def test_what_is_no_address_is_told(text, sentence):
    with pytest.raises(ValueError, match=sentence) as raised:
        postgresql.address_of(text)
    assert "secret@" not in str(raised.value)


def test_an_address_is_read_whole():
    address = postgresql.address_of("postgresql://me@host/mine?sslmode=verify-full", "secret")
    assert (address.user, address.host, address.port, address.database) == (
        "me",
        "host",
        5432,
        "mine",
    )
    assert address.tls == "verify-full"
    assert "secret" not in repr(address) + str(address)
