"""A prototype that compares the flows of two machines at the instants that both have rows of."""

import asyncio

from testbed_sdk import Input, Output, Signal, connect, run

Flows = dict[int, float]
"""Flow in L/min by the instant of its row, ns since 1970; one that has no partner yet."""


async def take(machine: Input, own: Flows, pairs: tuple[Flows, Flows], differences: Output) -> None:
    """Take a machine's rows, and publish the difference at each instant that is now complete."""
    async for batch in machine:
        flow = batch["Volume Flow RateRMS"]
        own.update(zip(flow.time_ns.tolist(), flow.values.tolist(), strict=True))
        first, second = pairs
        if complete := sorted(first.keys() & second.keys()):
            values = [second.pop(at) - first.pop(at) for at in complete]
            await differences.publish(complete, {"difference": values})


async def main() -> None:
    async with connect() as testbed:
        inputs = [testbed.input("first"), testbed.input("second")]
        for each in inputs:
            await each.open()
        flows = await testbed.output("flows", [Signal("difference", unit="L/min")])
        pairs: tuple[Flows, Flows] = ({}, {})
        async with asyncio.TaskGroup() as tasks:
            for machine, own in zip(inputs, pairs, strict=True):
                tasks.create_task(take(machine, own, pairs, flows), name="rows of a machine")


run(main())
