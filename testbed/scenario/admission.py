"""The organisation of a run on a server of its own, and the credentials of all that takes part."""

import asyncio
import secrets
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager

from pydantic import SecretStr

from broker.bus import client
from broker.clock import Clock
from broker.credential import Credential
from broker.namespace import StreamAddress
from broker.responses.credentials import NewPrincipalResponse
from broker.run_clock import COORDINATOR
from broker.settings import BusSettings
from testbed.scenario import run_api
from testbed.scenario.plan import RunPlan
from testbed.scenario.programs import RunAccess

OWNER = "owner"

Scope = tuple[AbstractSet[StreamAddress], AbstractSet[StreamAddress]]
"""The streams that a principal reads, and those that it writes."""


def scopes(plan: RunPlan) -> Mapping[str, Scope]:
    """The streams that each principal reads and writes.

    The coordinator publishes all equipment and the truth, and reads everything.  A prototype reads
    exactly its inputs and writes exactly its outputs: so it cannot read the truth.
    """
    sources = {
        stream
        for equipment in plan.scenario.equipment
        for stream in (plan.stream(equipment), plan.truth(equipment))
    }
    everything = sources | set(plan.outputs().values())
    of_prototypes = {
        name: (set(plan.inputs(prototype).values()), set(plan.own_outputs(name).values()))
        for name, prototype in plan.scenario.prototypes.items()
    }
    return {COORDINATOR: (everything, sources | {plan.clock_stream}), **of_prototypes}


async def admit(
    plan: RunPlan,
    api: str,
    broker: str,
    administrator: str,
    gateways: Mapping[str, Scope] | None = None,
) -> RunAccess:
    """Create the organisation and the credentials of a run; gateways: further ones by principal."""
    async with run_api.connect(api, administrator) as server:
        owner = await server.create_organisation(
            plan.organisation, owner=plan.principal(OWNER), kind="partner"
        )
    credentials: dict[str, str] = {}
    async with run_api.connect(api, owner) as local, asyncio.TaskGroup() as tasks:

        async def create(name: str, scope: Scope) -> None:
            reads, writes = ([_entry(plan, stream) for stream in streams] for streams in scope)
            body = {"principal": plan.principal(name), "reads": reads, "writes": writes}
            created = await local.send("POST", "/credentials", NewPrincipalResponse, body)
            credentials[name] = created.credential

        for name, scope in {**scopes(plan), **(gateways or {})}.items():
            tasks.create_task(create(name, scope), name=f"credential of {name}")
    return RunAccess(
        api=api,
        broker=broker,
        owner=owner,
        credentials=credentials,
        marker=secrets.token_hex(16),
    )


def coordinator_bus(access: RunAccess, clock: Clock) -> AbstractAsyncContextManager[client.Bus]:
    """Connect to the broker as the coordinator, which observes everything in the run."""
    credential = access.credentials[COORDINATOR]
    principal = Credential.parse(credential).principal
    settings = BusSettings(
        broker=access.broker,
        ca=None,
        credential=SecretStr(credential),
        timeout_s=run_api.ANSWERS_WITHIN_S,
    )
    return client.open(settings, clock, client_id=f"{principal}--{secrets.token_hex(4)}")


def _entry(plan: RunPlan, stream: StreamAddress) -> dict[str, str]:
    return {"space": plan.space, "stream": str(stream)}
