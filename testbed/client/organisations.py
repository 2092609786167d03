"""Requests about organisations and their members, and the tables that are printed of them."""

from typing import Any

from rich.console import Console
from rich.table import Table

from broker.namespace import checked_id
from broker.rights import Role
from testbed.client import api


async def create(organisation: str, *, name: str | None, kind: str, owner: str) -> Any:
    """Create an organisation; the answer holds its first owner's token, which is not shown again.

    name: what people read, the id if None.  owner: id of a new person.
    """
    body = {"id": organisation, "name": name or organisation, "kind": kind, "owner": owner}
    return await api.request("POST", "/organisations", json=body)


async def fetch_all() -> Any:
    """The organisations that the caller may see."""
    return (await api.request("GET", "/organisations"))["items"]


async def add_member(person: str, roles: list[Role], email: str | None) -> Any:
    """Add a person to the caller's organisation; the answer holds the person's first token."""
    body = {"person": checked_id(person, "person"), "roles": roles, "email": email}
    return await members_request("POST", "", json=body)


async def members_request(method: str, rest: str, **content: Any) -> Any:
    """The answer to a request about the members of the caller's organisation.

    rest: path below `/organisations/{id}/members`.
    """
    async with api.connect() as connection:
        own = (await connection.request("GET", "/me"))["organisation"]
        return await connection.request(method, f"/organisations/{own}/members{rest}", **content)


def print_table(rows: Any, columns: tuple[str, ...], out: Console) -> None:
    """Print these columns of each row; a list is printed with commas."""
    table = Table(*columns)
    for row in rows:
        cells = ("" if row[column] is None else row[column] for column in columns)
        table.add_row(*(", ".join(cell) if isinstance(cell, list) else str(cell) for cell in cells))
    out.print(table)
