"""`testbed credential`: made, listed and revoked through the API, with a credential of one's own
from the environment.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from broker.namespace import LIVE, StreamAddress, checked_id, checked_space
from testbed.client import api


@dataclass(frozen=True, slots=True)
class Wanted:
    """A machine's credential to be made; streams as `[space:]organisation/equipment/stream`."""

    principal: str
    reads: Sequence[str]
    writes: Sequence[str]
    expires_in_s: float | None


async def create(wanted: Wanted) -> Any:
    """Make it; the answer holds the credential, this once."""
    checked_id(wanted.principal, "principal")
    body: dict[str, Any] = {
        "principal": wanted.principal,
        "reads": [entry(one) for one in wanted.reads],
        "writes": [entry(one) for one in wanted.writes],
    }
    if wanted.expires_in_s is not None:
        body["expires_in_s"] = wanted.expires_in_s
    return await api.ask("POST", "/credentials", json=body)


async def listed() -> Any:
    """All that there are."""
    return (await api.ask("GET", "/credentials"))["items"]


async def revoke(principal: str) -> None:
    """End one."""
    await api.ask("DELETE", f"/credentials/{checked_id(principal, 'principal')}")


def show(made: Any, out: Console) -> None:
    """The credential and what it holds."""
    out.print(made["credential"], style="bold")
    out.print("keep it: it is not shown again. Use it as TESTBED_CREDENTIAL.", style="dim")


def table(found: Any, out: Console) -> None:
    """A row a credential."""
    rows = Table("principal", "reads", "writes", "expires")
    for one in found:
        reads, writes = (
            "\n".join(f"{it['space']}:{it['stream']}" for it in one[what])
            for what in ("reads", "writes")
        )
        rows.add_row(one["principal"], reads, writes, one["expires"] or "never")
    out.print(rows)


def entry(text: str) -> dict[str, str]:
    """`[space:]organisation/equipment/stream`, as the API takes it."""
    space, colon, stream = text.rpartition(":")
    return {
        "space": checked_space(space if colon else LIVE),
        "stream": str(StreamAddress.parse(stream)),
    }
