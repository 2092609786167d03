"""The tables in SQLite: each schema a file in the data folder."""

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

BUSY_S = 5


def engine(folder: Path) -> AsyncEngine:
    """The files `registry.sqlite` and `recorder.sqlite` of a folder; nothing is opened yet."""
    made = create_async_engine(f"sqlite+aiosqlite:///{folder / 'registry.sqlite'}")
    recorder = str(folder / "recorder.sqlite")

    @event.listens_for(made.sync_engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("ATTACH DATABASE ? AS recorder", (recorder,))
        for schema in ("main", "recorder"):
            cursor.execute(f"PRAGMA {schema}.journal_mode = TRUNCATE")
            cursor.execute(f"PRAGMA {schema}.synchronous = FULL")
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_S * 1000}")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    return made


def alone(connection: Connection) -> None:
    """Nobody else writes until this transaction ends: SQLite's own ones begin late."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def prepare(connection: Connection) -> None:
    """Before the first migration: nothing, for the recorder's schema is a file."""
