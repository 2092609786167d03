"""The streams of a deployment's inputs on the bus: their specs, and what is published of them."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from broker import api_client
from broker.batch import source_of
from broker.bus import client
from broker.clock import Clock
from broker.namespace import EquipmentKind, StreamAddress
from broker.process import tasks
from broker.streams import StreamSpec, Trigger
from testbed.deployment_source.inputs import PlayedInputs
from testbed_sdk.former_run import FormerRun
from testbed_sdk.outputs import Output
from testbed_sdk.program_time import WallTime

RING_BYTES = 16 * 1024 * 1024
"""Batches of a stream that wait for the recorder; while they are more, the source is held up."""
CLOSES_WITHIN_S = 1.0
"""The longest wait for the recorder's last marks: the end of a source takes two seconds at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConnection:
    """The connections of a source, and the space that it plays in."""

    api: api_client.Api
    bus: client.Bus
    space: str
    clock: Clock


@asynccontextmanager
async def opened(
    played: PlayedInputs, bound: Mapping[str, StreamAddress], connection: StreamConnection
) -> AsyncIterator[Mapping[str, Output]]:
    """The outputs of a source by the names of the inputs, registered, until left.

    bound: input -> its stream.  Leaving waits for the recorder's last marks, not for long.
    """
    outputs = {}
    for each in played.inputs:
        address = bound[each.name]
        spec = StreamSpec(address, each.signals, trigger=Trigger.TIMESTAMP)
        outputs[each.name] = await _registered(spec, played.kind, connection)
    running = {f"output {name}": output.run() for name, output in outputs.items()}
    async with tasks.background(running):
        try:
            yield outputs
        finally:
            await _close(outputs)


async def _registered(
    proposal: StreamSpec, kind: EquipmentKind, connection: StreamConnection
) -> Output:
    """Register a stream with its equipment, and tell its spec to those that read it."""
    address, space = proposal.address, connection.space
    word = "a simulated machine" if kind is EquipmentKind.SIMULATED else "a recording"
    await connection.api.register_equipment(
        address.owner,
        name=address.equipment,
        kind=kind,
        description=f"{word} that plays the inputs of a prototype",
    )
    spec = await connection.api.register_spec(proposal)
    former_run = FormerRun(api=connection.api, space=space, address=address)
    output = Output(
        space,
        spec,
        bus=connection.bus,
        clock=connection.clock,
        source=source_of(kind, space),
        ring_bytes=RING_BYTES,
        newest_before=former_run.newest_before,
        time=WallTime(connection.clock),
    )
    await output.publish_spec()
    return output


async def _close(outputs: Mapping[str, Output]) -> None:
    """Wait for the recorder's last marks; what is not marked in time lies in the next gap."""
    for output in outputs.values():
        output.begin_closing()
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSES_WITHIN_S):
            for output in outputs.values():
                await output.wait_closed()
