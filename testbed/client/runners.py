"""Requests about runners, the sites of deployments; and running one on this computer."""

import os
from collections.abc import Sequence
from pathlib import Path

from broker import api_client, profiles
from broker.clock import Clock
from broker.credential import Credential
from broker.namespace import checked_id
from broker.responses.deployments import (
    EnrolledRunnerResponse,
    RunnerCodeResponse,
    RunnerList,
    RunnerResponse,
)
from broker.server_addresses import ServerAddresses
from testbed.client import api, sign_in
from testbed.client.addresses import ChosenAddresses
from testbed.terminal import tables
from testbed.terminal.screen import Screen
from testbed.terminal.tables import TableColumn
from testbed_runner import enrolment, service
from testbed_runner.service import RunnerIdentity
from testbed_runner.settings import RunnerSettings

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


async def enrol(code: str, chosen: ChosenAddresses, folder: Path) -> EnrolledRunnerResponse:
    """Enrol a runner in a folder; its credential, and the addresses, are stored there."""
    own = chosen.addresses
    async with api_client.connect(own.api, "", ca=own.ca, names=sign_in.OPTIONS) as connection:
        enrolled = await enrolment.enrol(connection, code, folder)
        chosen = await chosen.asked(connection)
    enrolment.store_addresses(folder, chosen.addresses)
    return enrolled


def identity_of(folder: Path) -> RunnerIdentity:
    """The identity of a runner: as the environment says, else as it was enrolled in its folder.

    The environment's addresses go before those that it was enrolled with.  Raises Refused.
    """
    if any(os.environ.get(name) for name in profiles.CREDENTIAL_VARIABLES):
        given = api.ApiSettings.from_environment(os.environ)
        name = Credential.parse(given.credential).principal
        return RunnerIdentity(name=name, credential=given.credential, addresses=given.addresses)
    stored = enrolment.stored(folder)
    addresses = ServerAddresses.from_environment(os.environ, stored.addresses)
    return RunnerIdentity(name=stored.name, credential=stored.credential, addresses=addresses)


async def run(settings: RunnerSettings, clock: Clock, *, ends_programs: bool) -> None:
    """Run the runner of a folder until cancelled."""
    identity = identity_of(settings.runner_folder)
    await service.run(settings, identity, clock, ends_programs=ends_programs)


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
