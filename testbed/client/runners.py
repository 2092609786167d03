"""Requests about runners, the sites of deployments."""

from collections.abc import Sequence

from broker.namespace import checked_id
from broker.responses.deployments import (
    RunnerCodeResponse,
    RunnerList,
    RunnerResponse,
)
from testbed.client import api
from testbed.terminal import tables
from testbed.terminal.screen import Screen
from testbed.terminal.tables import TableColumn

_MIB = 2**20


async def create_code(
    name: str, *, labels: Sequence[str], opens_to: Sequence[str] | None, to_all: bool
) -> RunnerCodeResponse:
    """Create a one-time code for a runner of the caller's organisation.

    opens_to: organisations that deploy there, None for the usual ones.  to_all: every one does.
    """
    body = {
        "id": checked_id(name, "runner"),
        "labels": list(labels),
        "opens_to": None if opens_to is None else list(opens_to),
        "everybody": to_all,
    }
    return await api.send("POST", "/runners", RunnerCodeResponse, body)


async def fetch_all() -> RunnerList:
    """The runners that the caller may see."""
    return await api.get("/runners", RunnerList)


async def lock_out(name: str) -> None:
    """End the credential of a runner, and the deployments there."""
    await api.request("DELETE", f"/runners/{checked_id(name, 'runner')}")


def print_code(created: RunnerCodeResponse, out: Screen, notes: Screen) -> None:
    """Print a new code alone on `out`; on `notes` the command that follows."""
    out.print(created.code)
    until = tables.instant(created.until)
    notes.print(f"counts once, until {until}. On the machine of the site:", style="dim")
    notes.print(f"  testbed runner run --code {created.code}")


def print_runners(runners: RunnerList, out: Screen) -> None:
    """Print a row for each runner."""
    tables.print_rows(runners.items, _COLUMNS, out)


def _memory(runner: RunnerResponse) -> str:
    """The memory that a runner has promised, and that it gives."""
    if runner.memory_bytes is None:
        return tables.NOTHING
    return f"{runner.memory_used_bytes // _MIB} of {runner.memory_bytes // _MIB} MiB"


def _state(runner: RunnerResponse) -> str:
    return "takes work" if runner.takes_work else tables.text(runner.reason)


_COLUMNS: list[TableColumn[RunnerResponse]] = [
    *tables.fields(RunnerResponse, "id", "organisation", "labels", "opens_to", "product"),
    tables.field(RunnerResponse, "deployments"),
    TableColumn(heading="memory", cell=_memory),
    TableColumn(heading="state", cell=_state, is_prose=True),
]
