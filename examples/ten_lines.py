"""The smallest prototype: it prints the rig's pressures as they arrive."""

from testbed_sdk import connect, run


async def main() -> None:
    async with connect() as testbed:
        async for batch in testbed.input("rig"):
            print(batch["Pressure"].values)


run(main())
