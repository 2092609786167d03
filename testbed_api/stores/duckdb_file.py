"""Opens the DuckDB file, checks its layout, names its schemas and tables, and keeps positions.

Each organisation has a schema of its own.  The names of schemas and tables are ids of the testbed
with a slash: no catalog and no schema that DuckDB makes has one, so an organisation may be called
`main`, `temp` or like the file itself.
"""

import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import duckdb

from broker.errors import BedError, Corrupt, Invalid, Refused, Taken, Unavailable, Unknown
from broker.namespace import StreamAddress
from broker.process import files
from testbed_api.stores.port import Position

LAYOUT = 1
"""Version of the schemas and tables that hold samples; stored in the table `layout`."""

_POSITIONS = """CREATE TABLE IF NOT EXISTS positions
  (organisation VARCHAR, ledger VARCHAR, flush BIGINT, time_ns BIGINT)"""
_ADD_POSITIONS = """INSERT INTO positions
SELECT organisation, '', 0, 0 FROM (SELECT unnest($organisations) AS organisation)
WHERE organisation NOT IN (SELECT organisation FROM positions)"""
_SET_POSITIONS = """UPDATE positions SET ledger = $ledger, flush = $flush, time_ns = $time_ns
WHERE list_contains($organisations, organisation) AND flush < $flush"""

_WITHOUT_IT = (
    "restore a backup into a new folder with `testbed restore`; or move the file away: the next"
    " start takes again what gateways still have of the last 15 minutes, and states what is gone as"
    " gaps, store-lost"
)


class SampleTable(NamedTuple):
    """Name of the table with the samples of one stream in one space.

    schema: of the organisation.
    """

    schema: str
    name: str

    @classmethod
    def for_stream(cls, space: str, stream: StreamAddress) -> Self:
        """The table of a stream in a space."""
        name = f"{space}/{stream.equipment}/{stream.stream}"
        return cls(f"organisation/{stream.organisation}", name)

    def __str__(self) -> str:
        """The quoted name for a statement, `"schema"."table"`."""
        return f"{_quote(self.schema)}.{_quote(self.name)}"

    def create_schema(self) -> str:
        """The statement that creates the schema if it does not exist."""
        return f"CREATE SCHEMA IF NOT EXISTS {_quote(self.schema)}"


class DuckDbFile:
    """The connection to the file; reopened after an error that DuckDB does not recover from."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        """config: configuration options of DuckDB."""
        self._path = path
        self._config = config
        self._lock = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None

    @contextmanager
    def cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor for one thread, closed at the end; opens the file if it is closed."""
        try:
            with self._lock:
                if self._connection is None:
                    self._connection = _connect(self._path, self._config)
                cursor = self._connection.cursor()
            with cursor:
                yield cursor
        except duckdb.FatalException:  # for example a checkpoint on a full disk
            self.close()
            raise

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor in a transaction: committed at the end, rolled back after an exception."""
        with self.cursor() as cursor:
            cursor.begin()
            yield cursor
            cursor.commit()

    def fetch_all(self, query: str, values: object = None) -> list[tuple[Any, ...]]:
        """Execute a small query and return all its rows."""
        with self.cursor() as cursor:
            return cursor.execute(query, values).fetchall()

    def initialise(self) -> None:
        """Store the layout version in a new file.

        Raises Refused if it is an unknown version, Unavailable if the disk is full.
        """
        try:
            with self.transaction() as cursor:
                cursor.execute(_POSITIONS)
                cursor.execute("CREATE TABLE IF NOT EXISTS layout (version INTEGER)")
                cursor.execute(
                    "INSERT INTO layout SELECT ? WHERE NOT EXISTS (FROM layout)", [LAYOUT]
                )
                [(version,)] = cursor.execute("SELECT version FROM layout").fetchall()
                if version != LAYOUT:
                    raise Refused(
                        f"{self._path} has layout {version}, this version reads {LAYOUT}",
                        hint="use the version that wrote it",
                    )
        except duckdb.Error as exc:
            self.close()
            if full := files.full_disk(self._path.parent, exc, "--data"):
                raise full from exc
            raise
        except BaseException:
            self.close()
            raise

    @staticmethod
    def write_position(
        cursor: duckdb.DuckDBPyConnection, organisations: Collection[str], position: Position
    ) -> None:
        """Set the position of organisations, unless a greater one is there.

        cursor: in the transaction of the samples.
        """
        concerned = {"organisations": list(organisations)}
        if organisations:
            cursor.execute(_ADD_POSITIONS, concerned)
            ledger, flush, time_ns = position.ledger, position.flush, position.time_ns
            own = {"ledger": ledger, "flush": flush, "time_ns": time_ns}
            cursor.execute(_SET_POSITIONS, {**own, **concerned})

    def positions(self, organisations: Collection[str]) -> Mapping[str, Position]:
        """The position of each of these organisations that has one."""
        rows = self.fetch_all("FROM positions")
        return {name: Position(*values) for name, *values in rows if name in organisations}

    def close(self) -> None:
        """Close the file; the next cursor opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _connect(path: Path, config: dict[str, Any]) -> duckdb.DuckDBPyConnection:
    if not path.parent.is_dir():
        raise Unknown(f"there is no folder {path.parent}", hint="make it first")
    try:
        return duckdb.connect(str(path), config=config)
    except (duckdb.ParserException, duckdb.SyntaxException) as exc:
        raise Invalid(f"DuckDB refused its configuration: {exc}") from exc
    except duckdb.IOException as exc:
        text = str(exc)
        if "Could not set lock" in text:
            raise Taken(
                f"{path} is open in another process", hint="one process owns the file: ask its API"
            ) from exc
        if "not a valid DuckDB" in text:
            raise Corrupt(f"{path} is not a DuckDB file", hint=_WITHOUT_IT) from exc
        if "version number" in text:
            raise Refused(
                f"{path} was written by another DuckDB: {text}",
                hint="use the version that wrote it",
            ) from exc
        raise


@contextmanager
def translated_errors() -> Iterator[None]:
    """Translate errors of DuckDB raised in the context; those of wrong statements are bugs."""
    try:
        yield
    except duckdb.Error as exc:
        error = translate_error(exc)
        if error is None:
            raise
        raise error from exc


def translate_error(exc: duckdb.Error) -> BedError | None:
    """The error for the caller in place of one of DuckDB; None if that can only be a bug here."""
    text = str(exc)
    if "orrupt" in text or "Could not read enough bytes" in text or isinstance(exc, _DAMAGED):
        return Corrupt(f"the DuckDB file is damaged: {text}", hint=_WITHOUT_IT)
    if isinstance(exc, _UNAVAILABLE):
        return Unavailable(f"DuckDB could not use its file: {text}", hint="is the disk full?")
    return None


_DAMAGED = (duckdb.SerializationException,)
_UNAVAILABLE = (
    duckdb.ConnectionException,  # closed and not yet opened again
    duckdb.FatalException,
    duckdb.InterruptException,
    duckdb.IOException,
    duckdb.OutOfMemoryException,
    duckdb.ResourceInUseException,
    duckdb.TransactionException,
)
