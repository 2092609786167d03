"""Opens the persistent data of a server: registry, ledger, store, and the data folder."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from broker.clock import Clock
from broker.errors import Invalid, Refused
from broker.process import files
from testbed_api import data_folder
from testbed_api.audit.journal import Journal
from testbed_api.recorder.ledger import Ledger
from testbed_api.registry import recorder_lock, sqlite
from testbed_api.registry.engine import SqlEngine, open_engine
from testbed_api.registry.registry import Registry
from testbed_api.retention.deletions import Deletions
from testbed_api.settings import SQLITE, ServerSettings
from testbed_api.stores.port import SeriesStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Persistence:
    """The open registry, ledger, store, deletion records and audit journal of a server.

    since_ns: when it was locked, so that nobody else stores samples any more; None without a lock.
    """

    engine: SqlEngine
    registry: Registry
    ledger: Ledger
    store: SeriesStore
    deletions: Deletions
    journal: Journal
    since_ns: int | None = None


@asynccontextmanager
async def open_exclusive(
    settings: ServerSettings, *, clock: Clock | None = None, restoring: bool = False
) -> AsyncIterator[Persistence]:
    """Open the data of a server with an exclusive lock on its folder.

    clock: for who records.  restoring: accept a folder into which a backup is being restored.
    Raises Taken if a server runs on the folder, Refused if its layout is unknown or a restore was
    interrupted.
    """
    with data_folder.locked(settings.folder):
        since_ns = None if clock is None else clock.now_ns()
        data_folder.check_layout(settings.folder, restoring=restoring)
        _check_registry(settings.folder)
        async with open_shared(settings) as data:
            yield replace(data, since_ns=since_ns)


@asynccontextmanager
async def open_for_api(settings: ServerSettings) -> AsyncIterator[Persistence]:
    """Open the data for an API whose broker, recorder and store are services.

    With SQLite the data folder is locked: only one API can use it.  A recorder opens it with
    `open_for_recorder`.  Raises Invalid if the store is DuckDB.
    """
    if settings.influxdb is None:
        raise Invalid(
            "the samples are in DuckDB, which belongs to one process",
            hint="set TESTBED_STORE to an InfluxDB, or run `testbed up`",
        )
    folder = data_folder.locked(settings.folder) if settings.registry == SQLITE else nullcontext()
    with folder:
        async with open_shared(settings) as data:
            yield data


@asynccontextmanager
async def open_for_recorder(settings: ServerSettings, clock: Clock) -> AsyncIterator[Persistence]:
    """Open the data for a recorder in a process of its own.

    Raises Taken if another one records on the same registry and ledger.
    """
    async with AsyncExitStack() as stack:
        if settings.registry == SQLITE:
            folder = settings.folder
            folder.mkdir(parents=True, exist_ok=True, mode=files.PRIVATE_FOLDER)
            await stack.enter_async_context(recorder_lock.in_folder(folder, clock))
        data = await stack.enter_async_context(open_shared(settings))
        if settings.registry != SQLITE:
            await stack.enter_async_context(recorder_lock.in_postgresql(data.engine.ledger, clock))
        yield replace(data, since_ns=clock.now_ns())


@asynccontextmanager
async def open_registry(settings: ServerSettings) -> AsyncIterator[Registry]:
    """Open the registry of an existing server, for changes with an audit entry alone.

    With SQLite the data folder is locked, so its server must be stopped; with PostgreSQL it may be
    running.  Raises Taken if a server runs on the folder, Refused if there is no data in it.
    """
    folder = settings.folder
    is_embedded = settings.registry == SQLITE
    if is_embedded:
        data_folder.check_exists(folder)
    with data_folder.locked(folder) if is_embedded else nullcontext():
        if is_embedded:
            data_folder.check_layout(folder)
            _check_registry(folder)
        async with open_engine(settings.tables) as engine:
            yield Registry(engine, is_audited=True)


@asynccontextmanager
async def open_shared(settings: ServerSettings) -> AsyncIterator[Persistence]:
    """Open the data without a lock; other processes may have it open too."""
    async with open_engine(settings.tables) as engine, open_store(settings) as store:
        registry, journal = Registry(engine), Journal(Registry(engine))
        yield Persistence(
            engine=engine,
            registry=registry,
            ledger=Ledger(engine),
            store=store,
            deletions=Deletions(engine),
            journal=journal,
        )


@asynccontextmanager
async def open_store(settings: ServerSettings) -> AsyncIterator[SeriesStore]:
    """Open the store named in the settings; the library of that one alone is loaded."""
    address = settings.influxdb
    if address is None:
        from testbed_api.stores import duckdb  # noqa: PLC0415 - see above

        async with duckdb.open(
            settings.folder / "samples.duckdb", most_bytes=settings.duckdb_bytes
        ) as embedded:
            yield embedded
        return
    token = settings.store_token.get_secret_value()
    if not token:
        raise Invalid("there is no token for InfluxDB", hint="set TESTBED_STORE_TOKEN")
    from testbed_api.stores import influxdb  # noqa: PLC0415 - see above

    async with influxdb.open(
        address.url,
        token=token,
        organisation=address.organisation,
        bucket=address.bucket,
        ca=settings.store_ca,
    ) as remote:
        yield remote


def _check_registry(folder: Path) -> None:
    """Raise Refused if the registry of a data folder is gone, and the ledger is not."""
    if (folder / sqlite.LEDGER).exists() and not (folder / sqlite.REGISTRY).exists():
        raise Refused(
            f"{folder / sqlite.REGISTRY} is gone, with all rights, and the ledger beside it is not",
            hint="put it back, or restore a backup into a new folder",
        )
