"""What outlives a server: registry, ledger, samples, and the folder that some of it lies in."""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from broker.errors import Invalid, Refused, Taken, Unavailable
from broker.process import files
from testbed_api.audit.journal import Journal
from testbed_api.recorder.ledger import Ledger
from testbed_api.registry.engine import open_engine
from testbed_api.registry.registry import Registry
from testbed_api.retention.deletions import Deletions
from testbed_api.settings import SQLITE, ServerSettings
from testbed_api.stores import duckdb, influxdb
from testbed_api.stores.port import SeriesStore

LAYOUT = "1"
RESTORING = "restoring"
"""Stands in a data folder while a backup is restored into it, and stays if that breaks off."""


@dataclass(frozen=True, slots=True)
class Data:
    """All of it, open."""

    engine: AsyncEngine
    registry: Registry
    ledger: Ledger
    store: SeriesStore
    deletions: Deletions
    journal: Journal


@asynccontextmanager
async def alone(settings: ServerSettings, *, restoring: bool = False) -> AsyncIterator[Data]:
    """The data of a folder and what belongs to it, ours alone; raises Taken if a server has it.

    restoring: a folder is opened that a backup is being restored into.
    """
    with _locked(settings.folder):
        _check_layout(settings.folder, restoring=restoring)
        async with shared(settings) as data:
            yield data


@asynccontextmanager
async def beside_others(settings: ServerSettings) -> AsyncIterator[Data]:
    """The data of a server whose parts are processes of their own.

    With SQLite there is a folder, and one API has it; a recorder goes straight to `shared`.
    """
    if settings.influxdb is None:
        raise Invalid(
            "the samples are in DuckDB, which belongs to one process",
            hint="set TESTBED_STORE to an InfluxDB, or run `testbed up`",
        )
    folder = _locked(settings.folder) if settings.registry == SQLITE else nullcontext()
    with folder:
        async with shared(settings) as data:
            yield data


@asynccontextmanager
async def shared(settings: ServerSettings) -> AsyncIterator[Data]:
    """The data, whoever else has it open."""
    async with open_engine(settings.tables) as engine, open_store(settings) as store:
        registry, journal = Registry(engine), Journal(Registry(engine))
        yield Data(engine, registry, Ledger(engine), store, Deletions(engine), journal)


@asynccontextmanager
async def open_store(settings: ServerSettings) -> AsyncIterator[SeriesStore]:
    """The store that the settings name."""
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


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a data folder, which is made if it is not there; raises Taken."""
    taken = Taken(
        f"a server is running on {folder}", hint="stop it, or choose another folder with --data"
    )
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=files.PRIVATE_FOLDER)
            stack.enter_context(files.locked(folder / "lock", taken))
        except OSError as exc:
            raise Unavailable(f"the data folder {folder} cannot be used: {exc.strerror}") from exc
        yield


def _check_layout(folder: Path, *, restoring: bool) -> None:
    if (folder / RESTORING).exists() and not restoring:
        raise Refused(
            f"a restore into {folder} did not come to its end",
            hint="restore into an empty folder, once more",
        )
    mark = folder / "layout"
    if not mark.exists():
        mark.write_text(LAYOUT)
    layout = mark.read_text(errors="replace").strip()
    if layout != LAYOUT:
        raise Refused(
            f"the data folder {folder} has layout {layout[:20]!r}, this version reads {LAYOUT}",
            hint="use the version that wrote it",
        )
