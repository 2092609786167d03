"""Enrols a runner with a one-time code and a key of its own, and finds its identity again."""

import base64
from pathlib import Path

from broker import api_client, machine_identity
from broker.credential import Credential
from broker.errors import Refused
from broker.responses.deployments import EnrolledRunnerResponse
from broker.server_addresses import ServerAddresses
from testbed_runner.service import RunnerIdentity

IDENTITY = "identity"
RUNNER = "the runner"
"""Whose identity it is, for the sentences of errors."""


async def enrol(connection: api_client.Api, code: str, folder: Path) -> EnrolledRunnerResponse:
    """Show a code with the key of a runner's folder, and store the credential of the answer.

    folder: of the runner; the key is made if there is none.  Raises Unavailable for a folder that
    cannot be written, and Refused with the API's sentence for a code that does not count.
    """
    place = folder / IDENTITY
    claim = machine_identity.claim(place, code)
    body = {
        "code": code,
        "public_key": base64.b64encode(claim.public_key).decode(),
        "signature": base64.b64encode(claim.signature).decode(),
    }
    enrolled = await connection.send("POST", "/runners/enrol", EnrolledRunnerResponse, body)
    store(folder, Credential.parse(enrolled.credential))
    return enrolled


def store(folder: Path, credential: Credential) -> None:
    """Write the credential of a runner; raises Unavailable."""
    content = f"{credential.text}\n".encode()
    machine_identity.write(folder / IDENTITY / machine_identity.CREDENTIAL, content)


def is_enrolled(folder: Path) -> bool:
    """Whether a runner is enrolled in a folder."""
    return (folder / IDENTITY / machine_identity.CREDENTIAL).exists()


def store_addresses(folder: Path, addresses: ServerAddresses) -> None:
    """Write the addresses of the testbed beside the credential of a runner."""
    machine_identity.store_addresses(folder / IDENTITY, addresses)


def stored(folder: Path) -> RunnerIdentity:
    """The identity of an enrolled runner; raises Refused if there is none."""
    place = folder / IDENTITY
    if not is_enrolled(folder):
        raise Refused(
            f"no runner is enrolled in {folder}",
            hint="have a code made, `testbed runner code NAME`; then: testbed runner run --code"
            " CODE",
        )
    credential = machine_identity.credential(place, RUNNER)
    addresses = machine_identity.stored_addresses(place) or ServerAddresses()
    return RunnerIdentity(
        name=credential.principal, credential=credential.text, addresses=addresses
    )
