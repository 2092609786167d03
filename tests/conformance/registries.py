"""The real databases that the tables live in, each empty at the beginning of a test."""

from pathlib import Path

import pytest

from testbed_api.registry.postgresql_address import PostgresqlAddress
from tests.services import postgresql as product


def where(request: pytest.FixtureRequest, tmp_path: Path) -> Path | PostgresqlAddress:
    """An empty place for the tables; `request.param` names the database."""
    if request.param == "sqlite":
        return tmp_path
    return database(request.getfixturevalue("postgresql"), tmp_path)


def database(server: product.Postgresql, tmp_path: Path) -> PostgresqlAddress:
    """An empty database, named after the test's folder."""
    return PostgresqlAddress.parse(server.new_database(tmp_path.name), product.PASSWORD)
