"""Requests about organisations and their members, and the tables that are printed of them."""

from collections.abc import Sequence

from broker import api_client
from broker.namespace import checked_id
from broker.responses.credentials import MeResponse
from broker.responses.organisations import (
    MemberResponse,
    MembersResponse,
    NewMemberResponse,
    NewOrganisationResponse,
    OrganisationResponse,
    OrganisationsResponse,
)
from broker.rights import Role
from testbed.client import api
from testbed.terminal import tables
from testbed.terminal.screen import Screen

_ORGANISATION = tables.fields(OrganisationResponse, "id", "name", "kind")
_MEMBER = tables.fields(MemberResponse, "person", "roles", "since", "email")


async def create(
    organisation: str, *, name: str | None, kind: str, owner: str
) -> NewOrganisationResponse:
    """Create an organisation; the answer holds its first owner's token, which is not shown again.

    name: what people read, the id if None.  owner: id of a new person.
    """
    body = {"id": organisation, "name": name or organisation, "kind": kind, "owner": owner}
    return await api.send("POST", "/organisations", NewOrganisationResponse, body)


async def fetch_all() -> OrganisationsResponse:
    """The organisations that the caller may see."""
    return await api.get("/organisations", OrganisationsResponse)


async def add_member(person: str, roles: Sequence[Role], email: str | None) -> NewMemberResponse:
    """Add a person to the caller's organisation; the answer holds the person's first token."""
    body = {"person": checked_id(person, "person"), "roles": roles, "email": email}
    async with api.connect() as connection:
        return await connection.send("POST", await _members(connection), NewMemberResponse, body)


async def fetch_members() -> MembersResponse:
    """The people of the caller's organisation."""
    async with api.connect() as connection:
        return await connection.get(await _members(connection), MembersResponse)


async def change_member(person: str, roles: Sequence[Role]) -> MemberResponse:
    """Give a person of the caller's organisation other roles."""
    async with api.connect() as connection:
        path = f"{await _members(connection)}/{checked_id(person, 'person')}"
        return await connection.send("PUT", path, MemberResponse, {"roles": roles})


async def set_email(person: str, email: str | None) -> MemberResponse:
    """Set where notices to a person of the caller's organisation go; email: None for nowhere."""
    async with api.connect() as connection:
        path = f"{await _members(connection)}/{checked_id(person, 'person')}/email"
        return await connection.send("PUT", path, MemberResponse, {"email": email})


async def remove_member(person: str) -> None:
    """Remove a person from the caller's organisation."""
    async with api.connect() as connection:
        path = f"{await _members(connection)}/{checked_id(person, 'person')}"
        await connection.request("DELETE", path)


async def _members(connection: api_client.Api) -> str:
    """The path of the members of the caller's organisation."""
    me = await connection.get("/me", MeResponse)
    return f"/organisations/{me.organisation}/members"


def print_organisations(organisations: OrganisationsResponse, out: Screen) -> None:
    """Print a row for each organisation."""
    tables.print_rows(organisations.items, _ORGANISATION, out)


def print_members(members: MembersResponse, out: Screen) -> None:
    """Print a row for each person."""
    tables.print_rows(members.items, _MEMBER, out)
