"""Create and list the caller's own tokens."""

from collections.abc import Sequence

from broker.responses.credentials import NewTokenResponse, TokenResponse, TokensResponse
from broker.rights import Role
from testbed.client import api, credentials
from testbed.terminal import tables
from testbed.terminal.screen import Screen

_TOKEN = tables.fields(TokenResponse, "id", "label", "roles", "created", "last_used", "expires")


async def create(
    label: str, roles: Sequence[Role] | None, expires_in_s: float | None
) -> NewTokenResponse:
    """Create a token; the answer holds it, and it is not shown again.

    roles: those of the caller's roles that the token holds, None for all.
    """
    body = {"label": label, "expires_in_s": expires_in_s, "roles": roles or None}
    return await api.send("POST", "/tokens", NewTokenResponse, body)


async def fetch_all() -> TokensResponse:
    """The caller's tokens, without their secrets."""
    return await api.get("/tokens", TokensResponse)


def print_secret(created: NewTokenResponse, out: Screen, notes: Screen) -> None:
    """Print a new token alone on `out`; on `notes` the roles that it is limited to."""
    credentials.print_secret(created.credential, out, notes)
    if created.roles:
        notes.print(f"it may do what {' and '.join(created.roles)} may, and no more.", style="dim")


def print_table(tokens: TokensResponse, out: Screen) -> None:
    """Print a row for each token."""
    tables.print_rows(tokens.items, _TOKEN, out)
