"""Create and list the caller's own tokens, and sign in with a password."""

from typing import Any

from rich.console import Console
from rich.table import Table

from testbed.client import api, credentials


async def create(label: str, roles: list[Any] | None, expires_in_s: float | None) -> Any:
    """Create a token; the answer holds it, and it is not shown again.

    roles: those of the caller's roles that the token holds, None for all.
    """
    body = {"label": label, "expires_in_s": expires_in_s, "roles": roles or None}
    return await api.request("POST", "/tokens", json=body)


async def fetch_all() -> Any:
    """The caller's tokens, without their secrets."""
    return (await api.request("GET", "/tokens"))["items"]


async def sign_in(person: str, password: str) -> Any:
    """Get a token that lasts twelve hours for a person's password."""
    body = {"person": person, "password": password}
    return await api.request_without_credential("POST", "/sign-in", json=body)


def print_secret(created: Any, out: Console, notes: Console) -> None:
    """Print a new token alone on `out`; on `notes` the roles that it is limited to."""
    credentials.print_secret(created, out, notes)
    if roles := created["roles"]:
        notes.print(f"it may do what {' and '.join(roles)} may, and no more.", style="dim")


def print_table(tokens: Any, out: Console) -> None:
    """Print a row for each token."""
    table = Table("id", "label", "roles", "made", "last used", "expires")
    for token in tokens:
        roles = ", ".join(token["roles"] or ["all yours"])
        last_used, expires = token["last_used"] or "never", token["expires"] or "never"
        table.add_row(str(token["id"]), token["label"], roles, token["made"], last_used, expires)
    out.print(table)
