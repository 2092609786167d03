"""Secrets of an organisation's prototypes: set, list and delete them; no answer has a value."""

from pathlib import Path

from broker.errors import Invalid
from broker.process import files
from broker.prototypes.manifest import MOST_VALUE, checked_variable
from broker.responses.deployments import SecretList, SecretResponse
from testbed.client import api, images
from testbed.terminal import tables
from testbed.terminal.screen import Screen

_SECRET = tables.fields(SecretResponse, "name", "set", "by", whole_seconds=True)


def value_from(file: Path) -> str:
    """The value in a file, without the white space around it; raises Invalid."""
    what = f"--value-file: the secret in {file}"
    value = files.read_secret(file, what, most=MOST_VALUE + 1)
    if not value:
        raise Invalid(f"{what} is empty", hint="write the value into it")
    if len(value) > MOST_VALUE:
        raise Invalid(f"{what} has more than {MOST_VALUE:,} bytes", hint="is it the right file?")
    return value


async def set_value(name: str, value: str) -> SecretResponse:
    """Set a secret of the caller's organisation, whether it is there or not."""
    checked_variable(name)
    async with api.connect() as connection:
        organisation = await images.own_organisation(connection)
        path = f"/organisations/{organisation}/secrets/{name}"
        return await connection.send("PUT", path, SecretResponse, {"value": value})


async def fetch_all() -> SecretList:
    """The secrets of the caller's organisation, by name."""
    async with api.connect() as connection:
        organisation = await images.own_organisation(connection)
        return await connection.get(f"/organisations/{organisation}/secrets", SecretList)


async def delete(name: str) -> None:
    """Delete a secret; deployments that run keep what they were given."""
    checked_variable(name)
    async with api.connect() as connection:
        organisation = await images.own_organisation(connection)
        await connection.request("DELETE", f"/organisations/{organisation}/secrets/{name}")


def print_table(secrets: SecretList, out: Screen) -> None:
    """Print a row for each secret."""
    tables.print_rows(secrets.items, _SECRET, out)
