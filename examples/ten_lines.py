"""The smallest prototype: what the rig says, as it says it."""

import asyncio

from testbed_sdk import connect


async def main() -> None:
    async with connect() as testbed:
        async for batch in testbed.input("rig"):
            print(batch["Pressure"].values)


asyncio.run(main())
