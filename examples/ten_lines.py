"""The smallest prototype: it prints the rig's pressures as they arrive."""

import asyncio

from testbed_sdk import connect


async def main() -> None:
    async with connect() as testbed:
        async for batch in testbed.input("rig"):
            print(batch["Pressure"].values)


asyncio.run(main())
