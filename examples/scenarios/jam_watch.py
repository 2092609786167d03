"""A prototype that finds a jam: a station starves although parts wait in the buffer before it."""

import numpy as np

from testbed_sdk import Dtype, Signal, connect, run

STARVED = 0


async def main() -> None:
    async with connect() as testbed:
        line = testbed.input("line")
        await line.open()
        jam = await testbed.output("jam", [Signal("alarm", Dtype.BOOL)])
        async for batch in line:
            station = batch["Station2 State"]
            starves = np.equal(station.values, STARVED)
            await jam.publish(
                station.time_ns, {"alarm": starves & np.greater(batch["Buffer1"].values, 0)}
            )


run(main())
