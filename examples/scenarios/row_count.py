"""A prototype that counts the rows of a machine: those that it read, and those that are stored."""

from testbed_sdk import Dtype, Signal, connect, run

COUNTS = [Signal("read", Dtype.INT64), Signal("lost", Dtype.INT64)]


async def main() -> None:
    async with connect() as testbed:
        rig = testbed.input("rig")
        await rig.open()
        counts = await testbed.output("counts", COUNTS)
        read = 0
        async for batch in rig:
            times = batch["Pressure"].time_ns
            read += len(times)
            stored = await testbed.history("rig", "Pressure", from_="-1h")
            lost = read - len(stored["Pressure"].time_ns)
            await counts.publish(times[-1:], {"read": [read], "lost": [lost]})


run(main())
