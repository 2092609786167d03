"""Opens the persistent data of a server: registry, ledger, store, and the data folder."""

import os
import pwd
import shlex
from collections.abc import AsyncIterator, Iterator
from contextlib import (
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from broker.clock import Clock
from broker.errors import Invalid, Refused, Taken
from broker.process import file_lock, files
from testbed_api.audit.journal import Journal
from testbed_api.recorder.ledger import Ledger
from testbed_api.registry import recorder_lock
from testbed_api.registry.engine import open_engine
from testbed_api.registry.registry import Registry
from testbed_api.retention.deletions import Deletions
from testbed_api.security import certificates
from testbed_api.settings import SQLITE, ServerSettings
from testbed_api.stores import duckdb, influxdb
from testbed_api.stores.port import SeriesStore

LAYOUT = "1"
"""Version of the data folder's layout, stored in its file `layout`."""
RESTORE_MARK = "restoring"
"""File in a data folder while a backup is restored into it; remains after an interruption."""
_LOCK = "lock"
"""File in a data folder that the server that runs on it has locked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Persistence:
    """The open registry, ledger, store, deletion records and audit journal of a server."""

    engine: AsyncEngine
    registry: Registry
    ledger: Ledger
    store: SeriesStore
    deletions: Deletions
    journal: Journal


@asynccontextmanager
async def open_exclusive(
    settings: ServerSettings, *, restoring: bool = False
) -> AsyncIterator[Persistence]:
    """Open the data of a server with an exclusive lock on its folder.

    restoring: accept a folder into which a backup is being restored.  Raises Taken if a server runs
    on the folder, Refused if its layout is unknown or a restore was interrupted.
    """
    with _locked(settings.folder):
        _check_layout(settings.folder, restoring=restoring)
        async with open_shared(settings) as data:
            yield data


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
    folder = _locked(settings.folder) if settings.registry == SQLITE else nullcontext()
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
            await stack.enter_async_context(recorder_lock.in_postgresql(data.engine, clock))
        yield data


@asynccontextmanager
async def open_registry(settings: ServerSettings) -> AsyncIterator[Registry]:
    """Open the registry of an existing server, for changes with an audit entry alone.

    With SQLite the data folder is locked, so its server must be stopped; with PostgreSQL it may be
    running.  Raises Taken if a server runs on the folder, Refused if there is no data in it.
    """
    folder = settings.folder
    is_embedded = settings.registry == SQLITE
    if is_embedded and not (folder / "layout").exists():
        raise Refused(f"there is no data in {folder}", hint="name the folder of a server")
    with _locked(folder) if is_embedded else nullcontext():
        if is_embedded:
            _check_layout(folder, restoring=False)
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
    """Open the store named in the settings."""
    address = settings.influxdb
    if address is None:
        async with duckdb.open(
            settings.folder / "samples.duckdb", most_bytes=settings.duckdb_bytes
        ) as embedded:
            yield embedded
        return
    token = settings.store_token.get_secret_value()
    if not token:
        raise Invalid("there is no token for InfluxDB", hint="set TESTBED_STORE_TOKEN")
    async with influxdb.open(
        address.url,
        token=token,
        organisation=address.organisation,
        bucket=address.bucket,
        ca=settings.store_ca,
    ) as remote:
        yield remote


def check_unlocked(folder: Path) -> None:
    """Raise Taken if a server runs on a data folder, which need not exist and is not changed.

    Raises Refused if a file in it is another user's.
    """
    check_owner(folder, os.geteuid())
    file = folder / _LOCK
    with suppress(OSError):  # whoever opens the folder next says what is wrong with it
        if file.exists():
            with file_lock.locked(file, _taken(folder)):
                pass


def check_owner(folder: Path, uid: int) -> None:
    """Raise Refused if a file of a data folder is another user's, as after a restore by root.

    uid: of the user of this process; root may do as it likes.  The authority in `pki` need only be
    readable, and its key need not even be that.
    """
    if uid == 0 or not folder.exists():
        return
    pki = certificates.development_folder(folder)
    for file in (folder, *folder.rglob("*")):
        with suppress(FileNotFoundError):  # removed meanwhile
            owner = file.lstat().st_uid
            if owner == uid or (file.is_relative_to(pki) and _is_enough(file)):
                continue
            user = shlex.quote(_user_name(uid))
            raise Refused(
                f"{file} belongs to {_user_name(owner)}, and the server runs as {user}",
                hint=f"sudo chown -R {user}: {shlex.quote(str(folder.absolute()))}",
            )


def _is_enough(file: Path) -> bool:
    return file.name == "ca-key.pem" or os.access(file, os.R_OK)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _taken(folder: Path) -> Taken:
    return Taken(
        f"a server is running on {folder}", hint="stop it, or choose another folder with --data"
    )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Create the folder if it does not exist, and lock it; raises Taken if it is locked."""
    check_owner(folder, os.geteuid())
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=files.PRIVATE_FOLDER)
            stack.enter_context(file_lock.locked(folder / _LOCK, _taken(folder)))
        except OSError as exc:
            raise files.unwritable(folder, "the data folder", exc, "--data") from exc
        yield


def _check_layout(folder: Path, *, restoring: bool) -> None:
    if (folder / RESTORE_MARK).exists() and not restoring:
        raise Refused(
            f"a restore into {folder} did not come to its end",
            hint="restore into an empty folder, once more",
        )
    file = folder / "layout"
    if not file.exists():
        try:
            files.replace(file, LAYOUT.encode())
        except OSError as exc:
            raise files.unwritable(folder, "the data folder", exc, "--data") from exc
    version = file.read_text(errors="replace").strip()
    if version != LAYOUT:
        raise Refused(
            f"the data folder {folder} has layout {version[:20]!r}, this version reads {LAYOUT}",
            hint="use the version that wrote it",
        )
