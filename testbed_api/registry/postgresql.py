"""The tables in PostgreSQL: one database, the recorder's in a schema of their own."""

import ssl
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import URL, Connection, NullPool
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from broker import tls
from broker.errors import BedError, Forbidden, Unavailable, Unknown
from testbed_api.registry.postgresql_address import PostgresqlAddress
from testbed_api.registry.tables import RECORDER

CONNECT_S = 5
ANSWER_S = 20
"""A statement that takes longer has failed, also one that waits for another's lock."""
REGISTRY_LOCK, LEDGER_LOCK = 0x7E57BED, 0x7E57BEE
"""The advisory locks of those who read before writing; every process of ours takes the same."""
RECORDER_LOCK = 0x7E57BEF
"""The advisory lock that a recorder holds as long as it runs, see `recorder_lock`."""
_LOCKS = "locks"
"""The option of an engine with the locks of its writers."""

ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError)
"""Errors of connecting, which SQLAlchemy passes on unchanged."""


def _trusting(ca: Path, mode: str) -> ssl.SSLContext:
    context = tls.client_context(ca, setting="TESTBED_REGISTRY_CA")
    context.check_hostname = mode == "verify-full"
    return context


def registry(address: PostgresqlAddress) -> AsyncEngine:
    """Make the engine of the registry, without connecting."""
    return _engine(address, REGISTRY_LOCK)


def ledger(address: PostgresqlAddress) -> AsyncEngine:
    """Make the engine of the ledger, with connections of its own."""
    return _engine(address, LEDGER_LOCK)


def both(address: PostgresqlAddress) -> AsyncEngine:
    """Make the engine of both schemas, whose writers lock out those of each."""
    return _engine(address, REGISTRY_LOCK, LEDGER_LOCK, poolclass=NullPool)


def _engine(address: PostgresqlAddress, *locks: int, **options: Any) -> AsyncEngine:
    """locks: of its writers, in the order in which everybody takes them.

    Connections that PostgreSQL ended are replaced.
    """
    url = URL.create(
        "postgresql+asyncpg",
        username=address.user,
        password=address.password or None,
        host=address.host,
        port=address.port,
        database=address.database,
    )
    arguments = {
        "timeout": CONNECT_S,
        "command_timeout": ANSWER_S,
        "ssl": address.tls if address.ca is None else _trusting(address.ca, address.tls),
        "server_settings": {"application_name": "testbed"},
    }
    return create_async_engine(
        url,
        pool_pre_ping=True,
        connect_args=arguments,
        execution_options={_LOCKS: locks},
        **options,
    )


def turn(_engine: AsyncEngine) -> AbstractAsyncContextManager[None]:
    """Do nothing: PostgreSQL gives its locks in the order in which they were asked for."""
    return nullcontext()


def alone(connection: Connection) -> None:
    """Lock out other writers that call this too, until the transaction ends."""
    for lock in connection.get_execution_options()[_LOCKS]:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({lock})")


def prepare(connection: Connection) -> None:
    """Create the recorder's schema, before the first migration."""
    connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {RECORDER}")


def error_of(exc: BaseException, address: PostgresqlAddress) -> BedError:
    """The reason why PostgreSQL cannot be used, as an error that says what to do."""
    cause = _asyncpgs(exc)
    if isinstance(cause, asyncpg.InvalidAuthorizationSpecificationError):  # or a wrong password
        return Forbidden(
            f"PostgreSQL at {address} does not let us in: {cause}",
            hint="set TESTBED_REGISTRY_PASSWORD, or TESTBED_REGISTRY_PASSWORD_FILE, to the"
            " password of that user",
        )
    if isinstance(cause, asyncpg.InvalidCatalogNameError):
        return Unknown(
            f"PostgreSQL at {address} has no such database",
            hint=f"make it: createdb --owner={address.user} {address.database}",
        )
    if isinstance(cause, asyncpg.InsufficientPrivilegeError):
        return Forbidden(
            f"PostgreSQL at {address} does not let us make our tables: {cause}",
            hint=f"make {address.user} the owner of the database",
        )
    handshake = tls.handshake_error(
        exc,
        tls.TlsEndpoint(f"the registry at {address}", "TESTBED_REGISTRY", "TESTBED_REGISTRY_CA"),
    )
    if handshake is not None:
        return handshake
    if "rejected SSL upgrade" in str(exc):
        return Unavailable(
            f"PostgreSQL at {address} speaks no TLS, which was asked for",
            hint="switch it on there (ssl = on), or take sslmode out of TESTBED_REGISTRY and"
            " TESTBED_REGISTRY_CA away",
        )
    return Unavailable(
        f"the registry at {address} did not answer: {cause or str(exc) or type(exc).__name__}",
        hint="is PostgreSQL running there, and reachable from here?",
    )


def _asyncpgs(exc: BaseException | None) -> asyncpg.PostgresError | None:
    """The error of asyncpg behind SQLAlchemy's, if there is one."""
    while exc is not None:
        if isinstance(exc, asyncpg.PostgresError):
            return exc
        exc = exc.__cause__ or getattr(exc, "orig", None)
    return None
