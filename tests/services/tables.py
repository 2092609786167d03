"""Make the registry's tables once a session; a test that is not about making them gets a copy."""

import shutil
from pathlib import Path

from testbed_api.registry.engine import open_engine
from testbed_api.registry.postgresql_address import PostgresqlAddress
from tests.services.postgresql import PASSWORD, Postgresql

FILES = ("registry.sqlite", "recorder.sqlite")
DATABASE = "made_tables"


class Tables:
    """Empty tables of this version, which take 50 ms of a processor to make and one to copy."""

    def __init__(self, folder: Path) -> None:
        """folder: an empty one, for SQLite's."""
        self._folder = folder
        self._has_database = False

    async def put_into(self, folder: Path) -> None:
        """Lay SQLite's files into a folder, as if a server had made them there."""
        if not (self._folder / FILES[0]).exists():
            async with open_engine(self._folder):
                pass
        for name in FILES:
            shutil.copy(self._folder / name, folder / name)

    async def database(self, server: Postgresql, name: str) -> PostgresqlAddress:
        """Make a database with the tables in the session's PostgreSQL."""
        if not self._has_database:
            async with open_engine(_address(server.new_database(DATABASE))):
                self._has_database = True
        return _address(server.new_database(name, template=DATABASE))


def _address(url: str) -> PostgresqlAddress:
    return PostgresqlAddress.parse(url, PASSWORD)
