"""The organisation of a run on a server of its own, and the credentials of all that takes part."""

import asyncio
import secrets
from collections.abc import Collection

from broker import api_client
from broker.namespace import StreamAddress
from broker.responses.credentials import NewPrincipalResponse
from broker.run_clock import COORDINATOR
from testbed.scenario.plan import RunPlan
from testbed.scenario.programs import RunAccess

OWNER = "owner"


async def admit(plan: RunPlan, api: str, broker: str, administrator: str) -> RunAccess:
    """Create the organisation and the credentials of a run.

    The coordinator publishes all equipment and the truth, and reads everything.  A prototype reads
    exactly its inputs and writes exactly its outputs: so it cannot read the truth.
    """
    async with api_client.connect(api, administrator) as server:
        owner = await server.create_organisation(plan.organisation, owner=OWNER, kind="partner")
    credentials: dict[str, str] = {}
    async with api_client.connect(api, owner) as local:

        async def create(
            principal: str, reads: Collection[StreamAddress], writes: Collection[StreamAddress]
        ) -> None:
            body = {
                "principal": principal,
                "reads": [_entry(plan, stream) for stream in reads],
                "writes": [_entry(plan, stream) for stream in writes],
            }
            created = await local.send("POST", "/credentials", NewPrincipalResponse, body)
            credentials[principal] = created.credential

        async with asyncio.TaskGroup() as tasks:
            for name, prototype in plan.scenario.prototypes.items():
                reads = set(plan.inputs(prototype).values())
                writes = plan.own_outputs(name).values()
                tasks.create_task(create(name, reads, writes), name=f"credential of {name}")
            sources = {
                stream
                for equipment in plan.scenario.equipment
                for stream in (plan.stream(equipment), plan.truth(equipment))
            }
            everything = sources | set(plan.outputs().values())
            own = sources | {plan.clock_stream}
            tasks.create_task(create(COORDINATOR, everything, own), name="credential of the run")
    return RunAccess(
        api=api,
        broker=broker,
        owner=owner,
        credentials=credentials,
        marker=secrets.token_hex(16),
    )


def _entry(plan: RunPlan, stream: StreamAddress) -> dict[str, str]:
    return {"space": plan.space, "stream": str(stream)}
