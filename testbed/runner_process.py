"""A runner on this computer: enrols it in a folder, and runs it with what that holds."""

import os
from pathlib import Path

from broker import api_client, profiles
from broker.clock import Clock
from broker.credential import Credential
from broker.responses.deployments import EnrolledRunnerResponse
from broker.server_addresses import ServerAddresses
from testbed.client import api, sign_in
from testbed.client.addresses import ChosenAddresses
from testbed_runner import enrolment, service
from testbed_runner.service import RunnerIdentity
from testbed_runner.settings import RunnerSettings


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
