"""DuckDB's file: opened, of this layout, and each organisation's tables in a schema of their own.

The names of schemas and tables are ids of the testbed with a slash: no catalog and no schema that
DuckDB makes has one, so `main`, `temp` or the file's own name may be an organisation's.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import duckdb

from broker.errors import BedError, Corrupt, Invalid, Refused, Taken, Unavailable, Unknown
from broker.namespace import StreamAddress

LAYOUT = 1
"""The version of how samples stand in schemas and tables; the table `layout` says which it is."""


class Table(NamedTuple):
    """The samples of one stream in one space, in the schema of their organisation."""

    schema: str
    name: str

    @classmethod
    def of(cls, space: str, stream: StreamAddress) -> Self:
        """Where a stream's samples are."""
        name = f"{space}/{stream.equipment}/{stream.stream}"
        return cls(f"organisation/{stream.organisation}", name)

    def __str__(self) -> str:
        """As it stands in a statement."""
        return f"{_quoted(self.schema)}.{_quoted(self.name)}"

    def create_schema(self) -> str:
        """The statement that makes its schema."""
        return f"CREATE SCHEMA IF NOT EXISTS {_quoted(self.schema)}"


class File:
    """The connection to the file, opened again after an error that DuckDB does not recover from."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        """config: of DuckDB."""
        self._path = path
        self._config = config
        self._lock = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None

    @contextmanager
    def cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection for one thread and one job."""
        try:
            with self._lock:
                if self._connection is None:
                    self._connection = _connected(self._path, self._config)
                cursor = self._connection.cursor()
            with cursor:
                yield cursor
        except duckdb.FatalException:  # a checkpoint met a full disk, say
            self.close()
            raise

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The same, all or nothing: closed before its commit, a connection rolls back."""
        with self.cursor() as cursor:
            cursor.begin()
            yield cursor
            cursor.commit()

    def ask(self, query: str, values: object = None) -> list[tuple[Any, ...]]:
        """All rows of a small query."""
        with self.cursor() as cursor:
            return cursor.execute(query, values).fetchall()

    def bring_up(self) -> None:
        """Note the layout in a new file; raises Refused if it is an unknown version."""
        try:
            with self.transaction() as cursor:
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
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close it; the next cursor opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _connected(path: Path, config: dict[str, Any]) -> duckdb.DuckDBPyConnection:
    if not path.parent.is_dir():
        raise Unknown(f"there is no folder {path.parent}", hint="make it first")
    try:
        return duckdb.connect(str(path), config=config)
    except (duckdb.ParserException, duckdb.SyntaxException) as exc:
        raise Invalid(f"DuckDB cannot be set up so: {exc}") from exc
    except duckdb.IOException as exc:
        text = str(exc)
        if "Could not set lock" in text:
            raise Taken(
                f"{path} is open in another process", hint="one process owns the file: ask its API"
            ) from exc
        if "not a valid DuckDB" in text:
            raise Corrupt(
                f"{path} is not a DuckDB file", hint="move it away, or name another"
            ) from exc
        if "version number" in text:
            raise Refused(
                f"{path} was written by another DuckDB: {text}",
                hint="use the version that wrote it",
            ) from exc
        raise


@contextmanager
def translated() -> Iterator[None]:
    """No error of DuckDB leaves the adapter, but those of a wrong statement, which are bugs."""
    try:
        yield
    except duckdb.Error as exc:
        error = translation(exc)
        if error is None:
            raise
        raise error from exc


def translation(exc: duckdb.Error) -> BedError | None:
    """What an error of DuckDB means to the caller; None where it can only be a bug of ours."""
    text = str(exc)
    if "orrupt" in text or "Could not read enough bytes" in text or isinstance(exc, _BYTES_LIE):
        return Corrupt(f"the DuckDB file is damaged: {text}", hint="restore it from a backup")
    if isinstance(exc, _AWAY):
        return Unavailable(f"the DuckDB file did not take it: {text}", hint="is the disk full?")
    return None


_BYTES_LIE = (duckdb.SerializationException,)
_AWAY = (
    duckdb.ConnectionException,  # closed and not yet opened again
    duckdb.FatalException,
    duckdb.InterruptException,
    duckdb.IOException,
    duckdb.OutOfMemoryException,
    duckdb.ResourceInUseException,
    duckdb.TransactionException,
)
